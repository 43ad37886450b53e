"""Damage, full disks and odd clocks give one clear line, lose no data, and stop only if needed."""

import contextlib
import itertools
import json
import math
import pathlib
import shutil
import subprocess
import types

import command_line
import numpy as np
import pytest
import tiny
from etils import epath
from warm import ROOT, Warm

from cifar_jax.data import cache, sources
from cifar_jax.errors import UserError
from cifar_jax.runtime import metrics_writer
from cifar_jax.training import loop
from cifar_jax.training import run as train

pytestmark = pytest.mark.slow

TINY = (f"--config={ROOT}/{command_line.TINY.partition('=')[2]}", "--config.epochs=2")


@pytest.fixture(scope="module")
def undisturbed(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("undisturbed")
    status, output = warm.run(*TINY, f"--workdir={workdir}")
    assert status == 0, output
    return workdir


@pytest.fixture
def copy(undisturbed: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the undisturbed run as it was before the test."""
    shutil.copytree(undisturbed, tmp_path / "copy")
    (tmp_path / "copy" / "result.json").unlink()
    return tmp_path / "copy"


def assert_same_result(workdir: pathlib.Path, expected: pathlib.Path) -> None:
    assert command_line.rows(workdir) == command_line.rows(expected)
    one, other = (json.loads((path / "result.json").read_text()) for path in (workdir, expected))
    assert command_line.without_times(one) == command_line.without_times(other)


@contextlib.contextmanager
def mounted(path: pathlib.Path, *options: str):
    """Mounts at `path`; skips the test if that is not allowed."""
    done = subprocess.run(["mount", *options, str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


# ---------------------------------------------------------------------------- data
def test_a_data_set_with_one_class_can_be_learned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
):
    whole = tiny.dataset()
    one = {"train_labels": np.full(64, 2, np.int32), "test_labels": np.full(20, 2, np.int32)}
    dataset = sources.Dataset(**{**vars(whole), **one})
    monkeypatch.setattr(sources, "load", lambda _: dataset)
    result = train.run(tiny.typed(tiny.config({"epochs": 1})), epath.Path(tmp_path))
    assert result["test_accuracy"] == 1.0
    assert np.array(result["confusion_matrix"])[2, 2] == result["test_examples"] == 20


# ---------------------------------------------------------------------------- clocks
@pytest.mark.parametrize("step", [0.0, -1.0])
def test_a_clock_that_stands_still_or_runs_backward_does_not_stop_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, step: float
):
    """time.monotonic should never run backward, but a run does not depend on that."""
    clock = itertools.count(1e9, step)
    fake = types.SimpleNamespace(monotonic=lambda: next(clock), time=lambda: next(clock))
    monkeypatch.setattr(train, "time", fake)
    monkeypatch.setattr(loop, "time", fake)
    monkeypatch.setattr(metrics_writer, "time", fake)
    monkeypatch.setattr(sources, "load", lambda _: tiny.dataset())
    workdir = epath.Path(tmp_path)
    result = train.run(tiny.typed(tiny.config({"epochs": 2})), workdir)
    rows = metrics_writer.read_rows(workdir)
    assert [row["epoch"] for row in rows] == [1, 2] and result["epochs"] == 2
    assert all(math.isfinite(row["images_per_second"]) for row in rows)


# ---------------------------------------------------------------------------- damaged rows
def test_a_truncated_row_costs_its_epoch_only(
    warm: Warm, undisturbed: pathlib.Path, copy: pathlib.Path
):
    metrics = copy / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-40])
    status, output = warm.run(*TINY, f"--workdir={copy}")
    assert status == 0, output
    assert "a damaged line is left out" in output
    assert "resumed at step 70, epoch 2" in output, output[-600:]
    assert_same_result(copy, undisturbed)


@pytest.mark.parametrize("content", [b"", b"\0" * 300, b"\xff\xfe{\n"])
def test_missing_rows_are_reported_at_the_start(warm: Warm, copy: pathlib.Path, content: bytes):
    checkpoints = sorted(path.name for path in (copy / "checkpoints").iterdir())
    (copy / "metrics.jsonl").write_bytes(content)
    status, output = warm.run(*TINY, f"--workdir={copy}")
    assert status == 2 and "first step done" not in output
    assert "later than the rows before step 38: restore one" in output.splitlines()[-1]
    assert sorted(path.name for path in (copy / "checkpoints").iterdir()) == checkpoints


# ---------------------------------------------------------------------------- disks
def test_a_full_disk_loses_only_what_was_not_saved(
    warm: Warm, undisturbed: pathlib.Path, tmp_path: pathlib.Path
):
    with mounted(tmp_path, "-t", "tmpfs", "-o", "size=200k", "tmpfs"):
        workdir = tmp_path / "run"
        status, output = warm.run(*TINY, f"--workdir={workdir}")
        assert status == 2 and "Traceback" not in output
        assert output.splitlines()[-1].startswith("error: cannot "), output
        assert "free some space and run again" in output.splitlines()[-1]
        subprocess.run(["mount", "-o", "remount,size=10m", str(tmp_path)], check=True)
        status, output = warm.run(*TINY, f"--workdir={workdir}")
        assert status == 0 and "resumed at step" in output, output
        assert_same_result(workdir, undisturbed)


@pytest.mark.parametrize(
    ("mode", "largest", "place"),
    [
        ("train", 1_000, "config.json"),
        ("train", 12_000, "checkpoint"),
        ("evaluate", 13_000, "predictions.npz"),
        ("report", 30_000, "report.html"),
    ],
)
def test_a_file_that_cannot_grow_is_reported(
    warm: Warm, copy: pathlib.Path, tmp_path: pathlib.Path, mode: str, largest: int, place: str
):
    """Limits the size of files instead of mounting a small disk."""
    workdir = tmp_path / "new" if mode == "train" else copy
    arguments = TINY if mode == "train" else ()
    rows = command_line.rows(copy)
    status, output = warm.run(
        *arguments, f"--mode={mode}", f"--workdir={workdir}", largest_file=largest
    )
    line = output.splitlines()[-1]
    assert status == 2 and line.startswith("error: cannot ") and place in line, output
    assert "free some space and run again" in line
    assert not list(workdir.glob(".*.tmp"))  # no partial file is left
    assert command_line.rows(copy) == rows


def test_a_cache_that_does_not_fit_leaves_no_file(tmp_path: pathlib.Path):
    arrays = {field: np.zeros((40, 32, 32, 3), np.uint8) for field in cache.FIELDS}
    with mounted(tmp_path, "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        with pytest.raises(UserError, match="no space left for the data cache .* takes 1 MB"):
            cache.write(tmp_path / "set.npz", arrays)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["train", "evaluate", "report"])
def test_a_read_only_workdir_is_reported(warm: Warm, copy: pathlib.Path, mode: str):
    before = {path: path.stat().st_mtime for path in copy.rglob("*")}
    with mounted(copy, "--bind", str(copy)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(copy)], check=True)
        arguments = TINY if mode == "train" else ()
        status, output = warm.run(*arguments, f"--mode={mode}", f"--workdir={copy}")
    line = output.splitlines()[-1]
    assert status == 2 and "Read-only file system" in line and "another --workdir" in line, output
    assert {path: path.stat().st_mtime for path in copy.rglob("*")} == before
