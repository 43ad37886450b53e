"""Validation of a config before anything is loaded or compiled: one line per fault."""

import re
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from cifar_jax.config.tree import complete, flat, from_plain, misplaced, plain
from cifar_jax.config.values import BLOCK_CHECKS, CHECKS, missed
from cifar_jax.errors import UserError
from cifar_jax.forms import Damaged


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
        for key in sorted(set(block) ^ set(BLOCK_CHECKS)):
            fault = "is not a key of a block" if key in block else "is missing"
            yield f"{name}.{key} {fault}: a block has {', '.join(BLOCK_CHECKS)}"
        for key, check in BLOCK_CHECKS.items():
            if key in block and (text := missed(check, block[key])):
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
    if config.seed + config.seeds > 2**32:
        yield (
            f"config.seeds={config.seeds} from config.seed={config.seed} on go beyond 4294967295: "
            f"set config.seed to at most {2**32 - config.seeds}"
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
    check = BLOCK_CHECKS.get(block_key[1]) if block_key else CHECKS.get(key)
    return check and f"config.{key} must be {check.expected}: it is {text!r}"


# What multiplies gradients, updates or logits; all of them are about 1 or less in use.
_FACTORS = (
    "model.logit_scale", "model.head_std", "model.dense_l2", "model.whitening.bias_rate",
    "optimizer.l2", "optimizer.norm_bias_rate", "optimizer.head_rate", "optimizer.weight_decay",
    "schedule.factor",
)  # fmt: skip
_LARGE = 100.0


def blame(config: ConfigDict, step: int) -> str:
    """What to change where loss or gradient of a step, counted from 1, are not finite."""
    factors = {key: flat(config)[key] for key in _FACTORS}
    factors |= {f"model.blocks[{i}].l2": block.l2 for i, block in enumerate(config.model.blocks)}
    large = [f"config.{key} ({value:g})" for key, value in factors.items() if value > _LARGE]
    if large:
        return f"lower {', '.join(large)} or config.optimizer.learning_rate"
    if step == 1:
        return "no update had been made, so change config.model, config.augment or config.dtype"
    return "lower config.optimizer.learning_rate or set config.optimizer.gradient_clip"


def validate(config: ConfigDict) -> None:
    """Checks every value of a config, and pairs of values against each other.

    Raises:
      UserError: at least one fault; the message has a line for each, with key and remedy.
    """
    values = flat(config)
    known = {*CHECKS, "model.blocks"}
    unknown = sorted(values.keys() - known)
    faults = [f"config.{key} is no key: see configs/base.py" for key in unknown]
    missing = sorted(known - values.keys())
    if missing:
        others = f" and {len(missing) - 1} others" if missing[1:] else ""
        faults.append(f"config.{missing[0]} is missing{others}: begin with base.get_config()")
    faults += [
        f"config.{key} must be {text}: it is {_shown(values[key])}"
        for key, check in CHECKS.items()
        if key in values and (text := missed(check, values[key]))
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
