"""Writes `search.html`, the page of a search."""

import pathlib
from collections.abc import Sequence

import optuna
from etils import epath
from optuna.trial import FrozenTrial, TrialState

from cifar_jax import pages
from cifar_jax.runtime import metrics_writer
from cifar_jax.runtime import workdir as files
from cifar_jax.search import figures, results
from cifar_jax.search.trial import TRIALS

PAGE = "search.html"
_TEMPLATE = pathlib.Path(__file__).parent / "templates" / PAGE
_TOP = 20  # trials in the table


def write(
    study: optuna.Study, workdir: epath.Path, costs: Sequence[str], is_cifar10: bool
) -> epath.Path:
    """Writes the page of a search and returns its path.

    Args:
      costs: what accuracy is compared with.
      is_cifar10: whether the figures of the report and of our recipes belong beside the trials'.
    """
    trials = study.get_trials(deepcopy=False)
    trained = [trial for trial in trials if results.is_trained(trial)]
    top = sorted(trained, key=lambda trial: -trial.user_attrs["accuracy"])[:_TOP]
    context = {
        "title": f"Search: {study.study_name}",
        "trained": trained,
        "best": results.best(trials),
        "stopped": sum(trial.state == TrialState.PRUNED for trial in trained),
        "infeasible": sum(map(results.is_infeasible, trials)),
        "failed": sum(trial.state == TrialState.FAIL for trial in trials),
        "seconds": sum(trial.user_attrs["seconds"] for trial in trained),
        "lines": results.baselines(trained),
        "marks": is_cifar10,
        "top": top,
        "names": list(dict.fromkeys(name for trial in top for name in trial.params)),
        "table": results.TABLE,
    }
    if trained:
        shares = figures.importances(study)
        rows = {trial.number: _rows(trial, workdir) for trial in trained}
        context["overview"] = [
            figures.progress(trained),
            figures.curves(trained, rows),
            *(figures.front(trained, cost, is_cifar10) for cost in costs),
        ]
        context["bars"] = figures.bars(shares) if shares else None
        context["coordinates"] = figures.coordinates(trained, list(shares) or context["names"])
    return pages.write(workdir / PAGE, _TEMPLATE, **context)


def _rows(trial: FrozenTrial, workdir: epath.Path) -> list[dict]:
    """The rows of a trial's run; [] if another machine has its workdir."""
    home = workdir / TRIALS / trial.user_attrs["workdir"]
    return metrics_writer.read_rows(home) if (home / files.METRICS).exists() else []
