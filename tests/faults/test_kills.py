"""A run that is killed again and again ends bit for bit like one that never was."""

import multiprocessing
import os
import pathlib
import random
import signal
import sys
import time

import command_line
import pytest
import test_resume
import tiny
from etils import epath

from cifar_jax.errors import TRY_AGAIN
from cifar_jax.runtime import workdir
from cifar_jax.runtime.interrupt import Interrupted

pytestmark = pytest.mark.slow

# When a signal comes, and how often: 20 kills spread over the 456 steps of the run.
KILLS = {"while starting": 6, "while saving": 7, "some steps on": 7}
TERMINATIONS = {"while saving": 5, "some steps on": 5}
# Forks from a parent that has imported everything, so starts are fast.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["cifar_jax.training.run", "sklearn.datasets", "tests.configs.tiny"])


def train(directory: pathlib.Path) -> None:
    """Trains the tiny run on one device; called in a process of its own."""
    os.environ["XLA_FLAGS"] = command_line.QUICK
    from cifar_jax.runtime import compilation
    from cifar_jax.training import run as train

    compilation.set_up()
    config = command_line.tiny_config()
    config.epochs = 12
    try:
        train.run(tiny.typed(config), epath.Path(directory))
    except Interrupted:
        sys.exit(TRY_AGAIN)


def start(directory: pathlib.Path):
    process = FORKS.Process(target=train, args=(directory,))
    process.start()
    return process


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("undisturbed")
    process = start(directory)
    process.join()
    assert process.exitcode == 0
    return directory


def steps_saved(directory: pathlib.Path) -> list[int]:
    names = [path.name for path in (directory / "checkpoints").glob("*")]
    return [int(name) for name in names if name.isdigit()] or [0]


@pytest.mark.parametrize(
    ("number", "moments", "status"),
    [
        (signal.SIGKILL, KILLS, -signal.SIGKILL),
        (signal.SIGTERM, TERMINATIONS, TRY_AGAIN),  # everything is saved
    ],
)
def test_signals_at_random_moments(
    undisturbed: pathlib.Path,
    tmp_path: pathlib.Path,
    number: int,
    moments: dict[str, int],
    status: int,
):
    rng = random.Random(0)
    kinds = [kind for kind, times in moments.items() for _ in range(times)]
    rng.shuffle(kinds)
    for kind in kinds:
        began, delay = time.monotonic(), rng.uniform(0.0, 1.0)
        goal = max(steps_saved(tmp_path)) + rng.randint(1, 15)

        state = {"cleaned": False}

        def is_time(
            kind: str = kind,
            began: float = began,
            delay: float = delay,
            goal: int = goal,
            state: dict[str, bool] = state,
        ) -> bool:
            if kind == "while starting":
                return time.monotonic() - began > delay
            if kind == "while saving":
                saving = any("tmp" in path.name for path in (tmp_path / "checkpoints").glob("*"))
                state["cleaned"] |= not saving  # ignores what the previous kill left behind
                return saving and state["cleaned"]
            return max(steps_saved(tmp_path)) >= goal

        process = start(tmp_path)
        while process.is_alive() and not is_time():
            time.sleep(0.001)
        if kind == "some steps on":
            time.sleep(delay / 20)
        os.kill(process.pid, number)  # pyright: ignore[reportArgumentType]
        process.join()
        assert process.exitcode == status, "it ended before it could be stopped"
    process = start(tmp_path)
    process.join()
    assert process.exitcode == 0
    test_resume.assert_same_run(tmp_path, undisturbed)


def test_a_second_run_in_the_same_workdir_is_refused(tmp_path: pathlib.Path):
    with workdir.locked(epath.Path(tmp_path)):
        before = sorted(tmp_path.rglob("*"))
        status, output = command_line.run(command_line.TINY, f"--workdir={tmp_path}")
        assert status == 2
        assert "another process trains in" in output and "choose another --workdir" in output
        assert len(output.splitlines()) == 2  # where the data came from, and the error
        assert sorted(tmp_path.rglob("*")) == before
    with workdir.locked(epath.Path(tmp_path)):
        pass  # the lock is free again
