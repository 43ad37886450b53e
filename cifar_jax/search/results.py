"""What a search found: a config to train, a table of all trials, the Pareto front, and a page."""

import csv
import io
import statistics
from collections.abc import Sequence
from typing import Any

import optuna
import scipy.stats
from etils import epath
from optuna.trial import FrozenTrial, TrialState

from cifar_jax.config.schema import Config, Search
from cifar_jax.runtime import workdir as files
from cifar_jax.search import BEST, COSTS, FRONT, LIMITED, PARETO, TABLE, WORKERS, source
from cifar_jax.search.space import Space
from cifar_jax.terminal import printable

WORKER = "worker "  # what begins the names of a study's attributes that describe its workers
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


def is_infeasible(trial: FrozenTrial) -> bool:
    """Whether a trial was not trained since it breaks a limit."""
    return any(over > 0 for over in trial.constraints.values())


def is_trained(trial: FrozenTrial) -> bool:
    """Whether a trial was trained, at least until the pruner stopped it."""
    return trial.state in _ENDED and "epochs" in trial.user_attrs


def best(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The trained trial with the highest validation accuracy, the first one of equals."""
    trained = [t for t in trials if is_trained(t) and t.state == TrialState.COMPLETE]
    return max(trained, key=lambda t: t.user_attrs["accuracy"], default=None)


def front(trials: Sequence[FrozenTrial], name: str) -> list[FrozenTrial]:
    """The trained trials that no other one beats in both accuracy and the cost `name`, cheapest
    first."""
    found: list[FrozenTrial] = []
    trained = [t for t in trials if is_trained(t)]
    for trial in sorted(trained, key=lambda t: (t.user_attrs[name], -t.user_attrs["accuracy"])):
        if not found or trial.user_attrs["accuracy"] > found[-1].user_attrs["accuracy"]:
            found.append(trial)
    return found


def cost(search: Search) -> str:
    """What accuracy is compared with: the second objective, or multiply-adds."""
    return search.objectives[1] if search.objectives[1:] else "multiply_adds"


def line(study: optuna.Study, trial: FrozenTrial, search: Search, limit: float) -> str:
    """What is said of a trial that has been trained, and how long the rest will take.

    Args:
      limit: seconds until this worker stops, whatever is left.
    """
    trials = study.get_trials(deepcopy=False)
    trained = [t for t in trials if is_trained(t)]
    figures, leader = trial.user_attrs, best(trials)
    text = f"trial {trial.number}: {_shown(figures)}"
    if trial.state == TrialState.PRUNED:
        text += f", stopped after epoch {figures['epochs']}"
    if leader:
        text += f"; best {leader.user_attrs['accuracy']:.2%} of trial {leader.number}"
    workers = 1 + sum(t.state == TrialState.RUNNING for t in trials)  # this one's trial has ended
    left = max(0, search.trials - len(trained))
    seconds = left * statistics.mean(map(_duration, trained)) / workers
    left_text = _time(max(0, min(seconds, limit)))
    return f"{text}; {len(trained)} of {search.trials}, about {left_text} left"


def _shown(figures: dict[str, Any]) -> str:
    return (
        f"validation accuracy {figures['accuracy']:.2%}, {figures['parameters']:,} parameters, "
        f"{figures['multiply_adds'] / 1e6:,.1f} M multiply-adds, {_time(figures['seconds'])}"
    )


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _duration(trial: FrozenTrial) -> float:
    return trial.duration.total_seconds() if trial.duration else 0.0


def write(study: optuna.Study, config: Config, workdir: epath.Path) -> list[str]:
    """Writes the results into the workdir; returns lines that sum them up."""
    trials = study.get_trials(deepcopy=False)
    files.write_bytes(workdir / TABLE, _table(trials).encode())
    best_of = front(trials, cost(config.search))
    content = [{"trial": t.number, "params": t.params, **t.user_attrs} for t in best_of]
    files.write_json(workdir / PARETO, content)
    workers = [value for name, value in study.user_attrs.items() if name.startswith(WORKER)]
    files.write_json(workdir / WORKERS, sorted(workers, key=lambda worker: worker["time"]))
    leader = best(trials)
    if leader is None:
        return [f"no trial has been trained to its end; see {printable(workdir / TABLE)}"]
    space = Space(config)
    _write_config(workdir / BEST, leader, space, len(trials))
    of_front = {workdir / FRONT / f"trial_{trial.number}.py": trial for trial in best_of}
    files.make_directory(workdir / FRONT)
    for path, trial in of_front.items():
        _write_config(path, trial, space, len(trials))
    for path in (workdir / FRONT).glob("trial_*.py"):
        if path not in of_front:  # the search has gone on since, and found a better one
            path.unlink(missing_ok=True)
    return [
        f"best: trial {leader.number}, {_shown(leader.user_attrs)}",
        *baselines([t for t in trials if is_trained(t)]),
        f"train it to its end: python main.py --config={printable(workdir / BEST)}",
    ]


def _write_config(path: epath.Path, trial: FrozenTrial, space: Space, count: int) -> None:
    """Writes a trial's config as a file that `main.py` trains as it is."""
    text = source.of(
        space.sample(optuna.trial.FixedTrial(trial.params)),
        f"Found by a search, in trial {trial.number} of {count}.\n\n"
        f"With {_shown(trial.user_attrs)}.",
        f"python main.py --config={path}",
    )
    files.write_bytes(path, text.encode())


def baselines(trained: Sequence[FrozenTrial]) -> list[str]:
    """How much of the ranking was known without training: Spearman's rank correlations."""
    if len(trained) < 3:
        return []
    accuracies = [t.user_attrs["accuracy"] for t in trained]
    told = []
    for name in COSTS:
        values = [t.user_attrs[name] for t in trained]
        if len(set(values)) > 1 and len(set(accuracies)) > 1:
            rank = scipy.stats.spearmanr(values, accuracies).statistic
            told.append(f"{name.replace('_', '-')} {rank:.2f}")
    if not told:
        return []
    return [
        f"rank correlation of the {len(trained)} trials' accuracy with what is known before "
        f"training: {', '.join(told)}"
    ]


def _table(trials: Sequence[FrozenTrial]) -> str:
    names = list(dict.fromkeys(name for t in trials for name in t.params))
    figures = ("accuracy", "epochs", "seconds", *LIMITED, "workdir", "reason")
    buffer = io.StringIO()
    table = csv.writer(buffer)
    table.writerow(["trial", "state", "started", *figures, *names])
    for trial in trials:
        state = "infeasible" if is_infeasible(trial) else trial.state.name.lower()
        started = trial.datetime_start.isoformat(timespec="seconds") if trial.datetime_start else ""
        table.writerow(
            [trial.number, state, started]
            + [trial.user_attrs.get(name, "") for name in figures]
            + [trial.params.get(name, "") for name in names]
        )
    return buffer.getvalue()
