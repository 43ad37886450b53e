"""Workers share the study of a search, and lose no trial, whatever happens to them or to it."""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import command_line
import optuna
import pytest
import searching
import sqlalchemy
from etils import epath
from ml_collections import ConfigDict
from optuna.storages._rdb.storage import _VersionManager
from searching import SEARCH, TRIALS, by_filters, fabricated, load, search

from cifar_jax import places
from cifar_jax.config.schema import Config, Search
from cifar_jax.errors import TRY_AGAIN, UserError
from cifar_jax.search import results, storage, trial
from configs import search_speedrun

config = pytest.fixture(searching.config)
untrained = pytest.fixture(searching.untrained)


# ---------------------------------------------------------------------------- several workers
@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The URL of a new PostgreSQL server on this machine."""
    homes = [os.environ["PATH"], *map(str, pathlib.Path("/usr/lib/postgresql").glob("*/bin"))]
    programs = [shutil.which(name, path=":".join(homes)) for name in ("initdb", "postgres")]
    if None in programs:
        pytest.skip("PostgreSQL is not installed")
    initdb, server = map(str, programs)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    # The server refuses to run as root, and pytest's own directories are closed to others.
    user = "nobody" if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory() as home:
        data = pathlib.Path(home, "data")
        data.mkdir()
        os.chmod(home, 0o755)
        if user:
            shutil.chown(data, user)
        made = subprocess.run(
            [initdb, "-D", data, "-U", "worker", "--auth=trust", "-E", "UTF8"],
            user=user, capture_output=True, text=True, cwd=home,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        with subprocess.Popen(
            [server, "-D", data, "-p", str(port), "-k", "", "-h", "localhost"],
            user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=home,
        ) as process:  # fmt: skip
            for _ in range(200):
                with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
                    break
                time.sleep(0.1)
            yield f"postgresql+psycopg2://worker:se%20cret@localhost:{port}/postgres"
            process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else request.getfixturevalue("postgresql")


@pytest.mark.slow
def test_of_three_workers_one_is_killed_and_no_trial_is_lost(tmp_path: pathlib.Path, url: str):
    workdir = tmp_path / "three"
    # Long trials: the killed one has saved some epochs.
    arguments = (
        "--mode=search", SEARCH, f"--workdir={workdir}", "--config.epochs=10",
        "--config.search.trials=4", f"--config.search.storage={url}",
    )  # fmt: skip
    victim, *others = [command_line.start(*arguments) for _ in range(3)]
    killed = None
    deadline = time.monotonic() + command_line.HANGS
    while killed is None and time.monotonic() < deadline:
        assert victim.poll() is None, victim.communicate()
        for path in workdir.glob(f"{trial.TRIALS}/*/environment.json"):
            held = _holder(path.parent / ".lock")
            rows = path.parent / "metrics.jsonl"
            if held == victim.pid and rows.exists() and rows.read_text().count("\n") >= 2:
                killed = path.parent
        time.sleep(0.02)
    assert killed is not None
    victim.kill()
    victim.communicate()
    ends = [command_line.finish(worker) for worker in others]
    assert [status for status, _ in ends] == [0, 0], ends
    trials = load(workdir, url).get_trials()
    assert sum(map(results.is_trained, trials)) >= 4
    assert [t.state.name for t in trials].count("FAIL") == 1
    assert not any(t.state.name in ("RUNNING", "WAITING") for t in trials)
    # None was trained twice: every epoch has one row, and only the killed run began again.
    homes = list((workdir / trial.TRIALS).iterdir())
    assert len(homes) == len({t.user_attrs["workdir"] for t in trials if results.is_trained(t)})
    for home in homes:
        assert [row["epoch"] for row in command_line.rows(home)] == list(range(1, 11))
        starts = json.loads((home / "environment.json").read_text())["starts"]
        steps = [start["step"] for start in starts]
        assert steps[0] == 0 and len(steps) == (2 if home == killed else 1), (home, steps)
        assert steps[-1] > 0 or home != killed
    told = "".join(path.read_text() for path in workdir.rglob("*.json*"))
    assert "se%20cret" not in told + "".join(text for _, text in ends)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    "race",
    [
        (sqlalchemy.MetaData, "create_all"),
        (_VersionManager, "_init_version_info_model"),
        (_VersionManager, "_set_alembic_revision"),
        (optuna.storages.RDBStorage, "create_new_study"),
    ],
    ids=lambda race: race[1],
)
def test_workers_that_start_together_share_one_study(
    tmp_path: pathlib.Path, url: str, race: tuple[type, str]
):
    """All come to the same point of making the database, and only then one of them goes on."""
    workers = 3
    begun = dataclasses.replace(Search(), storage=url, name=race[1])
    together, through = threading.Barrier(workers), threading.local()
    make = getattr(*race)

    def wait(*arguments: Any, **options: Any) -> Any:
        if not hasattr(through, "first"):
            through.first = True
            together.wait(command_line.HANGS)
        return make(*arguments, **options)

    def join(_: int) -> str:
        with storage.open_study(begun, epath.Path(tmp_path / "run"), {}) as found:
            return found.study_name

    with (
        mock.patch.object(*race, wait),
        mock.patch.object(storage, "_BETWEEN", 0.01),
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
    ):
        assert list(pool.map(join, range(workers))) == [race[1]] * workers


def _holder(lock: pathlib.Path) -> int | None:
    """The process that holds the lock of a workdir, from what the kernel knows."""
    if not lock.exists():
        return None
    inode = lock.stat().st_ino
    for line in pathlib.Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            return int(fields[4])
    return None


@pytest.mark.slow
def test_ctrl_c_keeps_everything_and_the_same_command_goes_on(tmp_path: pathlib.Path):
    workdir = tmp_path / "stopped"
    arguments = (
        "--mode=search", SEARCH, f"--workdir={workdir}", "--config.epochs=20",
        "--config.search.trials=2",
    )  # fmt: skip
    worker = command_line.start(*arguments)
    while not any(
        path.read_text().count("\n") >= 3
        for path in workdir.glob(f"{trial.TRIALS}/*/metrics.jsonl")
    ):
        assert worker.poll() is None, worker.communicate()
        time.sleep(0.02)
    worker.send_signal(signal.SIGINT)
    status, output = command_line.finish(worker)
    assert status == TRY_AGAIN, output
    assert "run again" in output and "Traceback" not in output
    (home,) = (workdir / trial.TRIALS).iterdir()
    status, output = command_line.run(*arguments)
    assert status == 0, output
    starts = json.loads((home / "environment.json").read_text())["starts"]
    assert len(starts) == 2 and starts[1]["step"] > 0
    assert sum(map(results.is_trained, load(workdir).get_trials())) == 2


# ---------------------------------------------------------------------------- storage
@pytest.mark.usefixtures("untrained")
def test_a_study_of_another_space_is_refused_by_key(config: ConfigDict, tmp_path: pathlib.Path):
    search(config, tmp_path)
    config.epochs = 5
    config.search.space[2].high = 0.2
    with pytest.raises(UserError, match="searches another space") as caught:
        search(config, tmp_path)
    assert "config.epochs: 3 -> 5" in str(caught.value)
    assert "the range over optimizer.learning_rate" in str(caught.value)
    assert "filters" not in str(caught.value)
    with pytest.raises(UserError, match=r"; and \d+ more$"):  # of many, a few are named
        search(search_speedrun.get_config(), tmp_path)


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("nosql://host/x", "cannot be used"),
        ("nonsense", "cannot be used"),
        ("mysql+nodriver://me:hidden@host/x", "cannot be used"),
        ("postgresql+psycopg2://me:hidden@localhost:1/x", "cannot be reached"),
        ("sqlite:////no/such/directory/x.db", "cannot be reached"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_line(
    config: ConfigDict, tmp_path: pathlib.Path, address: str, word: str,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    config.search.storage, config.search.patience = address, 0.0
    with pytest.raises(UserError, match=word) as caught:
        search(config, tmp_path)
    said = str(caught.value) + capsys.readouterr().err
    assert "hidden" not in said and "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.usefixtures("untrained")
def test_a_locked_sqlite_file_is_waited_for(
    config: ConfigDict, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    search(config, tmp_path)
    config.search.trials += 1
    config.search.patience = 1.0
    with contextlib.closing(sqlite3.connect(tmp_path / storage.DATABASE)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="cannot be reached .*locked.* nothing is lost"):
            search(config, tmp_path)
        other.rollback()
    assert len(search(config, tmp_path).trials) == TRIALS + 1


@pytest.mark.slow
def test_a_storage_that_goes_away_is_one_line_and_no_trial_is_lost(
    config: ConfigDict, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    made = fabricated(by_filters)

    def run(config: Config, home: epath.Path, **rest: Any) -> dict:
        calls.append(home)
        if len(calls) == 2:
            other.execute("BEGIN EXCLUSIVE")
        return made(config, home, **rest)

    calls: list[epath.Path] = []
    monkeypatch.setattr(trial.run, "run", run)
    config.search.patience = 1.0
    with contextlib.closing(sqlite3.connect(tmp_path / storage.DATABASE)) as other:
        with pytest.raises(UserError, match="cannot be reached .*locked.* nothing is lost"):
            search(config, tmp_path)
        other.rollback()
    monkeypatch.setattr(trial.run, "run", made)
    config.search.patience = 30.0
    found = search(config, tmp_path)
    assert sum(map(results.is_trained, found.trials)) == TRIALS
    lost = found.trials[1]
    assert calls[1].name in {t.user_attrs.get("workdir") for t in found.trials}
    assert any(t.params == lost.params for t in found.trials[2:])


def test_passwords_are_taken_out_of_urls():
    for text, expected in {
        "--config.search.storage=postgresql+psycopg2://me:a:b%40@h/x": "--config.search.storage=postgresql+psycopg2://me:***@h/x",
        "mysql://:pw@h and redis://u:p@g": "mysql://:***@h and redis://u:***@g",
        "gs://bucket/a:b runs/a@b": "gs://bucket/a:b runs/a@b",
        "http://host:80/a": "http://host:80/a",
    }.items():  # fmt: skip
        assert places.without_password(text) == expected
