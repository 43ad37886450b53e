"""scripts/tpu.sh against a fake cloud of directories (tests/fakes), not against a real TPU."""

import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import command_line
import pytest

ROOT = pathlib.Path(__file__).parent.parent
FAKES = ROOT / "tests" / "fakes"
WORKDIR = "--workdir=gs://bucket/run"
HOSTS = ("host0", "host1")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or not shutil.which("git"),
        reason="tpu_host.sh needs Linux, and both scripts need git",
    ),
]

CURL = """
cat <<'END'
mkdir -p ~/.local/bin
cp "$FAKE_CLOUD/bin/fake-uv" ~/.local/bin/uv
END
"""
UV = """
case "$1" in
    venv) mkdir -p .venv/bin && cp "$FAKE_CLOUD/bin/fake-python" .venv/bin/python ;;
    pip) if [ -e "$FAKE_CLOUD/no-packages" ]; then rm "$FAKE_CLOUD/no-packages"; exit 2; fi
         test "$*" = "pip install --quiet -r requirements-tpu.txt" ;;
esac
"""
PYTHON = f"""
if [ "$1" = -c ]; then exec {sys.executable} -c "$2" "$FAKE_CLOUD/${{3#gs://}}" "$4"; fi
exec {sys.executable} "$@"
"""


