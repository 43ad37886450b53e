"""Checkpoints can be restored from any path, and even if the disk returns wrong data."""

import errno
import logging
import os
import pathlib
from typing import Any

import command_line
import numpy as np
import pytest
import tiny
from etils import epath
from ml_collections import ConfigDict
from test_checkpoint import LIKE, damage, orbax_garbage, save_all, state_of  # noqa: F401

from cifar_jax.errors import UserError
from cifar_jax.evaluation import trained
from cifar_jax.runtime import checkpoint
from cifar_jax.runtime.checkpoint import Checkpoints, Reader, arrays
from cifar_jax.training import best, claim, experiment
from cifar_jax.training import run as train
from cifar_jax.training import test as evaluate
from cifar_jax.training.member import Member

pytestmark = pytest.mark.slow


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING, "cifar_jax")
    return caplog


# ---------------------------------------------------------------------------- paths
NAMES = [
    "blocks[0]=96", "[", "]", "[!a]", "a*b", "a?b", "{a,b}", "%20", "a#b?c=d", "a b", "~", "-x",
    "gs:x", "5", "a\nb", "ü", "🙂", "a::b|c", "'\"",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_can_have_any_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    beside = (
        tmp_path / name.replace("*", "x").replace("?", "y").replace("[!a]", "b") / "checkpoints"
    )
    if beside.parent.name != name:
        save_all(beside, {20: 0.9})  # a pattern would match this, too
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    for directory in (pathlib.Path("checkpoints"), tmp_path / name / "below" / "checkpoints"):
        save_all(directory, {10: 0.5, 20: 0.4})
        with Checkpoints(epath.Path(directory)) as checkpoints:
            assert checkpoints.steps == [10, 20]
            restored = checkpoints.restore_latest(LIKE)
        assert restored is not None and restored.step == 20
        np.testing.assert_array_equal(restored.state["weights"], state_of(20)["weights"])


@pytest.mark.parametrize(("name", "reason"), [("a\\b", "a backslash"), ("a\udcff", "not UTF-8")])
@pytest.mark.parametrize("relative", [False, True])
def test_a_path_that_tensorstore_does_not_support_is_refused_at_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str, relative: bool
):
    place = tmp_path / name
    place.mkdir()
    monkeypatch.chdir(place if relative else tmp_path)
    workdir = epath.Path("runs/final" if relative else place / "run")
    monkeypatch.setattr(experiment, "build", None)  # nothing is computed
    for number in (1, 2):
        config = command_line.tiny_config()
        config.seeds = number
        with pytest.raises(UserError, match=f"{reason}.* choose another"):
            train.run(tiny.typed(config), workdir)
    assert not list(place.iterdir())
    with claim.claimed(workdir, tiny.typed(command_line.tiny_config())):  # as if moved there
        pass
    for read in (evaluate.run, trained.load):
        with pytest.raises(UserError, match=f"{reason}.* choose another"):
            read(workdir)


def test_a_path_in_an_object_store_can_have_backslashes():
    checkpoint.check_path(epath.Path("gs://bucket/a\\b"))


# ---------------------------------------------------------------------------- read back
def data_file(directory: pathlib.Path) -> pathlib.Path:
    return max(directory.rglob("ocdbt.process_*/d/*"), key=lambda path: path.stat().st_size)


@pytest.fixture
def bad_disk(monkeypatch: pytest.MonkeyPatch):
    """Set `bad_disk[0]`: so many of the next saves get a bit flipped before they are read back."""
    left = [0]
    load = arrays.load

    def flipped(path: pathlib.Path | epath.Path, like: Any):
        if left[0]:
            left[0] -= 1
            damage(data_file(pathlib.Path(path)), "flipped")
        return load(path, like)

    monkeypatch.setattr(arrays, "load", flipped)
    return left


@pytest.mark.usefixtures("orbax_garbage")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("times", [1, 2])
def test_a_save_that_reads_back_wrong_is_repeated(
    tmp_path: pathlib.Path, said: pytest.LogCaptureFixture, bad_disk: list[int], times: int
):
    bad_disk[0] = times
    save_all(tmp_path, {10: 0.5})
    assert said.text.count("checkpoint of step 10 is not what was saved") == times
    assert said.text.count("saved again") == times
    restored = Reader(epath.Path(tmp_path)).restore(LIKE, 10)
    assert restored is not None and restored.epoch_seconds == 1.5
    np.testing.assert_array_equal(restored.state["weights"], state_of(10)["weights"])


