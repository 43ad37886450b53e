"""The benchmark of accelerators, in little on a CPU: whatever happens there, figures come back."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from benchmarks import networks, parts, peers, session

pytestmark = pytest.mark.slow

BEGUN = {"machine": {"processor": "a"}}


def test_figures_are_written_one_by_one_and_errors_among_them(tmp_path: pathlib.Path):
    part = parts.Part(tmp_path / "speed.json", BEGUN, time.monotonic() + 60, small=True)

    def fail(limit: float) -> dict[str, float]:
        raise FileNotFoundError("no\nfile")

    part.measure("one", lambda limit: {"limit": limit}, most=7.0)
    part.measure("two", fail)
    report = json.loads((tmp_path / "speed.json").read_text())
    assert report["machine"] == BEGUN["machine"] and report["figures"]["one"]["limit"] == 7.0
    assert report["figures"]["two"]["error"] == "FileNotFoundError: no file"
    late = parts.Part(tmp_path / "late.json", BEGUN, time.monotonic(), small=True)
    late.measure("one", lambda limit: {"limit": limit})
    assert "no time left" in late.figures["one"]["error"]


def test_what_takes_too_long_is_ended_and_told():
    endless = ["-c", "import time; print('first step done'); time.sleep(60)"]
    status, lines, seconds = parts.run(endless, limit=2.0)
    assert status == -signal.SIGKILL and lines == ["first step done"]
    assert seconds["to_first_step"] < seconds["whole_command"] < 30
    assert parts.run(endless, limit=60.0, stop="first step")[0] == -signal.SIGTERM
    job = networks.job("model1", batch_size=4, width=0.1)
    with pytest.raises(session.WorkerFailed, match="killed"):
        session.Worker(peers.PEERS["ours"], job, tuned=False, limit=0.2)


def test_the_command_measures_in_little(tmp_path: pathlib.Path):
    command = [sys.executable, "-m", "benchmarks.accelerator", "--small", "--parts=speed"]
    done = subprocess.run(
        [*command, f"--output={tmp_path}"], cwd=peers.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "speed.json").read_text())
    assert "benchmarks.accelerator --small" in report["command"] and report["machine"]["jax"]
    figures = report["figures"]["model1 float32"]
    assert figures["missing"] == {} and figures["ours"]["compile_seconds"]["train"] > 0
    assert min(figures["ours"]["train"] + figures["ours"]["infer"]) > 0
