"""A search trains its trials as ordinary runs, and finds what its space holds."""

import copy
import itertools
import json
import logging
import pathlib
import shutil
import statistics
import types
from typing import Any
from unittest import mock

import command_line
import optuna
import pytest
import searching
from etils import epath
from ml_collections import ConfigDict
from searching import SEARCH, TRIALS, by_filters, fabricated, load, search, table

from cifar_jax.config.schema import Config
from cifar_jax.errors import BAD_INPUT, UserError
from cifar_jax.search import results, study, timing, trial
from cifar_jax.search.evolution import RegularizedEvolution
from configs import base

config = pytest.fixture(searching.config)
untrained = pytest.fixture(searching.untrained)


@pytest.mark.slow
def test_a_search_leaves_its_trials_and_what_it_found(searched: pathlib.Path):
    rows = table(searched)
    assert len(rows) == TRIALS and {row["state"] for row in rows} == {"complete"}
    front = json.loads((searched / results.PARETO).read_text())
    assert front[-1]["accuracy"] == max(float(row["accuracy"]) for row in rows)
    named = {f"trial_{row['trial']}.py" for row in front}
    assert {path.name for path in (searched / results.FRONT).iterdir()} == named
    (worker,) = json.loads((searched / results.WORKERS).read_text())
    assert SEARCH in worker["command"] and {"jax", "git_commit", "cpu_count"} <= set(worker)
    page = (searched / "search.html").read_text()
    assert page.count("<svg") >= 4 and "<script" not in page and "http" not in page
    assert "mathdefault" not in page  # a label that only matplotlib can draw
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


# ---------------------------------------------------------------------------- trials made up
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


@pytest.mark.slow
@pytest.mark.usefixtures("untrained")
def test_two_objectives_give_a_front(config: ConfigDict, tmp_path: pathlib.Path):
    config.search.objectives, config.search.trials = ("accuracy", "multiply_adds"), 20
    found = search(config, tmp_path)
    front = results.front(found.trials, "multiply_adds")
    assert 1 < len(front) <= 20
    # Optuna names equal trials all; here the first stands for them.
    assert {tuple(t.values) for t in front} == {tuple(t.values) for t in found.best_trials}


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.usefixtures("untrained")
def test_a_limit_that_nothing_meets_is_said_with_the_least_value(
    config: ConfigDict, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(study, "TRIES", 20)
    config.search.max_multiply_adds = 10
    with pytest.raises(UserError, match=r"none of 20 configs .* least multiply_adds was \d+"):
        search(config, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("untrained")
def test_the_time_of_a_step_is_measured_before_training(
    config: ConfigDict, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "cifar_jax")
    config.search.objectives, config.search.trials = ("accuracy", "step_ms"), 2
    config.search.space = (config.search.space[0],)
    found = search(config, tmp_path / "free")
    assert all(t.values[1] == t.user_attrs["step_ms"] > 0 for t in found.trials)
    assert not caplog.records  # no line about the data for each trial
    config.search.space = (base.choose("model.blocks", low=1, high=1),)
    for figure in ("step_ms", "minutes"):
        least = min(t.user_attrs[figure] for t in found.trials)
        limited = copy.deepcopy(config)
        limited.search[f"max_{figure}"] = least / 1000
        with mock.patch.object(study, "TRIES", 2):
            with pytest.raises(UserError, match=rf"the least {figure} was [\d.]+"):
                search(limited, tmp_path / figure)
        assert not (tmp_path / figure / trial.TRIALS).exists()


@pytest.mark.slow
@pytest.mark.usefixtures("untrained")
def test_a_limit_on_minutes_counts_the_steps_of_all_epochs(
    config: ConfigDict, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    """With equal steps, only trainings of few epochs fit."""
    clock = types.SimpleNamespace(monotonic=itertools.count().__next__)  # a step takes a second
    monkeypatch.setattr(timing, "time", clock)
    per_epoch = 9  # 1,222 of the 1,437 digits to train on, 128 in a batch
    config.search.max_minutes = 2.5 * per_epoch / 60
    config.search.space = (base.choose("epochs", low=1, high=4),)
    found = search(config, tmp_path)
    for t in found.trials:
        assert t.user_attrs["minutes"] == pytest.approx(t.params["epochs"] * per_epoch / 60)
        assert results.is_infeasible(t) == (t.params["epochs"] > 2)


@pytest.mark.usefixtures("untrained")
def test_a_config_that_was_trained_is_not_trained_again(config: ConfigDict, tmp_path: pathlib.Path):
    config.search.space = (config.search.space[0],)  # one block or two
    config.search.trials = 6
    found = search(config, tmp_path)
    chosen = {tuple(t.params.values()) for t in found.trials}  # at most 2, so some are repeated
    assert len(list((tmp_path / trial.TRIALS).iterdir())) == len(chosen)
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


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        ({"search.objectives": ("multiply_adds",)}, "must be accuracy, or accuracy and one cost"),
        (
            {"search.objectives": ("accuracy", "multiply_adds"), "search.pruner": "halving"},
            "one objective only",
        ),
        (
            {"search.objectives": ("accuracy", "step_ms"), "search.sampler": "evolution"},
            "one objective only",
        ),
        ({"search.space": ()}, "config.search.space is empty"),
        ({"seeds": 2}, "config.seeds is not for a search"),
        ({"wandb": "offline"}, "config.wandb logs one run, and a search trains many"),
    ],
)
def test_keys_that_contradict_a_search_are_refused(
    config: ConfigDict, tmp_path: pathlib.Path, overrides: dict[str, Any], fault: str
):
    config.update_from_flattened_dict(overrides)
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
