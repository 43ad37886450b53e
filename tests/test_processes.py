"""A run on one device, on eight, or on two processes with four each gives the same numbers."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import command_line
import pytest

from cifar_jax.errors import UserError
from cifar_jax.runtime import distributed

SHORT = ("--config.epochs=1", "--config.checkpoint.every_steps=5")  # 38 steps


def start(workdir: pathlib.Path, *arguments: str, processes: int = 1, devices: int = 1):
    """Starts main.py in `processes` processes of one run, each with `devices` devices."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    started = []
    for index in range(processes):
        variables = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(index),
        }
        flags = f"--xla_force_host_platform_device_count={devices} {command_line.QUICK}"
        started.append(
            subprocess.Popen(
                [sys.executable, "main.py", command_line.TINY, f"--workdir={workdir}", *arguments],
                cwd=command_line.ROOT,
                env={**os.environ, "XLA_FLAGS": flags, **(variables if processes > 1 else {})},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return started


def finish(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """Waits for all processes; returns exit status and output of each."""
    return list(map(command_line.finish, processes))


def run(*args: Any, **kwargs: Any) -> None:
    for status, output in finish(start(*args, **kwargs)):
        assert status == 0, output


def assert_close(workdir: pathlib.Path, expected: pathlib.Path) -> None:
    pairs = zip(command_line.rows(workdir), command_line.rows(expected), strict=True)
    for row, wanted in pairs:
        assert row == pytest.approx(wanted, rel=1e-4)
    results = [json.loads((path / "result.json").read_text()) for path in (workdir, expected)]
    for key in ("test_accuracy", "test_examples", "confusion_matrix", "best_epoch"):
        assert results[0][key] == results[1][key]
    assert results[0]["test_loss"] == pytest.approx(results[1]["test_loss"], rel=1e-4)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The workdir of a finished run on one device."""
    workdir = tmp_path_factory.mktemp("single")
    run(workdir, *SHORT)
    return workdir


@pytest.mark.slow
def test_eight_devices_give_the_same_result_as_one(single: pathlib.Path, tmp_path: pathlib.Path):
    run(tmp_path, *SHORT, devices=8)
    assert_close(tmp_path, single)
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert (environment["device_count"], environment["process_count"]) == (8, 1)


@pytest.mark.slow
def test_a_run_moves_from_one_device_to_two_processes_and_back(
    single: pathlib.Path, tmp_path: pathlib.Path
):
    def stop(processes: list[subprocess.Popen[str]], step: int) -> int:
        """Stops the last process after a checkpoint; returns the step that all processes saved."""
        deadline = time.monotonic() + command_line.HANGS
        checkpoints = tmp_path / "checkpoints"
        while not any(p.name.isdigit() and int(p.name) >= step for p in checkpoints.glob("*")):
            assert time.monotonic() < deadline and processes[-1].poll() is None
            time.sleep(0.005)
        processes[-1].send_signal(signal.SIGTERM)
        ends = finish(processes)
        assert [status for status, _ in ends] == [75] * len(processes), ends
        (saved,) = {int(text.partition("saved step ")[2].split()[0]) for _, text in ends}
        assert (checkpoints / str(saved)).is_dir()
        return saved

    first = stop(start(tmp_path, *SHORT), 5)
    second = stop(start(tmp_path, *SHORT, processes=2, devices=4), first + 4)
    assert second > first
    run(tmp_path, *SHORT)
    assert_close(tmp_path, single)
    starts = json.loads((tmp_path / "environment.json").read_text())["starts"]
    assert [(s["process_count"], s["device_count"]) for s in starts] == [(1, 1), (2, 8), (1, 1)]
    assert [s["step"] for s in starts] == [0, first, second]


@pytest.mark.slow
def test_two_processes_with_four_devices_give_the_same_result_as_one(
    single: pathlib.Path, tmp_path: pathlib.Path
):
    ends = finish(start(tmp_path, *SHORT, processes=2, devices=4))
    assert [status for status, _ in ends] == [0, 0], ends
    assert_close(tmp_path, single)
    assert "test accuracy" in ends[0][1] and "test accuracy" not in ends[1][1]


@pytest.mark.slow
def test_a_process_whose_peer_is_killed_does_not_wait_forever(tmp_path: pathlib.Path):
    survivor, victim = start(tmp_path, "--config.epochs=1000", processes=2, devices=1)
    deadline = time.monotonic() + command_line.HANGS
    while not list((tmp_path / "checkpoints").glob("[0-9]*")):
        assert time.monotonic() < deadline and survivor.poll() is None
        time.sleep(0.01)
    victim.kill()
    victim.communicate()
    status, _ = command_line.finish(survivor)  # jax.distributed needs a minute to notice
    assert status not in (0, 2)  # with these, a script would not try again


@pytest.mark.slow
def test_a_process_without_its_coordinator_gives_up_in_one_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    workdir = tmp_path / "run"
    status, output = command_line.run(
        command_line.TINY, f"--workdir={workdir}", "--join_timeout=0.5"
    )
    assert status == 75
    (line,) = output.splitlines()
    assert "localhost:1 within 0.5 s" in line and "--join_timeout" in line
    assert not workdir.exists()


# ---------------------------------------------------------------------------- environment
ALL = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}


@pytest.mark.parametrize(
    ("environment", "has_tpu", "expected"),
    [
        ({}, False, None),
        ({}, True, {}),
        (ALL, False, {"coordinator_address": "a:1", "num_processes": 2, "process_id": 1}),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, False, None),  # a batch script
        ({"SLURM_STEP_NUM_TASKS": "1"}, False, None),
        ({"SLURM_STEP_NUM_TASKS": "4"}, False, {"cluster_detection_method": "slurm"}),
    ],
)
def test_the_environment_says_how_many_processes_there_are(
    environment: dict[str, str], has_tpu: bool, expected: dict[str, Any] | None
):
    assert distributed.arguments(environment, has_tpu) == expected


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"JAX_PROCESS_ID": ""}, "without JAX_PROCESS_ID"),
        ({"JAX_PROCESS_ID": "2"}, "an index from 0 below"),
        ({"JAX_PROCESS_ID": "-1"}, "an index from 0 below"),
        ({"JAX_NUM_PROCESSES": "two"}, "a number of processes"),
        ({"JAX_COORDINATOR_ADDRESS": "a"}, "host:port"),
    ],
)
def test_a_contradictory_environment_is_refused(changed: dict[str, str], message: str):
    with pytest.raises(UserError, match=message):
        distributed.arguments(ALL | changed, has_tpu=False)
