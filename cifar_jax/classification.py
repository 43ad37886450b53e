"""Precision, recall and F1, class by class."""

from typing import Any

import numpy as np
from jaxtyping import Integer

_COLUMNS = ("precision", "recall", "f1-score", "support")


def report(
    labels: Integer[np.ndarray, " n"],
    predicted: Integer[np.ndarray, " n"],
    class_names: tuple[str, ...],
) -> dict[str, dict[str, float]]:
    """Class -> figure -> value, of "macro avg" and "weighted avg", too.

    By scikit-learn, but not as its `classification_report` names the rows: a class that is called
    like an average would lose its own. That average is then one "of all classes".
    """
    from sklearn import metrics

    columns = np.array(
        metrics.precision_recall_fscore_support(
            labels, predicted, labels=range(len(class_names)), zero_division=0.0
        )
    )
    rows: dict[str, Any] = dict(zip(class_names, columns.T, strict=True))
    for average, weights in (("macro avg", None), ("weighted avg", columns[3])):
        name = f"{average} of all classes" if average in class_names else average
        rows[name] = [*np.average(columns[:3], axis=1, weights=weights), len(labels)]
    return {name: dict(zip(_COLUMNS, map(float, row), strict=True)) for name, row in rows.items()}
