"""Regularized evolution (Real et al. 2019, arXiv 1802.01548) as a sampler of Optuna.

The population is the latest trials, so every trial dies of age. A new trial is a copy of the best
of some that are drawn from it, with one value changed.
"""

import random
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

POPULATION, DRAWN = 12, 10  # for searches of 50 trials or so; measured on NAS-Bench-Macro


class RegularizedEvolution(optuna.samplers.BaseSampler):
    """Mutates the best of `drawn` trials from the latest `population`; for one objective."""

    def __init__(
        self, seed: int | None = None, population: int = POPULATION, drawn: int = DRAWN
    ) -> None:
        self._random = random.Random(seed)
        self._anew = optuna.samplers.RandomSampler(seed)
        self._population, self._drawn = population, drawn
        self._parents: dict[int, FrozenTrial | None] = {}  # by the number of the child
        self._mutated: dict[int, str] = {}  # the name of the parameter that the child changes

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Chooses the parent, and which of its values changes."""
        known = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        latest = [t for t in known if _value(t) is not None][-self._population :]
        if len(latest) < self._population:
            return
        drawn = self._random.sample(latest, self._drawn)
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        parent = max(drawn, key=lambda t: sign * (_value(t) or 0.0))
        free = [name for name, dist in parent.distributions.items() if not dist.single()]
        if free:
            self._parents[trial.number] = parent
            self._mutated[trial.number] = self._random.choice(free)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The parent's value; another one if it changes; a random one if the parent has none."""
        parent = self._parents.get(trial.number)
        if parent is None or parent.distributions.get(param_name) != param_distribution:
            return self._anew.sample_independent(study, trial, param_name, param_distribution)
        old = parent.params[param_name]
        if self._mutated[trial.number] != param_name:
            return old
        while True:
            new = self._anew.sample_independent(study, trial, param_name, param_distribution)
            if new != old:
                return new

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Forgets the parent."""
        self._parents.pop(trial.number, None)
        self._mutated.pop(trial.number, None)

    def reseed_rng(self) -> None:
        self._random.seed()
        self._anew.reseed_rng()


def _value(trial: FrozenTrial) -> float | None:
    """What a trial reached; None if it was never trained."""
    if any(over > 0 for over in trial.constraints.values()):
        return None
    if trial.state == TrialState.COMPLETE:
        return trial.value
    reached = trial.intermediate_values
    return reached[max(reached)] if reached else None
