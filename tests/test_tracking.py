"""`config.wandb` logs a run to Weights & Biases, without network and account if "offline"."""

import json
import pathlib
import re
import sys
import time

import command_line
import pytest
from etils import epath

from cifar_jax.errors import UserError
from cifar_jax.runtime import metrics_writer, tracking

CONFIG = {"epochs": 1, "optimizer": {"name": "adam"}}


def logged(workdir: pathlib.Path) -> bytes:
    """What W&B keeps of a run until it is sent, one start after the other."""
    files = sorted(workdir.glob("wandb/offline-run-*/run-*.wandb"))
    return b"".join(file.read_bytes() for file in files)


def identities(workdir: pathlib.Path) -> list[str]:
    """The id there of each start of a run."""
    return [path.name[-8:] for path in sorted(workdir.glob("wandb/offline-run-*"))]


def has(workdir: pathlib.Path, name: str, value: object) -> bool:
    """Whether this value is logged under this name, now or soon: W&B writes in the background."""
    pattern = re.escape(name).encode() + rb".{1,8}" + repr(value).encode()
    until = time.monotonic() + command_line.HANGS
    while not (found := re.search(pattern, logged(workdir))) and time.monotonic() < until:
        time.sleep(0.1)
    return found is not None


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Settings of the user are not used."""
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "user"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_rows_and_result_are_logged_and_a_resumed_run_goes_on(workdir: epath.Path):
    rows = metrics_writer.read_rows(workdir)
    with tracking.Tracker("offline", workdir, CONFIG) as tracker:
        tracker(rows[-1])  # as if the rows before it came from an earlier start
    home = pathlib.Path(workdir)
    for row in rows:
        assert has(home, "validation/accuracy", row["validation_accuracy"])
        assert has(home, "train/learning_rate", row["learning_rate"])
    result = json.loads((home / "result.json").read_text())
    assert has(home, "test_accuracy", result["test_accuracy"])
    with tracking.Tracker("offline", workdir, CONFIG) as tracker:
        tracker(rows[-1])
    assert len(identities(home)) == 2 and len(set(identities(home))) == 1


def test_without_a_row_nothing_is_written(tmp_path: pathlib.Path):
    with tracking.Tracker("offline", epath.Path(tmp_path), CONFIG):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_does_not_write_has_none(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    def tracker(mode: str):
        return tracking.tracker(mode, epath.Path(tmp_path), CONFIG)

    with tracker("") as made:
        assert made is None
    with tracker("offline") as made:
        assert made is not None
    monkeypatch.setattr(tracking.distributed, "is_writer", lambda: False)
    with tracker("offline") as made:
        assert made is None


def test_a_missing_package_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="config.wandb needs wandb: pip install -r requirements-w"):
        tracking.Tracker("offline", epath.Path(tmp_path), CONFIG)


def test_nobody_logged_in_is_one_line(tmp_path: pathlib.Path):
    with pytest.raises(UserError, match="run `wandb login`, or set config.wandb=offline$") as said:
        tracking.Tracker("online", epath.Path(tmp_path), CONFIG)
    assert "\n" not in str(said.value)


@pytest.mark.slow
def test_training_logs_and_leaves_the_run_as_it_is(finished: epath.Path, tmp_path: pathlib.Path):
    workdir = tmp_path / "tracked"
    status, output = command_line.run(
        command_line.TINY, f"--workdir={workdir}", "--config.wandb=offline"
    )
    assert status == 0, output
    rows = command_line.rows(workdir)
    assert rows == command_line.rows(pathlib.Path(finished))
    assert all(has(workdir, "train/loss", row["train_loss"]) for row in rows)


def test_several_seeds_are_refused(tmp_path: pathlib.Path):
    status, output = command_line.run(
        command_line.TINY, f"--workdir={tmp_path}", "--config.wandb=offline", "--config.seeds=2"
    )
    assert status == 2 and "config.wandb logs one run" in output
