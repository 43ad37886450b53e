"""What each report under results/benchmarks must contain; checked when it is read."""

import pathlib
from collections.abc import Iterator
from typing import Any

from etils import epath

from benchmarks import session
from cifar_jax.forms import (
    FLAG,
    POSITIVE,
    TEXT,
    Check,
    Optional,
    Schema,
    Table,
    is_number,
    number,
    or_null,
    whole,
)
from cifar_jax.runtime import checked

_REMEDY = "restore it, or measure again with `make bench`"
_COUNT = whole(1, 2**62)
_RATES = Check(
    "a list of numbers above 0, not empty",
    lambda v: isinstance(v, list) and v != [] and all(is_number(x) and x > 0 for x in v),
)
_BEGIN = {
    "command": TEXT,
    "machine": {
        "processor": TEXT,
        "cpu_count": or_null(_COUNT),
        "python": TEXT,
        "jax": TEXT,
        "time": TEXT,
        "git_commit": or_null(TEXT),
        "git_dirty": or_null(FLAG),
        "load_average": Optional(number(0)),
    },
}
_OF_PEER = {"train": _RATES, "infer": _RATES, "peak_bytes": _COUNT}
_GROWTH = Table({"images_per_second": _RATES, "peak_bytes": _COUNT})
_FORM = {"p50_ms": POSITIVE, "p99_ms": POSITIVE, "images_per_second": POSITIVE}


def _step_together(report: dict[str, Any]) -> Iterator[str]:
    for network, row in report["networks"].items():
        for setting in session.SETTINGS:
            peers = row["figures"][setting]
            if "ours" not in peers:
                yield f"networks.{network}.figures.{setting}.ours is missing"
            if len({len(peer[what]) for peer in peers.values() for what in ("train", "infer")}) > 1:
                yield f"networks.{network}.figures.{setting} must have equally many rounds"


def _predict_together(report: dict[str, Any]) -> Iterator[str]:
    numbers = list(report["images"])
    if len(numbers) != 3 or not all(text.isdecimal() for text in numbers):
        yield "images must have three keys, which are numbers of images"


def _versions_together(report: dict[str, Any]) -> Iterator[str]:
    for name, row in report["configs"].items():
        if len(row["this"]) != len(row["other"]):
            yield f"configs.{name} must have equally many rounds of both versions"


_STEP = {
    "networks": Table(
        {
            "batch_size": _COUNT,
            "train_flops_per_image": POSITIVE,
            "figures": dict.fromkeys(session.SETTINGS, Table(_OF_PEER)),
            "missing": Table(TEXT),
        }
    ),
    "matmul_gflops": POSITIVE,
}
_SCALING = {
    "network": TEXT,
    "growth": Table(_GROWTH),
    "batch_share_of_step": number(0),
    "epoch": Check("null, or an object with seconds", lambda v: v is None or _takes_time(v)),
}
_ROOFLINE = {
    "batch_size": _COUNT,
    "flops": POSITIVE,
    "bytes_accessed": POSITIVE,
    "all_reduces": whole(0),
    "all_reduce_bytes": whole(0, 2**62),
}
SCHEMAS = {
    **dict.fromkeys(
        ("step.json", "step_transfer.json"), Schema(_BEGIN | _STEP, _REMEDY, _step_together)
    ),
    "startup.json": Schema(
        _BEGIN | {"seconds": {"cold": _RATES, "warm": _RATES, "help": _RATES}}, _REMEDY
    ),
    "scaling.json": Schema(_BEGIN | _SCALING, _REMEDY),
    "predict.json": Schema(
        _BEGIN
        | {
            "network": TEXT,
            "size": _COUNT,
            "images": Table({"seconds": _RATES, "peak_bytes": _COUNT}),
        },
        _REMEDY,
        _predict_together,
    ),
    "export.json": Schema(
        _BEGIN
        | {
            "batch_size": _COUNT,
            "titles": Table(TEXT),
            "networks": Table({"forms": Table(_FORM)}),
        },
        _REMEDY,
    ),
    "roofline.json": Schema(_BEGIN | {"steps": Table(_ROOFLINE)}, _REMEDY),
    "search.json": Schema(_BEGIN | {"overheads": _RATES}, _REMEDY),
    "versions.json": Schema(
        _BEGIN
        | {
            "other_commit": or_null(TEXT),
            "images": _COUNT,
            "configs": Table({"this": _RATES, "other": _RATES}),
        },
        _REMEDY,
        _versions_together,
    ),
    "seeds.json": Schema(_BEGIN | {"seeds": _COUNT, "alone": _RATES, "together": _RATES}, _REMEDY),
}


def _takes_time(value: Any) -> bool:
    return isinstance(value, dict) and is_number(value.get("seconds"))


def read(results: pathlib.Path, name: str) -> dict[str, Any] | None:
    """A report, or None if there is none.

    Raises:
      UserError: it cannot be read, or does not fit its schema.
    """
    path = epath.Path(results / name)
    return checked.read_json(path, SCHEMAS[name]) if path.exists() else None