@pytest.mark.usefixtures("orbax_garbage")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_that_always_returns_wrong_data_is_a_user_error(
    tmp_path: pathlib.Path, bad_disk: list[int]
):
    bad_disk[0] = 99
    with pytest.raises(UserError, match="returns other data than were written"):
        save_all(tmp_path, {10: 0.5})


def test_a_save_can_be_repeated_after_the_state_is_gone(
    tmp_path: pathlib.Path, bad_disk: list[int]
):
    """The next step reuses the buffers of the state, so the save is repeated from a copy."""
    bad_disk[0] = 1
    state = state_of(10)
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        checkpoints.save(10, state)
        state["weights"].delete()
    restored = Reader(epath.Path(tmp_path)).restore(LIKE, 10)
    assert restored is not None
    np.testing.assert_array_equal(restored.state["weights"], state_of(10)["weights"])


@pytest.mark.parametrize("how", ["flipped", "missing", "emptied"])
def test_the_best_state_of_this_process_survives_damage_to_its_checkpoint(
    tmp_path: pathlib.Path, said: pytest.LogCaptureFixture, how: str
):
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        for step, accuracy in {10: 0.9, 20: 0.5, 30: 0.4, 40: 0.3}.items():
            checkpoints.save(step, state_of(step), 1.5, accuracy)
        checkpoints.wait()
        damage(data_file(tmp_path / "10"), how)
        found = checkpoints.entries_of_first(("weights", "step"), [10, 20, 30, 40])
    assert found is not None and found[0] == found[1]["step"] == 10
    assert "checkpoint of step 10 is made again from memory" in said.text
    again = Reader(epath.Path(tmp_path)).restore(LIKE, 10)
    assert again is not None
    for state in (found[1], again.state):
        np.testing.assert_array_equal(state["weights"], state_of(10)["weights"])


