"""What each file of a workdir must hold: one schema per file, checked when the file is read.

When you add a key to a file, add its form here, as `Optional` because older workdirs lack it.
"""

import math
from collections.abc import Iterator
from typing import Any

from cifar_jax.forms import FLAG, TEXT, Check, Optional, Schema, Table, number, or_null, whole

_EVALUATE_AGAIN = "--mode=evaluate writes it again"

_SHARE = number(0, 1)
_FIGURE = number(-1e39, 1e39)  # any float32, and values computed from it
_SECONDS = number(-1e12, 1e12)  # negative if the clock was set back
_COUNT = whole(0, 2**53)
_ORDINAL = whole(1)
_NAME = Check("a string that is not empty", lambda v: isinstance(v, str) and v != "")
_MEAN = or_null(Check("a list of numbers from 0 to 1", lambda v: _are(_SHARE, v)))
_STD = or_null(Check("a list of numbers above 0, up to 1", lambda v: _are(number(1e-30, 1), v)))


def _are(check: Check, values: Any) -> bool:
    return isinstance(values, list) and all(map(check.test, values))


# ---------------------------------------------------------------------------- data.json
def _data_together(data: dict[str, Any]) -> Iterator[str]:
    names, channels = data["class_names"], data["image_shape"][2:]
    if len(set(names)) < len(names) or not names:
        yield "class_names must hold at least one name and no name twice"
    if len(data["image_shape"]) != 3 or channels[0] not in (1, 3):
        yield "image_shape must be height, width and 1 or 3 channels"
    elif data["mean"] is None or data["std"] is None:
        if data["mean"] is not data["std"]:
            yield "mean and std must be both null or both lists"
    elif [len(data["mean"]), len(data["std"])] != 2 * channels:
        yield f"mean and std must have one number for each of {channels[0]} channels"


_SPLIT = {"images": _ORDINAL, "pixels": Optional(TEXT), "content": TEXT}
DATA = Schema(
    {
        "name": Optional(TEXT),
        "image_shape": [whole(1, 2**14)],
        "class_names": [_NAME],
        "mean": _MEAN,
        "std": _STD,
        "fingerprint": Optional({"train": _SPLIT, "test": _SPLIT}),
    },
    f"restore it, or delete it: {_EVALUATE_AGAIN}",
    _data_together,
)


# ---------------------------------------------------------------------------- environment.json
_GIT = {"git_commit": or_null(TEXT), "git_dirty": or_null(FLAG)}
_MACHINE = {
    "python": TEXT,
    "jax": TEXT,
    "flax": TEXT,
    "optax": TEXT,
    "platform": TEXT,
    "processor": TEXT,
    "cpu_count": or_null(_COUNT),
    "backend": TEXT,
    "device_kind": TEXT,
    "device_count": _COUNT,
    **_GIT,
}
ENVIRONMENT = Schema(
    {
        **_MACHINE,
        "starts": [
            {"command": TEXT, "step": _COUNT, "time": TEXT, "seconds": Optional(_SECONDS), **_GIT}
        ],
    },
    "it is only informative: restore it, or delete it",
    lambda environment: iter([] if environment["starts"] else ["starts must not be empty"]),
)


# ---------------------------------------------------------------------------- workers.json
WORKERS = Schema(
    [{"command": TEXT, "time": TEXT, **_MACHINE}], "the command of the search writes it again"
)


# ---------------------------------------------------------------------------- metrics.jsonl
def _row_together(row: dict[str, Any]) -> Iterator[str]:
    figures = [value for key, value in row.items() if key.startswith("validation_")]
    if None in figures and any(figure is not None for figure in figures):
        yield "the validation metrics must be all null or all numbers"


FIGURES = {
    "train_loss": _FIGURE,
    "train_accuracy": _SHARE,
    "validation_loss": or_null(_FIGURE),
    "validation_accuracy": or_null(_SHARE),
    "train_objective": _FIGURE,
    "validation_objective": or_null(_FIGURE),
    "learning_rate": _FIGURE,
    "images_per_second": _SECONDS,
    "seconds": _SECONDS,
}
ROW = Schema(
    {"epoch": _ORDINAL, "step": _ORDINAL, **FIGURES},
    "restore it, or train again in a new workdir",
    _row_together,
)


# ---------------------------------------------------------------------------- result.json
def _result_together(result: dict[str, Any]) -> Iterator[str]:
    if result["best_epoch"] > result["epochs"]:
        yield f"best_epoch must be at most epochs, {result['epochs']}: it is {result['best_epoch']}"
    if "train_accuracy_clean" in result and "train_examples_clean" not in result:
        yield "train_examples_clean is missing, but train_accuracy_clean is there"
    if ("temperature" in result) != ("scaled_calibration_error" in result):
        yield "temperature and scaled_calibration_error must both be there, or neither"
    names, matrix = list(result["class_counts"]["test"]), result["confusion_matrix"]
    if not names:
        yield "class_counts.test must name the classes"
    if any(list(counts) != names for counts in result["class_counts"].values()):
        yield "class_counts must have the same classes for each split"
    if any(len(row) != len(names) for row in [matrix, *matrix]):
        yield f"confusion_matrix must have one row and one column for each of {len(names)} classes"
    missing = [name for name in names if name not in result["classification_report"]]
    if missing:
        yield f"classification_report must have a row for each class, but {missing[0]!r} has none"


