"""What each value of a config may be, by itself."""

import struct
from typing import Any

from cifar_jax.forms import (
    BETWEEN,
    FLAG,
    FRACTION,
    POSITIVE,
    TEXT,
    Check,
    all_of,
    number,
    one_of,
    whole,
)

# Of layers, evaluation batches and seeds: what is larger is a slip, and would end in a lack of
# memory.
_SIZE = whole(1, 2**16)

CHECKS: dict[str, Check] = {
    "seed": whole(0, 2**32 - 1),
    "seeds": _SIZE,
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
    "model.whitening.epsilon": number(1e-8),  # of pixels in [0, 1], which float32 rounds
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

BLOCK_CHECKS: dict[str, Check] = {
    "filters": _SIZE,
    "kernel": _SIZE,
    "padding": one_of("SAME", "VALID"),
    "batch_norm": FLAG,
    "pool": _SIZE,
    "dropout": FRACTION,
    "l2": number(0),
}

# Steps are computed in float32. Smaller numbers become 0 in it, larger ones infinite, and then what
# looks like a learning rate that is too high may be a mixup of 1e-38.
_LEAST, _MOST = 1e-30, 1e30


def missed(check: Check, value: Any) -> str | None:
    """What `value` must be and is not; None if it will do."""
    if not check.test(value):
        return check.expected
    return None if _survives(check, value) else f"{check.expected} in float32"


def _survives(check: Check, value: Any) -> bool:
    """True if a value that passes is one that also passes as the steps see it."""
    if not isinstance(value, float) or value == 0:
        return True
    if not _LEAST <= abs(value) <= _MOST:
        return False
    (rounded,) = struct.unpack("f", struct.pack("f", value))
    return check.test(rounded)
