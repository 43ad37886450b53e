"""A run that is killed again and again ends bit for bit as one that never was."""

import multiprocessing
import os
import pathlib
import random
import runpy
import signal
import time

import command_line
import pytest
import test_resume
from etils import epath

from cifar_jax import workdir

# What strikes, and how often: 20 kills. Together they let a run of 456 steps not come to its end.
KILLS = {"while starting": 6, "while saving": 7, "some steps on": 7}
# A parent that has imported everything and forks: a start takes little more than training.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["cifar_jax.train", "tests.configs.tiny"])


def train(directory: pathlib.Path) -> None:
    """In a process of its own: the tiny run, on one device."""
    os.environ["XLA_FLAGS"] = ""
    from cifar_jax import compilation, train

    compilation.keep()
    config = runpy.run_path(str(command_line.ROOT / "tests/configs/tiny.py"))["get_config"]()
    config.epochs = 12
    train.run(config, epath.Path(directory))


def start(directory: pathlib.Path):
    process = FORKS.Process(target=train, args=(directory,))
    process.start()
    return process


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("undisturbed")
    process = start(directory)
    process.join()
    assert process.exitcode == 0
    return directory


def steps_saved(directory: pathlib.Path) -> list[int]:
    names = [path.name for path in (directory / "checkpoints").glob("*")]
    return [int(name) for name in names if name.isdigit()] or [0]


def test_sigkill_at_random_moments(undisturbed, tmp_path):
    rng = random.Random(0)
    kinds = [kind for kind, number in KILLS.items() for _ in range(number)]
    rng.shuffle(kinds)
    for kind in kinds:
        began, delay = time.monotonic(), rng.uniform(0.0, 1.0)
        goal = max(steps_saved(tmp_path)) + rng.randint(1, 15)

        def is_time(kind=kind, began=began, delay=delay, goal=goal) -> bool:
            if kind == "while starting":
                return time.monotonic() - began > delay
            if kind == "while saving":
                return any("tmp" in path.name for path in (tmp_path / "checkpoints").glob("*"))
            return max(steps_saved(tmp_path)) >= goal

        process = start(tmp_path)
        while process.is_alive() and not is_time():
            time.sleep(0.001)
        if kind == "some steps on":
            time.sleep(delay / 20)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it ended before it could be killed"
    process = start(tmp_path)
    process.join()
    assert process.exitcode == 0
    test_resume.assert_same_run(tmp_path, undisturbed)


def test_a_second_run_in_the_same_workdir_is_refused(tmp_path):
    with workdir.locked(epath.Path(tmp_path)):
        before = sorted(tmp_path.rglob("*"))
        status, output = command_line.run(command_line.TINY, f"--workdir={tmp_path}")
        assert status == 2
        assert "another process trains in" in output and "choose another --workdir" in output
        assert len(output.splitlines()) == 2  # where the data came from, and the error
        assert sorted(tmp_path.rglob("*")) == before
    with workdir.locked(epath.Path(tmp_path)):
        pass  # free again
