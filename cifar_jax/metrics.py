"""Metrics from logits and labels: pure functions on the host, in float64."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from scipy import optimize
from scipy.special import logsumexp, softmax

Logits = Float[np.ndarray, "n k"]
Labels = Integer[np.ndarray, " n"]

_COLUMNS = ("precision", "recall", "f1-score", "support")


def cross_entropy(logits: Logits, labels: Labels) -> float:
    """Mean categorical cross-entropy in nats, computed in float64."""
    logits = logits.astype(np.float64)
    picked = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return float(np.mean(logsumexp(logits, axis=1) - picked))


def accuracy(logits: Logits, labels: Labels) -> float:
    """The fraction, in [0, 1], of images whose largest logit is that of the label."""
    return float(np.mean(logits.argmax(1) == labels))


def least_confident(logits: Logits, share: float) -> Integer[np.ndarray, " m"]:
    """The indices, in order, of the images whose largest probability is lowest.

    Args:
      share: how many of them, as a fraction in [0, 1] of all; rounded up.
    """
    confidence = softmax(logits.astype(np.float64), axis=1).max(1)
    count = int(np.ceil(share * len(logits)))
    return np.sort(np.argsort(confidence, kind="stable")[:count])


@dataclasses.dataclass(frozen=True)
class CalibrationBins:
    """Images grouped by confidence into equally wide bins ((i - 1) / bins, i / bins].

    As in Guo et al. 2017, "On Calibration of Modern Neural Networks". Empty bins hold 0.
    """

    number: Integer[np.ndarray, " bins"]  # of images
    confidence: Float[np.ndarray, " bins"]  # mean over the images of the bin, in [0, 1]
    accuracy: Float[np.ndarray, " bins"]  # in [0, 1]

    @property
    def expected_error(self) -> float:
        """The expected calibration error in [0, 1], equation 3 of Guo et al. 2017.

        This is |accuracy - confidence| of the bins, weighted by their number of images.
        """
        gaps = self.number * np.abs(self.accuracy - self.confidence)
        return float(gaps.sum() / self.number.sum())


def calibration(logits: Logits, labels: Labels, bins: int = 15) -> CalibrationBins:
    """The accuracy of the network at each level of confidence (its largest probability).

    Args:
      bins: 15 in Guo et al. 2017.
    """
    probabilities = softmax(logits.astype(np.float64), axis=1)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    number = np.bincount(index, minlength=bins)
    sums = (np.bincount(index, weights=w, minlength=bins) for w in (confidence, correct))
    return CalibrationBins(number, *(total / np.maximum(number, 1) for total in sums))


def temperature(logits: Logits, labels: Labels) -> float:
    """The T in [1/20, 20] with the lowest cross-entropy of logits / T.

    Divided by it, logits of other images are better calibrated, and no answer changes: temperature
    scaling, section 4.2 of Guo et al. 2017. Above 1, the network is too sure of its answers.
    """
    found = optimize.minimize_scalar(
        lambda log_t: cross_entropy(logits / np.exp(log_t), labels),
        bounds=(-np.log(20), np.log(20)),
        method="bounded",
    )
    return float(np.exp(found.x))


def classification_figures(
    logits: Logits, labels: Labels, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """`confusion_matrix` (rows: true class), `classification_report` and
    `expected_calibration_error`, JSON-ready."""
    from sklearn import metrics

    predicted, classes = logits.argmax(1), range(len(class_names))
    return {
        "confusion_matrix": metrics.confusion_matrix(labels, predicted, labels=classes).tolist(),
        "classification_report": classification_report(labels, predicted, class_names),
        "expected_calibration_error": calibration(logits, labels).expected_error,
    }


def classification_report(
    labels: Integer[np.ndarray, " n"],
    predicted: Integer[np.ndarray, " n"],
    class_names: tuple[str, ...],
) -> dict[str, dict[str, float]]:
    """Precision, recall, f1-score (in [0, 1]) and support of each class, and their averages.

    The rows "macro avg" and "weighted avg" come last. They are named "... avg of all classes" if a
    class has that name; scikit-learn's own `classification_report` would overwrite the class.
    """
    from sklearn import metrics  # imported late because it takes half a second

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
