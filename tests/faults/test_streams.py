"""Standard streams may be closed, full or limited in encoding: no work is lost."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import command_line
import pytest
from warm import ROOT, Warm

pytestmark = pytest.mark.slow

TINY = (f"--config={ROOT}/{command_line.TINY.partition('=')[2]}", "--config.epochs=1")
FULL, CLOSED = "/dev/full", ""
FAULTS = {FULL: "No space left on device", CLOSED: "Bad file descriptor"}
# mode -> (its arguments, the file that it writes)
MODES = {
    "evaluate": ([], "result.json"),
    "report": ([], "report.html"),
    "export": (["--format=safetensors"], "export/safetensors/model.safetensors"),
    "predict": ([str(ROOT / "docs/demo.png")], None),
}


@pytest.fixture(scope="module")
def run(warm: Warm, tmp_path_factory: pytest.TempPathFactory):
    workdir = tmp_path_factory.mktemp("run")
    status, output = warm.run(*TINY, f"--workdir={workdir}")
    assert status == 0, output
    return workdir


@pytest.fixture
def copy(run: pathlib.Path, tmp_path: pathlib.Path):
    return shutil.copytree(run, tmp_path / "copy")


def errors(output: str):
    return [line for line in output.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("stream", FAULTS)
def test_training_finishes_without_standard_output(
    warm: Warm, run: pathlib.Path, tmp_path: pathlib.Path, stream: str
):
    status, output = warm.run(*TINY, f"--workdir={tmp_path}", redirect={1: stream})
    assert errors(output) == [f"error: cannot write standard output ({FAULTS[stream]})"]
    assert status == 74 and "Traceback" not in output
    assert command_line.rows(tmp_path) == command_line.rows(run)
    results = [json.loads((path / "result.json").read_text()) for path in (tmp_path, run)]
    assert len({str(command_line.without_times(result)) for result in results}) == 1


def test_training_finishes_without_any_stream(
    warm: Warm, run: pathlib.Path, tmp_path: pathlib.Path
):
    assert warm.run(*TINY, f"--workdir={tmp_path}", redirect={0: "", 1: "", 2: ""}) == (74, "")
    assert command_line.rows(tmp_path) == command_line.rows(run)
    assert b"step" not in (tmp_path / ".lock").read_bytes()  # and nothing is printed into a file


@pytest.mark.parametrize("stream", FAULTS)
@pytest.mark.parametrize("mode", MODES)
def test_each_mode_finishes_its_work_and_reports_lost_output(
    warm: Warm, copy: pathlib.Path, mode: str, stream: str
):
    arguments, product = MODES[mode]
    if product:
        (copy / product).unlink(missing_ok=True)
    command = (f"--mode={mode}", f"--workdir={copy}", *arguments)
    status, output = warm.run(*command, redirect={1: stream})
    assert errors(output) == [f"error: cannot write standard output ({FAULTS[stream]})"]
    assert status == 74 and "Traceback" not in output
    assert product is None or (copy / product).stat().st_size


@pytest.mark.parametrize("stream", FAULTS)
@pytest.mark.parametrize("mode", MODES)
def test_standard_error_is_not_needed(warm: Warm, copy: pathlib.Path, mode: str, stream: str):
    command = (f"--mode={mode}", f"--workdir={copy}", *MODES[mode][0])
    status, output = warm.run(*command, redirect={2: stream})
    assert status == 0 and output
    assert warm.run("--nosuch", redirect={2: stream}) == (2, "")


def test_closed_standard_input_is_empty(warm: Warm, run: pathlib.Path):
    status, output = warm.run("--mode=predict", f"--workdir={run}", "-", redirect={0: CLOSED})
    assert (status, output) == (65, "error: -: empty\n")


# ---------------------------------------------------------------------------- streams alone
PROGRAM = """
import sys
from cifar_jax.runtime import streams
streams.prepare()
with open(sys.argv[1], "w") as file:
    assert file.fileno() > 2
    print("f\\xfcr \\u2603 \\udcff")
    print("caf\\xe9 \\u2603", file=sys.stderr)
    sys.stdin.read()
sys.exit(streams.close(0))
"""


def program(tmp_path: pathlib.Path, shell: str = "", environment: dict[str, str] | None = None):
    command = f'"$0" -c "$1" "$2" {shell}'
    return subprocess.run(
        ["sh", "-c", command, sys.executable, PROGRAM, str(tmp_path / "file")],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )


@pytest.mark.parametrize("shell", ["<&-", "2>&-", "<&- 2>&-", ">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_a_file_never_gets_the_descriptor_of_a_stream(tmp_path: pathlib.Path, shell: str):
    assert program(tmp_path, shell).returncode == (74 if ">&-" in shell.split() else 0)
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize(
    ("environment", "output", "error"),
    [
        ({"PYTHONIOENCODING": "ascii"}, rb"f\xfcr \u2603 \udcff", rb"caf\xe9 \u2603"),
        ({"PYTHONIOENCODING": "latin-1"}, b"f\xfcr \\u2603 \\udcff", b"caf\xe9 \\u2603"),
        (
            {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
            rb"f\xfcr \u2603 \udcff",
            rb"caf\xe9 \u2603",
        ),
        ({"PYTHONUTF8": "1"}, "für ☃ \\udcff".encode(), "café ☃".encode()),
    ],
)
def test_characters_that_the_encoding_lacks_are_escaped(
    tmp_path: pathlib.Path, environment: dict[str, str], output: bytes, error: bytes
):
    done = program(tmp_path, environment=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, output + b"\n", error + b"\n")
