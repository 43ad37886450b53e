"""The program restarts itself once with tunables for malloc, if that helps."""

import errno
import json
import os
import pathlib
import subprocess
import sys
import threading
import zipfile

import command_line
import pytest

from cifar_jax.runtime import memory

linux = pytest.mark.skipif(not memory.applies(), reason="not a Linux CPU with glibc")


def test_tunables_set_by_the_user_are_kept():
    tunables = memory.tunables("glibc.malloc.hugetlb=0:glibc.rtld.nns=5").split(":")
    assert tunables[:2] == ["glibc.malloc.hugetlb=0", "glibc.rtld.nns=5"]
    assert "glibc.malloc.arena_max=1" in tunables
    assert len(tunables) == len({entry.partition("=")[0] for entry in tunables})
    assert memory.tunables(memory.tunables("")) == memory.tunables("")


@pytest.mark.parametrize(
    ("platforms", "libc", "expected"),
    [("cpu", "glibc", True), ("cuda", "glibc", False), ("cpu", "", False)],
)
def test_only_linux_cpus_with_glibc_are_tuned(
    monkeypatch: pytest.MonkeyPatch, platforms: str, libc: str, expected: bool
):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: (libc, ""))
    assert memory.applies() is expected


def test_malloc_is_not_tuned_if_an_accelerator_plugin_is_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("glibc", "2.36"))
    found = {"libtpu"}
    monkeypatch.setattr(memory.importlib.util, "find_spec", lambda name: name in found or None)
    assert not memory.applies()
    found.clear()
    assert memory.applies()


@pytest.mark.slow
@linux
def test_the_restart_keeps_arguments_and_process(tmp_path: pathlib.Path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from cifar_jax.runtime import memory\n"
        "memory.restart()\n"
        "print(os.getpid(), os.environ['GLIBC_TUNABLES'], sys.argv[1:])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(command_line.ROOT)}
    environment.pop("GLIBC_TUNABLES", None)
    process = subprocess.Popen(
        [sys.executable, "-u", str(program), "a b", "--c=1"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate(timeout=command_line.HANGS)
    assert output == f"{process.pid} {memory.tunables('')} ['a b', '--c=1']\n"


@pytest.mark.slow
@linux
@pytest.mark.parametrize(("flag", "tuned"), [("--tune_memory", True), ("--notune_memory", False)])
def test_a_run_records_its_memory_settings(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, flag: str, tuned: bool
):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    command = (command_line.TINY, f"--workdir={tmp_path}", "--config.epochs=1", flag)
    status, output = command_line.run(*command)
    assert status == 0, output
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["glibc_tunables"] == (memory.tunables("") if tuned else None)
    assert environment["transparent_huge_pages"] in ("always", "madvise", "never", None)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "restarts"), [("evaluate", True), ("predict", False)])
def test_predicting_does_not_restart(mode: str, restarts: bool):
    program = (
        "import runpy; from cifar_jax.runtime import memory;"
        " memory.restart = lambda: print('again'); runpy.run_path('main.py', run_name='__main__')"
    )
    picture = ["cat.png"] if mode == "predict" else []
    done = subprocess.run(
        [sys.executable, "-c", program, f"--mode={mode}", "--workdir=nowhere", *picture],
        cwd=command_line.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr
    assert done.stdout == ("again\n" if restarts else "")


RESTARTS = """
import os, pathlib, sys
sys.path.insert(0, {root!r})
from cifar_jax.runtime import memory
memory.applies = lambda: True
print("start", flush=True)
if {deaf}:
    os.environ.pop("GLIBC_TUNABLES", None)  # as glibc does in a Python with file capabilities
memory.restart()
print("run", sys.argv[1:], "GLIBC_TUNABLES" in os.environ, "CIFAR_JAX_RESTARTED" in os.environ)
"""


def started(directory: pathlib.Path, form: str, deaf: bool = False) -> list[str]:
    """The output lines of a program started in the given form with arguments `a b` and `--c`."""
    text = RESTARTS.format(root=str(command_line.ROOT), deaf=deaf)
    program = directory / "program.py"
    program.write_text(text)
    (directory / "caller.py").write_text(
        "import runpy, sys; sys.argv = ['program.py', *sys.argv[1:]];"
        " runpy.run_path('program.py', run_name='__main__')"
    )
    with zipfile.ZipFile(directory / "program.zip", "w") as archive:
        archive.writestr("__main__.py", text)
    os.mkfifo(directory / "pipe")
    standard_input = text if form in ("-", "none", "/dev/stdin", "pipe") else "left alone"
    if form == "pipe":
        threading.Thread(target=(directory / "pipe").write_text, args=(text,)).start()
    words = {"-m": ["-m", "program"], "-c": ["-c", text], "none": []}.get(form, [form])
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    # As inherited from a restarted parent: this is not the mark of the new process.
    environment["CIFAR_JAX_RESTARTED"] = str(os.getpid())
    done = subprocess.run(
        [sys.executable, "-u", *words, *(["a b", "--c"] if words else [])],
        cwd=directory,
        env=environment,
        input=standard_input,
        capture_output=True,
        text=True,
        timeout=command_line.HANGS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@linux
@pytest.mark.parametrize("form", ["program.py", "-m", "program.zip"])
def test_a_program_named_on_the_command_line_restarts_once(tmp_path: pathlib.Path, form: str):
    assert started(tmp_path, form) == ["start", "start", "run ['a b', '--c'] True False"]


@linux
def test_a_python_whose_glibc_ignores_tunables_restarts_only_once(tmp_path: pathlib.Path):
    lines = started(tmp_path, "program.py", deaf=True)
    assert lines == ["start", "start", "run ['a b', '--c'] False False"]


@pytest.mark.slow
@linux
@pytest.mark.parametrize("form", ["-", "none", "/dev/stdin", "pipe", "-c", "caller.py"])
def test_a_program_that_cannot_be_repeated_does_not_restart(tmp_path: pathlib.Path, form: str):
    arguments = [] if form == "none" else ["a b", "--c"]
    assert started(tmp_path, form) == ["start", f"run {arguments} False False"]


@linux
def test_a_failed_restart_only_gives_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(*_):
        raise OSError(errno.E2BIG, "Argument list too long")

    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(memory, "can_restart", lambda: True)
    monkeypatch.setattr(memory.os, "execve", refuse)
    memory.restart()
    assert "cannot restart with huge pages" in caplog.text
