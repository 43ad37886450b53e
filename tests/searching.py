"""Searches whose trials are not trained but made up, and what they leave."""

import csv
import json
import pathlib
from collections.abc import Callable

import optuna
import pytest
import tiny
from etils import epath
from ml_collections import ConfigDict

from cifar_jax.config.schema import Config
from cifar_jax.runtime import workdir_schema
from cifar_jax.search import results, storage, study, trial

assert isinstance(workdir_schema.ROW.form, dict)
ROW_KEYS = list(workdir_schema.ROW.form)
SEARCH = "--config=tests/configs/search.py"
TRIALS = 4


def load(workdir: pathlib.Path, url: str = "") -> optuna.Study:
    """A copy of the study of a search, in memory."""
    stored = optuna.storages.RDBStorage(url or f"sqlite:///{workdir / storage.DATABASE}")
    memory = optuna.storages.InMemoryStorage()
    optuna.copy_study(from_study_name=workdir.name, from_storage=stored, to_storage=memory)
    stored.engine.dispose()
    return optuna.load_study(study_name=workdir.name, storage=memory)


def table(workdir: pathlib.Path) -> list[dict[str, str]]:
    """The rows of trials.csv."""
    with open(workdir / results.TABLE, newline="") as file:
        return list(csv.DictReader(file))


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


def search(config: ConfigDict, workdir: pathlib.Path) -> optuna.Study:
    study.run(tiny.typed(config), epath.Path(workdir))
    return load(workdir)


# ---------------------------------------------------------------------------- fixtures
def config() -> ConfigDict:
    """The config of `SEARCH`."""
    from tests.configs import search

    return search.get_config()


def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are not trained but made up."""
    monkeypatch.setattr(trial.run, "run", fabricated(by_filters))