def git(directory: pathlib.Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments]
    done = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A repository with the scripts and the fake main.py."""
    directory = tmp_path_factory.mktemp("checkout")
    for name in ("scripts/tpu.sh", "scripts/tpu_host.sh", ".gitignore", "requirements-tpu.txt"):
        (directory / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, directory / name)
    shutil.copy(FAKES / "train.py", directory / "main.py")
    (directory / "configs").mkdir()
    (directory / "configs" / "final.py").touch()
    git(directory, "init", "--quiet")
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message=source")
    return directory


class Cloud:
    """The fake cloud: a test sets it up, and reads afterwards what happened."""

    def __init__(self, root: pathlib.Path, checkout: pathlib.Path):
        self.root, self.checkout = root, checkout
        (root / "bucket").mkdir()
        (root / "bin").mkdir()
        self.program("gcloud", f'exec {sys.executable} -S {FAKES / "gcloud.py"} "$@"')
        self.program("curl", CURL)
        self.program("fake-uv", UV)
        self.program("fake-python", PYTHON)
        self.inject(calls=[], queue=[], node="READY", lives=[], refusals=0, silent=0, broken=0)
        self.inject(repeats=0)
        self.endings("0")

    def program(self, name: str, body: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/bash\n{body.lstrip()}")
        path.chmod(0o755)

    def inject(self, **faults: Any) -> None:
        path = self.root / "state.json"
        path.write_text(json.dumps((self.state if path.exists() else {}) | faults))

    def endings(self, words: str) -> None:
        for host in HOSTS:
            (self.root / f"{host}.endings").write_text(words)

    @property
    def state(self) -> dict:
        return json.loads((self.root / "state.json").read_text())

    def calls(self, verb: str) -> list[list[str]]:
        return [call for call in self.state["calls"] if verb in call]

    @property
    def starts(self) -> list[list[str]]:
        path = self.root / "starts"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def followed(self) -> bool:
        """Whether the log of each host is being read."""
        processes = pathlib.Path("/proc").glob("[0-9]*/cmdline")
        with contextlib.suppress(OSError):  # a process ended meanwhile: try again
            commands = [path.read_bytes().split(b"\0") for path in processes]
            logs = [str(self.root / host / "cifar-jax/log").encode() for host in HOSTS]
            return all(any(c[0] == b"tail" and log in c for c in commands) for log in logs)
        return False

    def start(self, *arguments: str) -> subprocess.Popen:
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("TPU_")},
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "FAKE_CLOUD": str(self.root),
            "FAKE_GCLOUD": str(FAKES),
            "TPU_POLL": "0",
            "TPU_RETRIES": "1",
        }
        return subprocess.Popen(
            ["bash", "scripts/tpu.sh", *arguments],
            cwd=self.checkout,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Runs the script; returns exit status, standard output and standard error."""
        process = self.start(*arguments)
        try:
            output, errors = process.communicate(timeout=command_line.HANGS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, output, errors


@pytest.fixture
def cloud(tmp_path: pathlib.Path, checkout: pathlib.Path) -> Cloud:
    return Cloud(tmp_path, checkout)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + command_line.HANGS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_run_creates_installs_and_trains_on_every_host(cloud: "Cloud"):
    status, output, errors = cloud.run("run", WORKDIR, "--", "--config.note=it's a $HOME")
    assert status == 0, errors
    given = ["--config=configs/final.py", WORKDIR, "--config.note=it's a $HOME"]
    assert sorted(cloud.starts) == [["host0", *given], ["host1", *given]]
    assert "training on host0" in output and "training on host1" in output
    (created,) = cloud.calls("create")
    assert "--spot" in created and "--runtime-version=v2-alpha-tpuv6e" in created
    assert "scripts/tpu.sh delete" in errors


def test_the_tpu_runs_the_last_commit(cloud: "Cloud", checkout: pathlib.Path):
    cloud.run("run", WORKDIR)
    commit = git(checkout, "rev-parse", "HEAD")
    assert git(cloud.root / "host1" / "cifar-jax" / commit, "rev-parse", "HEAD") == commit
    (checkout / "new.py").touch()
    status, _, errors = cloud.run("run", WORKDIR)
    (checkout / "new.py").unlink()
    assert status == 2 and "commit your changes" in errors


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "--spot=no", "--internal-ips=yes", "--project=p"],
        ["run", WORKDIR, "--data=gs://bucket/cifar-10-binary.tar.gz", "--", "--config.note=a 'b'"],
        ["resume", WORKDIR],
        ["logs", "--worker=1"],
        ["delete"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_dry_run_calls_nothing_and_prints_what_a_real_run_calls(
    cloud: "Cloud", arguments: list[str]
):
    status, printed, _ = cloud.run("--dry-run", *arguments)
    assert status == 0 and not cloud.state["calls"]
    (cloud.root / "bucket" / "cifar-10-binary.tar.gz").touch()
    if arguments[0] in ("logs", "delete"):
        (cloud.root / "bucket" / "run").mkdir()
        cloud.run("run", WORKDIR)
        cloud.inject(calls=[])
    elif arguments[0] == "resume":
        (cloud.root / "bucket" / "run").mkdir()
        (cloud.root / "bucket" / "run" / "config.json").touch()
    assert cloud.run(*arguments)[0] == 0
    lines = [shlex.split(line) for line in printed.splitlines()]
    assert [line for line in lines if line[0] == "gcloud"] == cloud.state["calls"]


def test_the_data_archive_is_copied_to_every_host(cloud: "Cloud"):
    (cloud.root / "bucket" / "cifar-10-binary.tar.gz").write_bytes(b"images")
    assert cloud.run("run", WORKDIR, "--data=gs://bucket/cifar-10-binary.tar.gz")[0] == 0
    for host in HOSTS:
        copy = cloud.root / host / "cifar-jax" / "data" / "cifar-10-binary.tar.gz"
        assert copy.read_bytes() == b"images"
    assert "--config.data.archive=~/cifar-jax/data/cifar-10-binary.tar.gz" in cloud.starts[0]


def test_a_finished_run_is_not_restarted_and_needs_no_tpu(cloud: "Cloud"):
    cloud.run("run", WORKDIR)
    cloud.run("delete")
    cloud.inject(calls=[])
    for command in ("run", "resume"):
        status, _, errors = cloud.run(command, WORKDIR)
        assert status == 0 and "finished run" in errors
    assert len(cloud.starts) == 2 and not cloud.calls("create")


@pytest.mark.parametrize("seen_in", ["queue", "vm"])
def test_a_preempted_run_continues_on_a_new_tpu_however_often(cloud: "Cloud", seen_in: str):
    cloud.endings(f"{seen_in} {seen_in} {seen_in} 0")
    status, _, errors = cloud.run("run", WORKDIR)
    assert status == 0, errors
    assert len(cloud.calls("create")) == 4 and len(cloud.calls("delete")) == 3
    assert len(cloud.starts) == 8 and len({tuple(start) for start in cloud.starts}) == 2


def test_an_interrupted_run_continues_on_the_same_tpu(cloud: "Cloud"):
    cloud.endings("75 75 0")
    assert cloud.run("run", WORKDIR)[0] == 0
    assert len(cloud.calls("create")) == 1 and len(cloud.starts) == 6


def test_bad_input_stops_at_once(cloud: "Cloud"):
    cloud.endings("2")
    status, _, errors = cloud.run("run", WORKDIR)
    assert status == 2 and errors.splitlines()[-1].startswith("error: main.py refused")
    assert len(cloud.starts) == 2


def test_a_run_that_keeps_failing_is_given_up(cloud: "Cloud"):
    cloud.endings("1 1 1")
    status, _, errors = cloud.run("run", WORKDIR)
    assert status == 1 and "gave up after 2 failures" in errors.splitlines()[-1]
    assert len(cloud.starts) == 4


@pytest.mark.parametrize("fault", ["refusals", "silent", "broken"])
def test_temporary_faults_are_retried_and_permanent_ones_end_the_run(cloud: "Cloud", fault: str):
    cloud.inject(**{fault: 1})
    assert cloud.run("run", WORKDIR)[0] == 0
    cloud.run("delete")
    (cloud.root / "bucket" / "run" / "result.json").unlink()
    cloud.endings("0")
    cloud.inject(**{fault: 99})
    status, _, errors = cloud.run("run", WORKDIR)
    assert status == 1 and "gave up" in errors.splitlines()[-1]
    if fault == "refusals":
        assert "Quota limit" in errors


def test_a_failed_installation_is_retried(cloud: "Cloud"):
    (cloud.root / "no-packages").touch()
    assert cloud.run("run", WORKDIR)[0] == 0


def test_create_waits_in_the_queue_and_retries_without_capacity(cloud: "Cloud"):
    waits = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    cloud.inject(lives=[["WAITING_FOR_RESOURCES", "FAILED"], waits])
    status, _, errors = cloud.run("create")
    assert status == 0 and "no capacity" in errors
    assert len(cloud.calls("create")) == 2 and len(cloud.calls("delete")) == 1
    assert cloud.run("create")[0] == 0
    assert len(cloud.calls("create")) == 2


def test_a_command_repeated_by_gcloud_follows_the_run_it_started(cloud: "Cloud"):
    cloud.endings("waits")
    cloud.inject(repeats=1)
    process = cloud.start("run", WORKDIR)
    wait_until(lambda: (cloud.root / "repeats").exists() and cloud.followed())
    (cloud.root / "release").touch()
    output, errors = process.communicate(timeout=command_line.HANGS)
    assert process.returncode == 0, errors
    assert len(cloud.starts) == 2 and "training on host0" in output


def test_after_ctrl_c_the_run_continues_undisturbed_and_resume_follows_it(cloud: "Cloud"):
    cloud.endings("waits")
    process = cloud.start("run", WORKDIR, "--delete-when-done=yes")
    wait_until(lambda: cloud.followed() and len(cloud.starts) == 2)
    os.killpg(process.pid, signal.SIGINT)
    assert "use resume to follow" in process.communicate(timeout=command_line.HANGS)[1]
    assert process.returncode == 130 and not cloud.calls("delete")

    status, _, errors = cloud.run("run", "--workdir=gs://bucket/other")
    assert status == 2 and "busy" in errors

    process = cloud.start("resume", WORKDIR)
    wait_until(cloud.followed)
    (cloud.root / "release").touch()
    output, errors = process.communicate(timeout=command_line.HANGS)
    assert process.returncode == 0, errors
    assert len(cloud.starts) == 2 and "training on host1" in output


def test_resume_refuses_a_workdir_without_a_run(cloud: "Cloud"):
    status, _, errors = cloud.run("resume", WORKDIR)
    assert status == 2 and "no run to resume" in errors and not cloud.calls("create")


def test_delete_can_be_repeated(cloud: "Cloud"):
    cloud.run("create")
    for _ in range(2):
        assert cloud.run("delete")[0] == 0
    assert len(cloud.calls("delete")) == 1 and not cloud.state["queue"]


@pytest.mark.parametrize("endings, status", [("0", 0), ("2", 2), ("1 1", 1)])
def test_delete_when_done_deletes_the_tpu_however_the_run_ends(
    cloud: "Cloud", endings: str, status: int
):
    cloud.endings(endings)
    assert cloud.run("run", WORKDIR, "--delete-when-done=yes")[0] == status
    assert not cloud.state["queue"]


def test_logs_shows_the_output_of_one_host(cloud: "Cloud"):
    assert cloud.run("logs")[0] == 2
    cloud.run("run", WORKDIR)
    status, output, _ = cloud.run("logs", "--worker=1")
    assert status == 0 and output == "training on host1\n"


@pytest.mark.parametrize(
    "arguments, named",
    [
        ([], "no command"),
        (["run", "create"], "one command"),
        (["run"], "gs://BUCKET"),
        (["run", "--workdir=runs/final"], "gs://BUCKET"),
        (["run", WORKDIR, "--config=configs/fianl.py"], "no such file"),
        (["run", WORKDIR, "--data=cifar-10-binary.tar.gz"], "--data"),
        (["create", "--zones=us-east5-b"], "--zones"),
        (["create", "--spot=maybe"], "yes or no"),
        (["create", "--retries=many"], "whole number"),
        (["create", "--name=My_TPU"], "lower-case"),
        (["create", "--accelerator-type=v9-8"], "--runtime-version"),
        (["run", WORKDIR], "make the bucket"),
    ],
)
def test_a_mistake_gets_one_line_and_status_2(cloud: "Cloud", arguments: list[str], named: str):
    (cloud.root / "bucket").rmdir()
    status, output, errors = cloud.run(*arguments)
    (line,) = [line for line in errors.splitlines() if not line.startswith("ERROR: (gcloud)")]
    assert status == 2 and not output and line.startswith("error: ") and named in line
    assert not cloud.calls("create")


def test_help_lists_every_setting_with_its_variable(cloud: "Cloud"):
    status, output, _ = cloud.run("--help")
    assert status == 0
    for setting in ("workdir", "config", "data", "name", "project", "zone", "spot"):
        assert f"--{setting}=" in output and f"TPU_{setting.upper()}" in output


def test_the_hosts_use_the_uv_version_that_pinned_the_packages():
    (version,) = re.findall(r"uv==(\S+)", (ROOT / "Makefile").read_text())
    assert f"/uv/{version}/install.sh" in (ROOT / "scripts" / "tpu_host.sh").read_text()


def test_the_scripts_pass_shellcheck():
    if not (program := shutil.which("shellcheck")):
        pytest.skip("shellcheck is not installed")
    scripts = [str(path) for path in (ROOT / "scripts").glob("*.sh")]
    done = subprocess.run([program, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