def test_a_bug_is_not_reported_as_a_full_disk(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    def bug(*_, **__: object):
        raise ValueError("shapes do not match")

    monkeypatch.setattr("orbax.checkpoint.v1.training.Checkpointer.save_async", bug)
    with pytest.raises(ValueError, match="shapes do not match"):
        save_all(tmp_path, {10: 0.5})


# ---------------------------------------------------------------------------- the seal
@pytest.mark.parametrize("how", ["flipped", "missing", "truncated", "emptied", "null"])
def test_damage_is_detected_before_orbax_reads_the_checkpoint(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    said: pytest.LogCaptureFixture,
    how: str,
):
    save_all(tmp_path / "0", {10: 0.5})
    count = sum(path.is_file() for path in (tmp_path / "0/10").rglob("*"))
    loads = []
    monkeypatch.setattr(arrays, "load", lambda path, like: loads.append(path))
    for rank in range(count):
        directory = tmp_path / f"{rank + 1}"
        (tmp_path / "0").rename(directory)
        path = sorted(p for p in (directory / "10").rglob("*") if p.is_file())[rank]
        if path.name != "crc32.txt":
            whole = path.read_bytes()
            path.write_bytes(b"null") if how == "null" else damage(path, how)
            assert Reader(epath.Path(directory)).restore(LIKE, 10) is None, path
            assert path.name in said.text
            path.write_bytes(whole)
        directory.rename(tmp_path / "0")
    assert not loads


@pytest.mark.parametrize("how", ["flipped", "missing", "truncated", "emptied"])
def test_a_damaged_seal_is_ignored(tmp_path: pathlib.Path, how: str):
    save_all(tmp_path, {10: 0.5})
    damage(tmp_path / "10" / "crc32.txt", how)
    assert Reader(epath.Path(tmp_path)).restore(LIKE, 10) is not None


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
def test_an_unreadable_file_counts_as_damage(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    said: pytest.LogCaptureFixture,
    code: int,
):
    save_all(tmp_path, {10: 0.5, 20: 0.4})
    path = data_file(tmp_path / "20")
    kind = type(Reader(epath.Path(tmp_path)).directory)

    def refuse(self: pathlib.Path):
        if str(self) == str(path):
            raise OSError(code, os.strerror(code), str(self))
        return pathlib.Path(self).read_bytes()

    monkeypatch.setattr(kind, "read_bytes", refuse)
    restored = Reader(epath.Path(tmp_path)).restore_latest(LIKE)
    assert restored is not None and restored.step == 10
    assert f"{path}: {os.strerror(code)}" in said.text


# ---------------------------------------------------------------------------- a run
@pytest.fixture
def config():
    config = command_line.tiny_config()
    config.data.standardize = False
    config.optimizer.learning_rate = (
        1e-12  # all epochs are equally good, so the first stays the best
    )
    config.optimizer.ema_decay = 0.0
    config.early_stopping.enabled = False
    config.checkpoint.every_steps = 0
    config.epochs = 4
    return config


def test_a_flipped_bit_in_the_best_checkpoint_costs_no_run(
    config: ConfigDict,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    said: pytest.LogCaptureFixture,
):
    """Killed, damaged and resumed: the second process knows no better copy."""
    config, workdir, close = tiny.typed(config), epath.Path(tmp_path), Member.close_epoch  # pyright: ignore[reportAssignmentType]

    def killed(self: Member, *arguments: Any):
        if self.step == 4 * 38:
            raise KeyboardInterrupt
        return close(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Member, "close_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            train.run(config, workdir)
    rows = best.in_order(command_line.rows(tmp_path), restore_best=True)
    wanted = rows[0]["epoch"]
    assert wanted < 3
    damage(data_file(tmp_path / "checkpoints" / str(38 * wanted)), "flipped")
    assert trained.load(workdir).epoch != wanted  # before the run ends
    result = train.run(config, workdir)
    assert result["lost_epoch"] == wanted and result["best_epoch"] in (2, 3, 4)
    assert f"the checkpoint of the best epoch, {wanted}, is damaged or missing" in said.text
    assert (tmp_path / "checkpoints-damaged" / str(38 * wanted)).is_dir()
    assert evaluate.run(workdir) == result
    assert trained.load(workdir).epoch == result["best_epoch"]


def test_a_best_row_whose_checkpoint_is_still_being_saved_is_skipped(
    config: ConfigDict, tmp_path: pathlib.Path, said: pytest.LogCaptureFixture
):
    """For a moment after each epoch, the row is written but the save is still in flight."""
    workdir = epath.Path(tmp_path)
    config.epochs = 2
    train.run(tiny.typed(config), workdir)
    (tmp_path / "result.json").unlink()
    rows = (tmp_path / "metrics.jsonl").read_text()
    newest = rows.splitlines()[-1].replace('"epoch": 2, "step": 76', '"epoch": 3, "step": 114')
    accuracy = newest.partition('"validation_accuracy": ')[2].partition(",")[0]
    better = newest.replace(f'"validation_accuracy": {accuracy}', '"validation_accuracy": 0.99')
    (tmp_path / "metrics.jsonl").write_text(f"{rows}{better}\n")
    (tmp_path / "checkpoints" / "114.orbax-checkpoint-tmp").mkdir()
    assert trained.load(workdir).epoch in (1, 2)
    assert "the best epoch, 3, is damaged or missing" in said.text
    for path in (tmp_path / "checkpoints").iterdir():
        path.rename(tmp_path / path.name)
    with pytest.raises(UserError, match="no epoch of the run .* wait for one, or resume") as caught:
        trained.load(workdir)
    assert "train in another" not in str(caught.value)


def test_if_a_run_deletes_the_checkpoint_meanwhile_the_search_is_repeated(
    config: ConfigDict, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    """Its next save has taken the place of all that the first glance found."""
    exp = experiment.build(tiny.typed(config))
    glances = iter([[(1, 10)], [(1, 10), (2, 20)]])

    def read_rows(_):
        return [{"epoch": e, "step": s, "validation_accuracy": 0.1 * e} for e, s in next(glances)]

    monkeypatch.setattr(best.metrics_writer, "read_rows", read_rows)
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        checkpoints.save(20, exp.initial_state(), 0.0, 0.5)
    reader = Reader(epath.Path(tmp_path))
    like = exp.abstract_state().variables()
    found = best.restore(reader, like, epath.Path(tmp_path), restore_best=True)
    assert (found.epoch, found.lost_epoch) == (2, None)


# ---------------------------------------------------------------------------- orbax' log
def test_orbax_says_what_matters_and_nothing_else(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
):
    save_all(tmp_path, {10: 0.5})
    assert not caplog.records
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        for path in ("site-packages/orbax/checkpoint/a.py", "site-packages/other/a.py"):
            record = logging.LogRecord("absl", level, path, 1, f"{level} {path}", (), None)
            logging.getLogger("absl").handle(record)
    assert [(r.levelname, r.pathname.split("/")[1]) for r in caplog.records] == [
        ("WARNING", "orbax"),
        ("ERROR", "other"),
    ]
