"""A search trains its trials as ordinary runs, on one worker or several, and loses none."""

import contextlib
import csv
import json
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import command_line
import optuna
import pytest
import tiny
from etils import epath
from ml_collections import ConfigDict

from cifar_jax import places
from cifar_jax.config.schema import Config
from cifar_jax.errors import BAD_INPUT, TRY_AGAIN, UserError
from cifar_jax.runtime import workdir_schema
from cifar_jax.search import results, storage, study, trial
from cifar_jax.search.evolution import RegularizedEvolution

assert isinstance(workdir_schema.ROW.form, dict)
ROW_KEYS = list(workdir_schema.ROW.form)
SEARCH = "--config=tests/configs/search.py"
TRIALS = 4


def load(workdir: pathlib.Path, url: str = "") -> optuna.Study:
    return optuna.load_study(
        study_name=workdir.name, storage=url or f"sqlite:///{workdir / storage.DATABASE}"
    )


def table(workdir: pathlib.Path) -> list[dict[str, str]]:
    with open(workdir / results.TABLE, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_search_leaves_its_trials_and_what_it_found(searched: pathlib.Path):
    rows = table(searched)
    assert len(rows) == TRIALS and {row["state"] for row in rows} == {"complete"}
    front = json.loads((searched / results.PARETO).read_text())
    assert front[-1]["accuracy"] == max(float(row["accuracy"]) for row in rows)
    page = (searched / "search.html").read_text()
    assert page.count("<svg") >= 4 and "<script" not in page and "http" not in page
    for row in rows:
        home = searched / trial.TRIALS / row["workdir"]
        assert len(command_line.rows(home)) == 3
        # The test set was not read.
        assert not {"result.json", "predictions.npz"} & {path.name for path in home.iterdir()}
    best = load(searched).best_trial
    found = (searched / results.BEST).read_text()
    assert f"learning_rate = {best.params['optimizer.learning_rate']}" in found


@pytest.mark.slow
def test_the_best_config_is_trained_and_tested_as_it_is(
    searched: pathlib.Path, tmp_path: pathlib.Path
):
    best = max(table(searched), key=lambda row: float(row["accuracy"]))
    # In the trial's own workdir, only the test is left to do.
    home = shutil.copytree(searched / trial.TRIALS / best["workdir"], tmp_path / "run")
    status, output = command_line.run(f"--config={searched / results.BEST}", f"--workdir={home}")
    assert status == 0, output
    result = json.loads((home / "result.json").read_text())
    assert result["validation_accuracy"] == float(best["accuracy"])
    starts = json.loads((home / "environment.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 27]


@pytest.mark.slow
def test_a_finished_search_trains_nothing_more(searched: pathlib.Path, tmp_path: pathlib.Path):
    workdir = shutil.copytree(searched, tmp_path / searched.name)
    before = [path.stat().st_mtime_ns for path in workdir.rglob("metrics.jsonl")]
    status, output = command_line.run("--mode=search", SEARCH, f"--workdir={workdir}")
    assert status == 0 and "best: trial" in output and "of 4, about" not in output
    assert [path.stat().st_mtime_ns for path in workdir.rglob("metrics.jsonl")] == before


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
        "--mode=search", SEARCH, f"--workdir={workdir}", "--config.epochs=15",
        "--config.search.trials=4", f"--config.search.storage={url}",
    )  # fmt: skip
    victim, *others = [command_line.start(*arguments) for _ in range(3)]
    killed = None
    deadline = time.monotonic() + 120
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
    ends = [(worker.communicate(timeout=240)[0], worker.returncode) for worker in others]
    assert [status for _, status in ends] == [0, 0], ends
    trials = load(workdir, url).get_trials()
    assert sum(map(results.is_trained, trials)) >= 4
    assert [t.state.name for t in trials].count("FAIL") == 1
    assert not any(t.state.name in ("RUNNING", "WAITING") for t in trials)
    # None was trained twice: every epoch has one row, and only the killed run began again.
    homes = list((workdir / trial.TRIALS).iterdir())
    assert len(homes) == len({t.user_attrs["workdir"] for t in trials if results.is_trained(t)})
    for home in homes:
        assert [row["epoch"] for row in command_line.rows(home)] == list(range(1, 16))
        starts = json.loads((home / "environment.json").read_text())["starts"]
        steps = [start["step"] for start in starts]
        assert steps[0] == 0 and len(steps) == (2 if home == killed else 1), (home, steps)
        assert steps[-1] > 0 or home != killed
    told = "".join(path.read_text() for path in workdir.rglob("*.json*"))
    assert "se%20cret" not in told + "".join(text for text, _ in ends)


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
    arguments = ("--mode=search", SEARCH, f"--workdir={workdir}", "--config.epochs=40")
    worker = command_line.start(*arguments)
    while not any(
        path.read_text().count("\n") >= 3
        for path in workdir.glob(f"{trial.TRIALS}/*/metrics.jsonl")
    ):
        assert worker.poll() is None, worker.communicate()
        time.sleep(0.02)
    worker.send_signal(signal.SIGINT)
    output, _ = worker.communicate(timeout=60)
    assert worker.returncode == TRY_AGAIN, output
    assert "run again" in output and "Traceback" not in output
    (home,) = (workdir / trial.TRIALS).iterdir()
    status, output = command_line.run(*arguments)
    assert status == 0, output
    starts = json.loads((home / "environment.json").read_text())["starts"]
    assert len(starts) == 2 and starts[1]["step"] > 0
    assert sum(map(results.is_trained, load(workdir).get_trials())) == TRIALS


# ---------------------------------------------------------------------------- one worker's logic
def fabricated(best: Callable[[Config], float]) -> Callable[..., dict]:
    """Stands in for a training run: its accuracy rises to what `best` says of the config."""

    def run(config: Config, home: epath.Path, on_epoch: Callable[[dict], None], tests: bool):
        assert not tests
        home.mkdir(parents=True, exist_ok=True)
        for epoch in range(1, config.epochs + 1):
            accuracy = best(config) * epoch / config.epochs
            row = {
                **dict.fromkeys(ROW_KEYS, 0.5),
                "epoch": epoch,
                "step": 9 * epoch,
                "validation_accuracy": accuracy,
            }
            with (home / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            on_epoch(row)
        return {}

    return run


def by_filters(config: Config) -> float:
    return min(1.0, config.model.blocks[0].filters / 64)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture
def config() -> ConfigDict:
    from tests.configs import search

    return search.get_config()


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are not trained but made up."""
    monkeypatch.setattr(trial.run, "run", fabricated(by_filters))


def search(config: ConfigDict, workdir: pathlib.Path) -> optuna.Study:
    study.run(tiny.typed(config), epath.Path(workdir))
    return load(workdir)


@pytest.mark.slow
@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2", "evolution"])
def test_every_sampler_finds_wide_networks(
    config: ConfigDict, tmp_path: pathlib.Path, sampler: str
):
    config.search.sampler, config.search.trials = sampler, 25
    found = search(config, tmp_path)
    assert found.best_value > 0.5 and len(found.trials) == 25


@pytest.mark.slow
@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("pruner", ["halving", "hyperband"])
def test_a_pruner_stops_trials_early(config: ConfigDict, tmp_path: pathlib.Path, pruner: str):
    config.search.pruner, config.search.trials, config.epochs = pruner, 25, 9
    found = search(config, tmp_path)
    stopped = [t for t in found.trials if t.state == optuna.trial.TrialState.PRUNED]
    assert stopped and all(t.user_attrs["epochs"] < 9 for t in stopped)
    assert results.best(found.trials).value == found.best_value  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.usefixtures("untrained")
def test_two_objectives_give_a_front(config: ConfigDict, tmp_path: pathlib.Path):
    config.search.objectives, config.search.trials = ("accuracy", "multiply_adds"), 20
    found = search(config, tmp_path)
    front = results.front(found.trials, "multiply_adds")
    assert 1 < len(front) <= 20
    # Optuna names equal trials all; here the first stands for them.
    assert {tuple(t.values) for t in front} == {tuple(t.values) for t in found.best_trials}


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("objectives", [("accuracy",), ("accuracy", "multiply_adds")])
def test_a_config_beyond_a_limit_is_not_trained(
    config: ConfigDict, tmp_path: pathlib.Path, objectives: tuple[str, ...]
):
    config.search.objectives, config.search.trials = objectives, 8
    config.search.max_parameters = 8_000
    found = search(config, tmp_path)
    refused = [t for t in found.trials if results.is_infeasible(t)]
    trained = [t for t in found.trials if results.is_trained(t)]
    assert refused and len(trained) == 8
    assert all(t.user_attrs["parameters"] <= 8_000 for t in trained)
    assert len(list((tmp_path / trial.TRIALS).iterdir())) <= 8
    assert {row["state"] for row in table(tmp_path)} >= {"infeasible", "complete"}


@pytest.mark.usefixtures("untrained")
def test_networks_that_do_not_fit_the_images_are_infeasible(
    config: ConfigDict, tmp_path: pathlib.Path
):
    config.search.space = (config.search.space[0],)
    config.search.space[0].high = 30  # three pools of 4 leave no pixel of 32x32
    found = search(config, tmp_path)
    reasons = {t.user_attrs.get("reason", "") for t in found.trials if results.is_infeasible(t)}
    assert reasons and all("leaves no pixel" in reason for reason in reasons)
    assert sum(map(results.is_trained, found.trials)) == TRIALS


@pytest.mark.usefixtures("untrained")
def test_a_limit_that_nothing_meets_is_said_with_the_least_value(
    config: ConfigDict, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(study, "TRIES", 20)
    config.search.max_multiply_adds = 10
    with pytest.raises(UserError, match=r"none of 20 configs .* least multiply_adds was \d+"):
        search(config, tmp_path)


@pytest.mark.usefixtures("untrained")
def test_a_config_that_was_trained_is_not_trained_again(config: ConfigDict, tmp_path: pathlib.Path):
    config.search.space = (config.search.space[0],)  # one block or two
    config.search.trials = 6
    found = search(config, tmp_path)
    assert len(list((tmp_path / trial.TRIALS).iterdir())) == 2
    assert sum(map(results.is_trained, found.trials)) == 6
    for home in (tmp_path / trial.TRIALS).iterdir():
        assert len(command_line.rows(home)) == 3


def test_a_failed_trial_does_not_end_the_search_but_five_in_a_row_do(
    config: ConfigDict, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    made, failing = fabricated(by_filters), {2}

    def run(config: Config, home: epath.Path, **rest: Any) -> dict:
        calls.append(home)
        if len(calls) in failing:
            raise UserError("cannot write: no space left")
        return made(config, home, **rest)

    calls: list[epath.Path] = []
    monkeypatch.setattr(trial.run, "run", run)
    found = search(config, tmp_path / "one")
    assert [t.state.name for t in found.trials].count("FAIL") == 1
    assert sum(map(results.is_trained, found.trials)) == TRIALS
    assert "failed: cannot write: no space left" in capsys.readouterr().err
    failing = set(range(100))
    with pytest.raises(UserError, match="5 trials failed, one after the other: cannot write"):
        search(config, tmp_path / "all")


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


@pytest.mark.usefixtures("untrained")
def test_a_locked_sqlite_file_is_waited_for(
    config: ConfigDict, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    search(config, tmp_path)
    config.search.trials += 1
    config.search.patience = 1.0
    with sqlite3.connect(tmp_path / storage.DATABASE) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="cannot be reached .*locked.* nothing is lost"):
            search(config, tmp_path)
        other.rollback()
    assert len(search(config, tmp_path).trials) == TRIALS + 1


def test_a_storage_that_goes_away_is_one_line_and_no_trial_is_lost(
    config: ConfigDict, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    made, other = fabricated(by_filters), sqlite3.connect(tmp_path / storage.DATABASE)

    def run(config: Config, home: epath.Path, **rest: Any) -> dict:
        calls.append(home)
        if len(calls) == 2:
            other.execute("BEGIN EXCLUSIVE")
        return made(config, home, **rest)

    calls: list[epath.Path] = []
    monkeypatch.setattr(trial.run, "run", run)
    config.search.patience = 1.0
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


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        ({"objectives": ("multiply_adds",)}, "must be accuracy, or accuracy and one cost"),
        ({"objectives": ("accuracy", "multiply_adds"), "pruner": "halving"}, "one objective only"),
        ({"objectives": ("accuracy", "step_ms"), "sampler": "evolution"}, "one objective only"),
        ({"space": ()}, "config.search.space is empty"),
    ],
)
def test_keys_that_contradict_a_search_are_refused(
    config: ConfigDict, tmp_path: pathlib.Path, overrides: dict[str, Any], fault: str
):
    config.search.update(overrides)
    with pytest.raises(UserError, match=fault):
        search(config, tmp_path)


def test_a_search_is_no_training_run(tmp_path: pathlib.Path):
    status, output = command_line.run(SEARCH, f"--workdir={tmp_path / 'run'}")
    assert status == BAD_INPUT and "config.search belongs to --mode=search" in output


# ---------------------------------------------------------------------------- against the truth
@pytest.mark.slow
def test_the_samplers_beat_random_search_on_nas_bench_macro():
    """6,561 networks, all of them trained by Su et al. 2021; 50 trials, 20 seeds."""
    path = command_line.ROOT.parent / "shared" / "nas" / "nas-bench-macro_cifar10.json"
    if not path.exists():
        pytest.skip("NAS-Bench-Macro is not here")
    accuracy = {code: entry["mean_acc"] for code, entry in json.loads(path.read_text()).items()}
    best: dict[str, list[float]] = {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name, sampler in (
        ("random", optuna.samplers.RandomSampler),
        ("tpe", optuna.samplers.TPESampler),
        ("evolution", RegularizedEvolution),
    ):
        for seed in range(20):
            found = optuna.create_study(direction="maximize", sampler=sampler(seed=seed))
            found.optimize(
                lambda t: accuracy["".join(t.suggest_categorical(str(i), "012") for i in range(8))],
                n_trials=50,
            )
            best.setdefault(name, []).append(found.best_value)
    means = {name: statistics.mean(values) for name, values in best.items()}
    print({name: (means[name], statistics.stdev(values)) for name, values in best.items()})
    assert min(means["tpe"], means["evolution"]) > means["random"] + 0.1
