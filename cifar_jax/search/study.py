"""A worker of a search: chooses trials and trains them until the search has enough.

Any number of workers may run at the same time, on one machine or many: they share the study and,
if they see the same file system, the workdir.
"""

import math
import sys
import time
import uuid
import warnings

import optuna
from etils import epath
from optuna.trial import FrozenTrial, TrialState

from cifar_jax import places
from cifar_jax.config.schema import Config, Search
from cifar_jax.data import sources
from cifar_jax.errors import UserError
from cifar_jax.runtime import environment as environments
from cifar_jax.runtime import settings
from cifar_jax.runtime.interrupt import Interrupted, StopRequest
from cifar_jax.search import LIMITED, page, results, storage
from cifar_jax.search.space import Space
from cifar_jax.search.trial import Objective
from cifar_jax.terminal import printable, say

TRIES = 300  # configs that break a limit before the first that keeps all of them
_FAILURES = 5  # trials in a row that fail before this worker gives up
_POLL = 1.0  # seconds between two looks at what other workers do


@settings.pinned()
def run(config: Config, workdir: epath.Path) -> None:
    """`--mode=search`: searches until enough trials are trained, then writes the results.

    Raises:
      UserError: the space, the storage or the data cannot be used; no config keeps the limits; or
        trials fail one after the other.
      Interrupted: a signal arrived; the same command goes on.
    """
    search = config.search
    check(config)
    space = Space(config)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    dataset = sources.load(config.data)
    with storage.open_study(search, workdir, space.description()) as study:
        command = places.without_password(" ".join(sys.argv))
        environment = {"command": command, **environments.collect()}
        study.set_user_attr(f"{results.WORKER}{uuid.uuid4().hex}", environment)
        try:
            with StopRequest() as stop:
                _Worker(study, search, Objective(space, search, workdir, dataset)).work(stop)
        except Interrupted:
            _write(study, config, workdir, dataset.name == "cifar10")
            raise
        _write(study, config, workdir, dataset.name == "cifar10")


def _write(study: optuna.Study, config: Config, workdir: epath.Path, is_cifar10: bool) -> None:
    """Writes the results and the page, if there is a trial, and says what was found."""
    if study.get_trials(deepcopy=False):
        for line in results.write(study, config, workdir):
            say(line)
        path = page.write(study, workdir, [results.cost(config.search)], is_cifar10)
        say(f"all results are in {printable(workdir)}; open {path.name}")


def check(config: Config) -> None:
    """Raises UserError if keys of `config.search` contradict each other or the rest."""
    search = config.search
    if search.objectives[:1] != ("accuracy",) or len(set(search.objectives)) > 2:
        raise UserError(
            "config.search.objectives must be accuracy, or accuracy and one cost: "
            f"it is {search.objectives!r}"
        )
    several = len(search.objectives) > 1
    if several and search.pruner != "none":
        raise UserError("config.search.pruner works with one objective only: set it to none")
    if several and search.sampler == "evolution":
        raise UserError(
            "config.search.sampler=evolution works with one objective only: use nsga2 or tpe"
        )
    if not config.data.validation_fraction:
        raise UserError(
            "a search compares trials on validation images: set config.data.validation_fraction "
            "above 0"
        )
    if config.seeds > 1:
        raise UserError("config.seeds is not for a search, whose trials have one seed: set it to 1")
    if config.wandb:
        raise UserError("config.wandb logs one run, and a search trains many: leave it out")


class _Worker:
    """One of the processes that share a study."""

    def __init__(self, study: optuna.Study, search: Search, objective: Objective):
        self._study, self._search, self._objective = study, search, objective
        self._failures = 0  # one after the other
        seconds = 60 * search.minutes if search.minutes else math.inf
        self._deadline = time.monotonic() + seconds  # of the last start of a trial

    def work(self, stop: StopRequest) -> None:
        """Trains until the study has enough trials, the time is over, or a signal arrives."""
        while not stop.requested and not self._is_late():
            if self._is_done(stop):
                return
            self._train_one()
        if stop.requested:
            raise Interrupted("interrupted: run again to go on with the search")

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def _is_done(self, stop: StopRequest) -> bool:
        """Whether no trial is left; waits as long as other workers train the last ones.

        A trial of a worker that gives no more signs of life is put back.
        """
        while not stop.requested and not self._is_late():
            optuna.storages.fail_stale_trials(self._study)
            trials = self._study.get_trials(deepcopy=False)
            trained = sum(map(results.is_trained, trials))
            under_way = sum(trial.state == TrialState.RUNNING for trial in trials)
            if trained >= self._search.trials:
                return True
            if trained + under_way < self._search.trials:
                self._check_limits(trials)
                return False
            if any(trial.state == TrialState.WAITING for trial in trials):
                return False
            time.sleep(_POLL)
        return True

    def _train_one(self) -> None:
        try:
            self._study.optimize(
                self._objective, n_trials=1, catch=(UserError,), callbacks=[self._end]
            )
        except UnboundLocalError as error:
            # Optuna 5.0.0 hides behind it that a trial's end could not be written.
            if isinstance(error.__context__, UserError):
                raise error.__context__ from None
            raise

    def _end(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Says how a trial ended.

        Raises:
          UserError: several have failed, one after the other.
        """
        if trial.state == TrialState.FAIL:
            self._failures += 1
            reason = trial.user_attrs["reason"]
            say(f"trial {trial.number} failed: {printable(reason)}", sys.stderr)
            if self._failures == _FAILURES:
                raise UserError(f"{_FAILURES} trials failed, one after the other: {reason}")
        elif results.is_trained(trial):
            self._failures = 0
            say(results.line(study, trial, self._search, self._deadline - time.monotonic()))

    def _check_limits(self, trials: list[FrozenTrial]) -> None:
        refused = [trial for trial in trials if results.is_infeasible(trial)]
        if len(refused) < TRIES or any(map(results.is_trained, trials)):
            return
        least = [
            f"the least {name} was {min(values):g}"
            for name in LIMITED
            if (values := [t.user_attrs[name] for t in refused if name in t.user_attrs])
        ]
        reasons = [t.user_attrs["reason"] for t in refused if "reason" in t.user_attrs]
        raise UserError(
            f"none of {len(refused)} configs keeps the limits of config.search: "
            f"{'; '.join([*least, *reasons[:1]])}: raise the limits, or widen the space"
        )
