"""Validation of a config before anything is loaded or compiled: one line per fault."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from cifar_jax.config_tree import flat
from cifar_jax.errors import UserError

_Check = tuple[str, Callable[[Any], bool]]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(low: int, high: int = 2**31 - 1) -> _Check:
    """By default up to what JAX counts with, int32."""
    return f"a whole number, from {low} to {high}", (
        lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high
    )


def _number(low: float, high: float = math.inf) -> _Check:
    bound = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
    return f"a number, {bound}", lambda v: _is_number(v) and low <= v <= high


def _one_of(*values: Any) -> _Check:
    return "one of " + ", ".join(map(repr, values)), lambda v: v in values


def _all(name: str, check: _Check) -> _Check:
    text, test = check
    return f"{name}, each {text}", lambda v: isinstance(v, tuple | list) and all(map(test, v))


# Of layers and evaluation batches: what is larger is a slip, and would end in a lack of memory.
_SIZE = _whole(1, 2**16)
_POSITIVE = "a number above 0", lambda v: _is_number(v) and v > 0
_FRACTION = "a number from 0 up to but without 1", lambda v: _is_number(v) and 0 <= v < 1
_BETWEEN = "a number between 0 and 1, both excluded", lambda v: _is_number(v) and 0 < v < 1
_FLAG = "True or False", lambda v: isinstance(v, bool)
_TEXT = "a text", lambda v: isinstance(v, str)

_CHECKS: dict[str, _Check] = {
    "seed": _whole(0, 2**32 - 1),
    "seeds": _whole(1),
    "epochs": _whole(1),
    "batch_size": _whole(1),
    "dtype": _one_of("float32", "bfloat16"),
    "label_smoothing": _FRACTION,
    "steps_per_dispatch": _whole(0),
    "profile": _FLAG,
    "data.name": _TEXT,
    "data.dir": _TEXT,
    "data.archive": _TEXT,
    "data.cache_dir": _TEXT,
    "data.download": _FLAG,
    "data.validation_fraction": _FRACTION,
    "data.stratified": _FLAG,
    "data.standardize": _FLAG,
    "augment.flip": _FLAG,
    "augment.alternate_flips": _FLAG,
    "augment.crop_padding": _whole(0),
    "augment.crop_fill": _one_of("zero", "reflect"),
    "augment.cutout": _whole(0),
    "augment.mixup": _number(0),
    "model.name": _one_of("cnn", "speedrun"),
    "model.widths": _all("a tuple of filters", _SIZE),
    "model.residual": _FLAG,
    "model.norm_momentum": _FRACTION,
    "model.logit_scale": _POSITIVE,
    "model.head_std": _number(0),
    "model.dense": _all("a tuple of widths", _SIZE),
    "model.dense_dropout": _FRACTION,
    "model.dense_l2": _number(0),
    "model.dirac": _FLAG,
    "model.whitening.enabled": _FLAG,
    "model.whitening.images": _whole(1),
    "model.whitening.epsilon": _POSITIVE,
    "model.whitening.bias_rate": _number(0),
    "optimizer.name": _one_of("adam", "adamw", "sgd", "muon"),
    "optimizer.learning_rate": _POSITIVE,
    "optimizer.b1": _FRACTION,
    "optimizer.b2": _FRACTION,
    "optimizer.epsilon": _POSITIVE,
    "optimizer.momentum": _FRACTION,
    "optimizer.nesterov": _FLAG,
    "optimizer.l2": _number(0),
    "optimizer.norm_bias_rate": _POSITIVE,
    "optimizer.muon_momentum": _FRACTION,
    "optimizer.head_rate": _POSITIVE,
    "optimizer.lookahead_every": _whole(0),
    "optimizer.lookahead_decay": _FRACTION,
    "optimizer.weight_decay": _number(0),
    "optimizer.gradient_clip": _number(0),
    "optimizer.ema_decay": _FRACTION,
    "schedule.name": _one_of("constant", "linear", "cosine", "one_cycle", "piecewise"),
    "schedule.warmup_epochs": _number(0),
    "schedule.initial_fraction": _number(0, 1),
    "schedule.boundaries": _all("a tuple of fractions of config.epochs", _BETWEEN),
    "schedule.factor": _POSITIVE,
    "schedule.final_fraction": _number(0, 1),
    "plateau.enabled": _FLAG,
    "plateau.factor": _BETWEEN,
    "plateau.patience": _whole(1),
    "plateau.min_delta": _POSITIVE,  # optax refuses 0
    "plateau.cooldown": _whole(0),
    "plateau.min_scale": _number(0, 1),
    "early_stopping.enabled": _FLAG,
    "early_stopping.metric": _one_of("validation_loss", "validation_accuracy"),
    "early_stopping.patience": _whole(1),
    "early_stopping.min_delta": _number(0),
    "early_stopping.restore_best": _FLAG,
    "eval.batch_size": _SIZE,
    "eval.tta": _one_of("none", "flip", "multicrop"),
    "checkpoint.every_steps": _whole(0),
}

_BLOCK_CHECKS: dict[str, _Check] = {
    "filters": _SIZE,
    "kernel": _SIZE,
    "padding": _one_of("SAME", "VALID"),
    "batch_norm": _FLAG,
    "pool": _SIZE,
    "dropout": _FRACTION,
    "l2": _number(0),
}


def _shown(value: Any) -> str:
    return " ".join(repr(value).split())  # a config within spreads over lines


def _block_faults(blocks: Any) -> Iterator[str]:
    if not isinstance(blocks, tuple | list):
        yield f"config.model.blocks must be a tuple of base.conv_block(...): it is {_shown(blocks)}"
        return
    for i, block in enumerate(blocks):
        name = f"config.model.blocks[{i}]"
        if not isinstance(block, ConfigDict):
            yield f"{name} must be a base.conv_block(...): it is {_shown(block)}"
            continue
        for key in sorted(set(block) ^ set(_BLOCK_CHECKS)):
            fault = "is not a key of a block" if key in block else "is missing"
            yield f"{name}.{key} {fault}: a block has {', '.join(_BLOCK_CHECKS)}"
        for key, (text, test) in _BLOCK_CHECKS.items():
            if key in block and not test(block[key]):
                yield f"{name}.{key} must be {text}: it is {_shown(block[key])}"


def _contradictions(config: ConfigDict) -> Iterator[str]:
    optimizer, schedule = config.optimizer, config.schedule
    if optimizer.weight_decay and optimizer.name != "adamw":
        yield (
            "config.optimizer.weight_decay is decoupled and belongs to adamw: set "
            "config.optimizer.name=adamw, or the l2 of the blocks and config.model.dense_l2"
        )
    if optimizer.nesterov and optimizer.name not in ("sgd", "muon"):
        yield "config.optimizer.nesterov belongs to sgd and muon: set config.optimizer.name=sgd"
    if config.plateau.enabled and optimizer.name == "muon":
        yield (
            "config.plateau.enabled would scale what keeps muon's kernels at their norm, too: set "
            "it to False and take a schedule"
        )
    even = [i for i, block in enumerate(config.model.blocks) if block.kernel % 2 == 0]
    if config.model.dirac and config.model.name == "cnn" and even:
        yield (
            "config.model.dirac hands channels on by the middle of a kernel: set "
            f"config.model.blocks[{even[0]}].kernel to an odd number"
        )
    for key in ("profile", "checkpoint.every_steps"):
        if config.seeds > 1 and flat(config)[key]:
            yield f"config.{key} is of one seed: leave it out, or set config.seeds=1"
    if config.augment.alternate_flips and not config.augment.flip:
        yield "config.augment.alternate_flips says which way to flip: set config.augment.flip=True"
    if not config.data.validation_fraction:
        for name in ("early_stopping", "plateau"):
            if config[name].enabled:
                yield (
                    f"config.{name}.enabled needs validation images: set it to False, or "
                    "config.data.validation_fraction above 0"
                )
    if schedule.initial_fraction and schedule.name == "one_cycle":
        yield (
            "config.schedule.initial_fraction is not of one_cycle, which begins at 1/25 of its "
            "peak: set config.schedule.name=linear"
        )
    if schedule.warmup_epochs >= config.epochs:
        yield (
            "config.schedule.warmup_epochs must be below config.epochs "
            f"({config.epochs}): it is {schedule.warmup_epochs:g}"
        )
    if schedule.name == "piecewise" and any(
        boundary * config.epochs < schedule.warmup_epochs for boundary in schedule.boundaries
    ):
        yield "config.schedule.boundaries must come after config.schedule.warmup_epochs"
    if list(schedule.boundaries) != sorted(set(schedule.boundaries)):
        yield "config.schedule.boundaries must rise: sort them and drop repeated ones"


def explain_text(key: str, text: str) -> str | None:
    """What is wrong with `text`, which is no value of `key` ("epochs", "model.blocks[0].pool").

    None for what is no single value of the config.
    """
    block_key = re.fullmatch(r"model\.blocks\[\d+\]\.(\w+)", key)
    check = _BLOCK_CHECKS.get(block_key[1]) if block_key else _CHECKS.get(key)
    return check and f"config.{key} must be {check[0]}: it is {text!r}"


def validate(config: ConfigDict) -> None:
    """Checks every value of a config, and pairs of values against each other.

    Raises:
      UserError: at least one fault; the message has a line for each, with key and remedy.
    """
    values = flat(config)
    known = {*_CHECKS, "model.blocks"}
    unknown = sorted(values.keys() - known)
    faults = [f"config.{key} is no key: see configs/base.py" for key in unknown]
    missing = sorted(known - values.keys())
    if missing:
        others = f" and {len(missing) - 1} others" if missing[1:] else ""
        faults.append(f"config.{missing[0]} is missing{others}: begin with base.get_config()")
    faults += [
        f"config.{key} must be {text}: it is {_shown(values[key])}"
        for key, (text, test) in _CHECKS.items()
        if key in values and not test(values[key])
    ]
    if "model.blocks" in values:
        faults += _block_faults(values["model.blocks"])
    faults += [] if faults else _contradictions(config)
    if faults:
        raise UserError("\n".join(faults))
