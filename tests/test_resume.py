"""A run that was killed or interrupted gives exactly the result of an uninterrupted one."""

import json
import pathlib
import signal
import subprocess
import time

import command_line
import jax
import numpy as np
import pytest
import tiny
from etils import epath

from cifar_jax.runtime.checkpoint import Checkpoints

pytestmark = pytest.mark.slow


def wait_for_checkpoint(process: subprocess.Popen, workdir: pathlib.Path, step: int) -> None:
    """Returns as soon as there is a checkpoint of `step` or later."""
    deadline = time.monotonic() + command_line.HANGS
    while time.monotonic() < deadline and process.poll() is None:
        names = [path.name for path in (workdir / "checkpoints").glob("*")]
        if any(int(name) >= step for name in names if name.isdigit()):
            return
        time.sleep(0.005)
    process.kill()
    pytest.fail(f"no checkpoint of step {step}: {process.communicate()[0]}")


def last_state(workdir: pathlib.Path):
    """The state at the end of a run, restored on this process' eight devices."""
    config = command_line.tiny_config()
    like = tiny.build_real(config).abstract_state()
    with Checkpoints(epath.Path(workdir / "checkpoints")) as checkpoints:
        restored = checkpoints.restore_latest(like)
    assert restored is not None
    return jax.device_get(restored.state)


def assert_same_run(workdir: pathlib.Path, expected: pathlib.Path) -> None:
    assert command_line.rows(workdir) == command_line.rows(expected)
    results = [json.loads((path / "result.json").read_text()) for path in (workdir, expected)]
    assert command_line.without_times(results[0]) == command_line.without_times(results[1])
    states = [last_state(path) for path in (workdir, expected)]
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(states[0])]
    assert "opt_state" in str(paths) and "batch_stats" in str(paths) and "plateau" in str(paths)
    for path, one, other in zip(paths, *map(jax.tree.leaves, states), strict=True):
        assert np.array_equal(one, other), path
    assert (workdir / "predictions.npz").read_bytes() == (expected / "predictions.npz").read_bytes()


def test_a_killed_run_resumes_bit_for_bit(finished: epath.Path, tmp_path: pathlib.Path):
    for step in (20, 60):  # within the first and the second epoch, of 38 steps each
        process = command_line.start(command_line.TINY, f"--workdir={tmp_path}")
        wait_for_checkpoint(process, tmp_path, step)
        process.kill()
        process.communicate()
    status, output = command_line.run(command_line.TINY, f"--workdir={tmp_path}")
    assert status == 0, output
    assert "resumed at step" in output
    assert_same_run(tmp_path, finished)
    starts = json.loads((tmp_path / "environment.json").read_text())["starts"]
    assert len(starts) == 3 and starts[0]["step"] == 0 and starts[2]["step"] >= 60


def test_a_run_stopped_by_sigterm_or_ctrl_c_saves_and_resumes_bit_for_bit(
    finished: epath.Path, tmp_path: pathlib.Path
):
    for number, step in ((signal.SIGTERM, 20), (signal.SIGINT, 60)):
        process = command_line.start(command_line.TINY, f"--workdir={tmp_path}")
        wait_for_checkpoint(process, tmp_path, step)
        process.send_signal(number)
        status, output = command_line.finish(process)
        assert status == 75, output
        last_line = output.splitlines()[-1]
        assert "saved step" in last_line and "resume" in last_line
        saved = int(last_line.partition("saved step ")[2].split()[0])
        assert (tmp_path / "checkpoints" / str(saved)).is_dir()
        assert "Traceback" not in output
    status, output = command_line.run(command_line.TINY, f"--workdir={tmp_path}")
    assert status == 0, output
    assert f"resumed at step {saved}" in output
    assert_same_run(tmp_path, finished)


def test_evaluate_reproduces_the_result_from_the_workdir(
    workdir: epath.Path,
):
    expected = (workdir / "result.json").read_text()
    (workdir / "result.json").unlink()
    (workdir / "predictions.npz").unlink()
    status, output = command_line.run("--mode=evaluate", f"--workdir={workdir}")
    assert status == 0, output
    assert (workdir / "result.json").read_text() == expected
    assert (workdir / "predictions.npz").exists()


def test_a_finished_run_says_so_and_shows_its_result(workdir: epath.Path):
    before = (workdir / "metrics.jsonl").read_bytes()
    status, output = command_line.run(command_line.TINY, f"--workdir={workdir}")
    assert status == 0, output
    accuracy = json.loads((workdir / "result.json").read_text())["test_accuracy"]
    assert "finished" in output and f"test accuracy {accuracy:.4f}" in output
    assert (workdir / "metrics.jsonl").read_bytes() == before
