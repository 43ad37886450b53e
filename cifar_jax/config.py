"""Validation of a config before anything is loaded or compiled: one line per fault."""

import re
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from cifar_jax.config_tree import complete, flat, from_plain, misplaced, plain
from cifar_jax.errors import UserError
from cifar_jax.forms import (
    BETWEEN,
    FLAG,
    FRACTION,
    POSITIVE,
    TEXT,
    Check,
    Damaged,
    all_of,
    number,
    one_of,
    whole,
)

# Of layers and evaluation batches: what is larger is a slip, and would end in a lack of memory.
_SIZE = whole(1, 2**16)

_CHECKS: dict[str, Check] = {
    "seed": whole(0, 2**32 - 1),
    "seeds": whole(1),
    "epochs": whole(1),
    "batch_size": whole(1),
    "dtype": one_of("float32", "bfloat16"),
    "label_smoothing": FRACTION,
    "steps_per_dispatch": whole(0),
    "profile": FLAG,
    "data.name": TEXT,
    "data.dir": TEXT,
    "data.archive": TEXT,
    "data.cache_dir": TEXT,
    "data.download": FLAG,
    "data.validation_fraction": FRACTION,
    "data.stratified": FLAG,
    "data.standardize": FLAG,
    "augment.flip": FLAG,
    "augment.alternate_flips": FLAG,
    "augment.crop_padding": whole(0),
    "augment.crop_fill": one_of("zero", "reflect"),
    "augment.cutout": whole(0),
    "augment.mixup": number(0),
    "model.name": one_of("cnn", "speedrun"),
    "model.widths": all_of("a tuple of filters", _SIZE),
    "model.residual": FLAG,
    "model.norm_momentum": FRACTION,
    "model.logit_scale": POSITIVE,
    "model.head_std": number(0),
    "model.dense": all_of("a tuple of widths", _SIZE),
    "model.dense_dropout": FRACTION,
    "model.dense_l2": number(0),
    "model.dirac": FLAG,
    "model.whitening.enabled": FLAG,
    "model.whitening.images": whole(1),
    "model.whitening.epsilon": POSITIVE,
    "model.whitening.bias_rate": number(0),
    "optimizer.name": one_of("adam", "adamw", "sgd", "muon"),
    "optimizer.learning_rate": POSITIVE,
    "optimizer.b1": FRACTION,
    "optimizer.b2": FRACTION,
    "optimizer.epsilon": POSITIVE,
    "optimizer.momentum": FRACTION,
    "optimizer.nesterov": FLAG,
    "optimizer.l2": number(0),
    "optimizer.norm_bias_rate": POSITIVE,
    "optimizer.muon_momentum": FRACTION,
    "optimizer.head_rate": POSITIVE,
    "optimizer.lookahead_every": whole(0),
    "optimizer.lookahead_decay": FRACTION,
    "optimizer.weight_decay": number(0),
    "optimizer.gradient_clip": number(0),
    "optimizer.ema_decay": FRACTION,
    "schedule.name": one_of("constant", "linear", "cosine", "one_cycle", "piecewise"),
    "schedule.warmup_epochs": number(0),
    "schedule.initial_fraction": number(0, 1),
    "schedule.boundaries": all_of("a tuple of fractions of config.epochs", BETWEEN),
    "schedule.factor": POSITIVE,
    "schedule.final_fraction": number(0, 1),
    "plateau.enabled": FLAG,
    "plateau.factor": BETWEEN,
    "plateau.patience": whole(1),
    "plateau.min_delta": POSITIVE,  # optax refuses 0
    "plateau.cooldown": whole(0),
    "plateau.min_scale": number(0, 1),
    "early_stopping.enabled": FLAG,
    "early_stopping.metric": one_of("validation_loss", "validation_accuracy"),
    "early_stopping.patience": whole(1),
    "early_stopping.min_delta": number(0),
    "early_stopping.restore_best": FLAG,
    "eval.batch_size": _SIZE,
    "eval.tta": one_of("none", "flip", "multicrop"),
    "checkpoint.every_steps": whole(0),
}

_BLOCK_CHECKS: dict[str, Check] = {
    "filters": _SIZE,
    "kernel": _SIZE,
    "padding": one_of("SAME", "VALID"),
    "batch_norm": FLAG,
    "pool": _SIZE,
    "dropout": FRACTION,
    "l2": number(0),
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


# What no version of this code left out of a config that it saved.
_FROM_THE_BEGINNING = ("seed", "epochs", "batch_size", "data", "model", "optimizer")


def from_file(saved: Any, defaults: ConfigDict) -> ConfigDict:
    """The config that a run was started with.

    Args:
      saved: what `config_tree.plain` made of it.
      defaults: of keys that are newer than the run, which leave everything as it was.

    Raises:
      Damaged: it is no config, or not of this version.
    """
    known = plain(defaults)
    faults = list(misplaced(saved, known))
    if not faults:
        faults = [f"config.{key} is missing" for key in _FROM_THE_BEGINNING if key not in saved]
    if not faults:
        config = from_plain(complete(saved, known))
        try:
            validate(config)
            return config
        except UserError as error:
            faults = str(error).splitlines()
    others = f", and {len(faults) - 1} more" if faults[1:] else ""
    raise Damaged(f"{faults[0]}{others}")
