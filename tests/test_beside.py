"""Processes that share a workdir: what reads leaves a training run alone, and one run trains."""

import json
import pathlib
import shutil
from typing import Any

import command_line
import pytest
import tiny
from etils import epath

from cifar_jax import export
from cifar_jax.errors import UserError
from cifar_jax.evaluation import suites as robustness
from cifar_jax.evaluation import trained
from cifar_jax.report import page
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checkpoint import Checkpoints
from cifar_jax.training import claim, experiment
from cifar_jax.training import run as train
from cifar_jax.training import test as evaluate

pytestmark = pytest.mark.slow


def contents(directory: pathlib.Path) -> dict[str, tuple[int, bytes | None]]:
    return {
        str(path.relative_to(directory)): (
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else None,
        )
        for path in sorted(directory.rglob("*"))
    }


READERS = {
    "evaluate": evaluate.run,
    "load": trained.load,  # what predicting and showing begin with
    "export": lambda workdir: export.run(workdir, "safetensors"),
    "suite": lambda workdir: robustness.run(workdir, "adversarial", 8),
    "report": page.run,
}


@pytest.mark.parametrize("mode", READERS)
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_what_reads_leaves_checkpoints_and_lock_alone(
    finished: epath.Path, tmp_path: pathlib.Path, mode: str, state: str
):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    if state == "unfinished":
        (workdir / "result.json").unlink()
        config = json.loads((workdir / "config.json").read_text())
        (workdir / "config.json").write_text(json.dumps({**config, "epochs": 9}))
    # A save in flight, and a checkpoint that orbax would not open the others beside.
    in_flight = workdir / "checkpoints" / "120.orbax-checkpoint-tmp"
    in_flight.mkdir()
    (in_flight / "half").write_bytes(b"written")
    (workdir / "checkpoints" / "7").mkdir()
    (workdir / "checkpoints" / "7" / "_CHECKPOINT_METADATA").write_text("{")
    before = contents(workdir / "checkpoints")
    with files.locked(epath.Path(workdir)):  # a training run is at work
        if state == "unfinished" and mode in ("evaluate", "suite"):
            with pytest.raises(UserError, match="has not finished"):
                READERS[mode](epath.Path(workdir))
        else:
            READERS[mode](epath.Path(workdir))
    assert contents(workdir / "checkpoints") == before
    assert not (workdir / "checkpoints-damaged").exists()
    assert not [path for path in workdir.rglob(".*") if path.name != ".lock"]


def test_opening_checkpoints_writes_nothing_before_the_first_save(
    finished: epath.Path, tmp_path: pathlib.Path
):
    directory = tmp_path / "checkpoints"
    shutil.copytree(finished / "checkpoints", directory)
    (directory / "120.orbax-checkpoint-tmp").mkdir()
    before = contents(directory)
    with Checkpoints(epath.Path(directory)) as checkpoints:
        exp = experiment.build(tiny.typed(command_line.tiny_config()))
        assert checkpoints.restore_latest(exp.abstract_state())
    assert contents(directory) == before


# ---------------------------------------------------------------------------- two that train
@pytest.mark.parametrize("seeds", [1, 2])
def test_the_config_is_checked_under_the_lock(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, seeds: int
):
    """Another run begins, and ends or is killed, while this one loads its data."""
    config, other = command_line.tiny_config(), command_line.tiny_config()
    other.optimizer.learning_rate = 0.5
    config.seeds = other.seeds = seeds
    build = experiment.build

    def meanwhile(*arguments: Any):
        with claim.claimed(epath.Path(tmp_path), tiny.typed(other)):
            return build(*arguments)

    monkeypatch.setattr(experiment, "build", meanwhile)
    with pytest.raises(UserError, match="another config: .*learning_rate: 0.5 -> 0.01"):
        train.run(tiny.typed(config), epath.Path(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "config.json"]
    assert "0.5" in (tmp_path / "config.json").read_text()


def test_a_seed_whose_directory_holds_another_run_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    config, other = command_line.tiny_config(), command_line.tiny_config()
    config.seeds = 2
    build = experiment.build

    def meanwhile(*arguments: Any):
        with claim.claimed(epath.Path(tmp_path) / "seed-1", tiny.typed(other)):
            return build(*arguments)

    monkeypatch.setattr(experiment, "build", meanwhile)
    with pytest.raises(UserError, match="seed-1 holds a run of another config"):
        train.run(tiny.typed(config), epath.Path(tmp_path))
    assert [path.name for path in (tmp_path / "seed-1").iterdir() if path.name != ".lock"] == [
        "config.json"
    ]


def test_several_processes_may_write_one_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    """Evaluated twice at once: neither renames what the other has half written."""
    path = epath.Path(tmp_path) / "result.json"
    replace, names = type(path).replace, []

    def between(self: pathlib.Path, target: pathlib.Path):
        names.append(self.name)
        if len(names) == 1:
            files.write_json(path, {"by": "the other"})
        return replace(self, target)

    monkeypatch.setattr(type(path), "replace", between)
    files.write_json(path, {"by": "this one"})
    assert json.loads(path.read_text()) == {"by": "this one"}
    assert len(set(names)) == 2 and [p.name for p in tmp_path.iterdir()] == ["result.json"]
