"""One trial of a search: what is known of its config before training, and its training run.

The run is an ordinary one in a workdir of its own, but it leaves the test set unread. The workdir
is named by a hash of the config. So a trial that was interrupted goes on where it was, whichever
worker takes it over, and a config that was trained is not trained again.
"""

import contextlib
import hashlib
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import jax
import optuna
from etils import epath

from cifar_jax import models
from cifar_jax.config import keys
from cifar_jax.config.schema import Config, Search
from cifar_jax.data import sources
from cifar_jax.errors import UserError
from cifar_jax.forms import Schema, number, whole
from cifar_jax.models import summary
from cifar_jax.runtime import checked, metrics_writer
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.interrupt import Interrupted
from cifar_jax.search import LIMITED, timing
from cifar_jax.search.space import Space
from cifar_jax.training import run

TRIALS = "trials"  # the directory of the trials' workdirs
DONE = "trial.json"  # in a trial's workdir once it has been trained: its figures
_FIGURES = Schema(
    {"accuracy": number(0, 1), "epochs": whole(1), "seconds": number(0)},
    "remove it: the trial is then trained again",
)
_SHARED = ("seed", "seeds", "search.")  # not part of what tells two configs apart


class Objective:
    """Trains the config of a trial and returns the values of the objectives."""

    def __init__(self, space: Space, search: Search, workdir: epath.Path, dataset: sources.Dataset):
        self._space, self._search = space, search
        self._workdir, self._dataset = workdir, dataset

    def __call__(self, trial: optuna.Trial) -> tuple[float, ...]:
        """Trains and returns the values. A trial that is interrupted is put back for later.

        Raises:
          optuna.TrialPruned: the config breaks a limit or is contradictory, so it is not trained;
            or the pruner stopped it.
          UserError: the run failed; see `run.run`.
          Interrupted: a signal arrived, and the state has been saved.
        """
        try:
            config = self._space.sample(trial)
            known = self.known(config)
        except UserError as error:
            _tell(trial, {"reason": str(error).splitlines()[0]})
            return self._infeasible(trial, {"fits": 1.0})
        _tell(trial, known)
        limits = {name: limit for name, limit in self._limits().items() if name in known}
        over = {"fits": -1.0, **{name: known[name] - limits[name] for name in limits}}
        if max(over.values()) > 0:
            return self._infeasible(trial, over)
        _constrain(trial, over)
        home = self._workdir / TRIALS / digest(config)
        try:
            figures = self._figures(trial, config, home)
        except UserError as error:
            _tell(trial, {"reason": str(error)})
            raise
        except Interrupted:
            this = trial.study.get_trials(deepcopy=False)[trial.number]
            optuna.storages.RetryHeartbeatStaleTrialCallback()(trial.study, this)
            raise
        _tell(trial, figures)
        return tuple((known | figures)[name] for name in self._search.objectives)

    def known(self, config: Config) -> dict[str, float]:
        """What is known of a config without training it.

        Raises:
          UserError: its network does not fit the images.
        """
        data = self._dataset
        shape = data.train_images.shape[1:]
        model = models.build(
            config.model, shape, len(data.class_names), config.dtype, config.data.resize
        )
        rows = summary.layers(model, shape)
        found: dict[str, float] = {
            "parameters": sum(row.parameters for row in rows),
            "multiply_adds": sum(row.multiply_adds for row in rows),
        }
        limits = {name: limit for name, limit in self._limits().items() if name in found}
        is_within = all(found[name] <= limit for name, limit in limits.items())
        search = self._search
        needs_time = "step_ms" in search.objectives or search.max_step_ms or search.max_minutes
        if is_within and needs_time:  # the slowest to learn comes last
            with quietly():
                found |= timing.measure(config, data)
        return found

    def _limits(self) -> dict[str, float]:
        limits = {name: getattr(self._search, f"max_{name}") for name in LIMITED}
        return {name: limit for name, limit in limits.items() if limit}

    def _infeasible(self, trial: optuna.Trial, over: dict[str, float]) -> tuple[float, ...]:
        """Ends a trial that is not trained; the constraints tell the sampler how far it is over."""
        _constrain(trial, over)
        if len(self._search.objectives) == 1:
            raise optuna.TrialPruned("it breaks a limit")
        # Optuna refuses to prune here; a trial that breaks a constraint loses to any other.
        return (0.0,) * len(self._search.objectives)

    def _figures(self, trial: optuna.Trial, config: Config, home: epath.Path) -> dict[str, Any]:
        """The figures of the trial's run, which is trained unless it was before."""
        place = {"workdir": home.name}
        if done := checked.read_if_sound(home / DONE, _FIGURES):
            return done | place
        rows = metrics_writer.read_rows(home) if (home / files.METRICS).exists() else []
        restored, reported = list(rows), 0

        def report(row: dict[str, Any]) -> None:
            nonlocal reported
            rows[row["epoch"] - 1 :] = [row]
            # An epoch whose checkpoint was lost is trained again, with the same figures.
            if len(self._search.objectives) == 1 and row["epoch"] > reported:
                reported = row["epoch"]
                figures = _figures_of(rows)
                trial.report(figures["accuracy"], row["epoch"])
                if trial.should_prune() and row["epoch"] < config.epochs:
                    _tell(trial, figures | place)
                    raise optuna.TrialPruned(f"after epoch {row['epoch']}")

        with quietly():
            for row in restored:
                report(row)
            run.run(config, home, on_epoch=report, tests=False)
        files.write_json(home / DONE, _figures_of(rows))
        return _figures_of(rows) | place


def _figures_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "accuracy": max(row["validation_accuracy"] for row in rows),
        "epochs": len(rows),
        "seconds": sum(row["seconds"] for row in rows),
    }


def _tell(trial: optuna.Trial, figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        trial.set_user_attr(name, value)


def _constrain(trial: optuna.Trial, over: dict[str, float]) -> None:
    known = trial.constraints  # a trial that is tried again has them already
    for name, value in over.items():
        if name not in known:
            trial.set_constraint(name, value)


def digest(config: Config) -> str:
    """Tells configs apart by what decides their result, except the seed."""
    told = {
        leaf.name: leaf.value
        for leaf in keys.leaves(config)
        if not leaf.key.machine and not leaf.name.startswith(_SHARED)
    }
    text = json.dumps(keys.plain(told), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keeps what a run prints from the terminal, and frees its compiled programs after it."""
    log = logging.getLogger("cifar_jax")
    level, nothing = log.level, io.StringIO()
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            yield
    finally:
        log.setLevel(level)
        jax.clear_caches()