_COUNTS = Table(_COUNT)
RESULT = Schema(
    {
        "parameters": _COUNT,
        "epochs": _ORDINAL,
        "best_epoch": _ORDINAL,
        "lost_epoch": Optional(_ORDINAL),
        "stopped_early": FLAG,
        "train_seconds": _SECONDS,
        "train_accuracy_clean": Optional(_SHARE),
        "train_examples_clean": Optional(_ORDINAL),
        "validation_accuracy": or_null(_SHARE),
        "test_accuracy": _SHARE,
        **dict.fromkeys(("test_loss", "test_objective"), _FIGURE),
        "test_examples": _ORDINAL,
        **dict.fromkeys(("validation_accuracy_tta", "test_accuracy_tta"), Optional(_SHARE)),
        "confusion_matrix": [[_COUNT]],
        "classification_report": Table(
            {"precision": _SHARE, "recall": _SHARE, "f1-score": _SHARE, "support": number(0, 2**53)}
        ),
        "expected_calibration_error": _SHARE,
        "temperature": Optional(number(1 / 20, 20)),
        "scaled_calibration_error": Optional(_SHARE),
        "class_counts": {"train": _COUNTS, "validation": _COUNTS, "test": _COUNTS},
    },
    _EVALUATE_AGAIN,
    _result_together,
)


# ---------------------------------------------------------------------------- predictions.npz
def _array(text: str, kinds: str, dimensions: int) -> Check:
    """Checks a NumPy array, which must not be empty.

    Args:
      text: what the array must be, for messages.
      kinds: the allowed `dtype.kind` characters.
    """
    return Check(text, lambda a: a.dtype.kind in kinds and a.ndim == dimensions and a.size > 0)


def _predictions_together(arrays: dict[str, Any]) -> Iterator[str]:
    logits, labels = arrays["logits"], arrays["labels"]
    if len(logits) != len(labels):
        yield f"there are logits of {len(logits)} images, but labels of {len(labels)}"
    elif not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        yield f"labels must be from 0 to {logits.shape[1] - 1}"
    if not (abs(logits) < math.inf).all():  # also False for NaN
        yield "logits must be finite"


PREDICTIONS = Schema(
    {
        "logits": _array("floats [images, classes]", "f", 2),
        "labels": _array("integers [images]", "iu", 1),
    },
    _EVALUATE_AGAIN,
    _predictions_together,
)


# ---------------------------------------------------------------------------- robustness.json
def _suites_together(suites: dict[str, Any]) -> Iterator[str]:
    for name, entry in suites.items():
        rows = list(entry["accuracy"].values())
        if not entry["images"] or not rows or not rows[0]:
            yield f"{name} must have images and accuracies"
        elif any(row.keys() != rows[0].keys() for row in rows):
            yield f"{name}.accuracy must have the same columns in each row"
        elif not rows[0].keys() <= entry.get("mean_accuracy", rows[0]).keys():
            yield f"{name}.mean_accuracy must have the columns of accuracy"


ROBUSTNESS = Schema(
    Table(
        {
            "title": TEXT,
            "description": TEXT,
            "epoch": _ORDINAL,
            "images": Table(_COUNT),
            "clean_accuracy": _SHARE,
            "clean_images": _COUNT,
            "columns": TEXT,
            "accuracy": Table(Table(_SHARE)),
            "mean_accuracy": Optional(Table(_SHARE)),
        }
    ),
    "restore it, or delete it: --mode=evaluate --suite=... writes it again",
    _suites_together,
)

# ---------------------------------------------------------------------------- seeds.json
SUMMARIZED = (
    "validation_accuracy", "test_accuracy", "test_loss", "test_objective",
    "validation_accuracy_tta", "test_accuracy_tta", "expected_calibration_error", "epochs",
    "train_accuracy_clean", "temperature", "scaled_calibration_error",
)  # fmt: skip


def _seeds_together(summary: dict[str, Any]) -> Iterator[str]:
    if not summary["seeds"]:
        yield "seeds must not be empty"


SEEDS = Schema(
    {
        "seeds": [whole(0, 2**32 - 1)],
        **dict.fromkeys(
            SUMMARIZED, Optional({"mean": _FIGURE, "std": _FIGURE, "values": [_FIGURE]})
        ),
    },
    "--mode=train writes it again",
    _seeds_together,
)

# ---------------------------------------------------------------------------- model.int8.json
INT8 = Schema(
    {
        "test_accuracy": _SHARE,
        "checkpoint_test_accuracy": Optional(_SHARE),
        "agreement": Optional(_SHARE),
        "test_examples": Optional(_ORDINAL),
        "calibration_images": Optional(_ORDINAL),
    },
    "--mode=export --format=onnx-int8 writes it again",
)
