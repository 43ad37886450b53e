"""Every key of a config, once: its default, its check and its meaning.

A network's own keys are in its file under `models/`. What a value may be is said in `forms.py`.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from cifar_jax.config.keys import REQUIRED, Needs, key
from cifar_jax.forms import (
    BETWEEN,
    FLAG,
    FRACTION,
    POSITIVE,
    SIZE,
    TEXT,
    Check,
    all_of,
    number,
    one_of,
    whole,
)

# ruff: noqa: E501  (a key stands on one line)
# fmt: off


def _compiles(text: object) -> bool:
    try:
        return isinstance(text, str) and re.compile(text) is not None
    except re.error:
        return False


PATTERN = Check("a regular expression", _compiles)
_ADAM, _SGD = Needs("name", ("adam", "adamw")), Needs("name", ("sgd", "muon"))


def family(name: str) -> Any:
    """The field `name` of a family's dataclass."""
    return key(name, TEXT, "the family: a file under cifar_jax/models")


@dataclasses.dataclass(frozen=True)
class Data:
    """Which images, and where they are."""

    name: str = key("cifar10", TEXT, '"digits", or any TFDS set of small images')
    dir: str = key("", TEXT, 'a prepared TFDS directory; "": TFDS_DATA_DIR, else TFDS\' default', machine=True)
    archive: str = key("", TEXT, "the official CIFAR-10 archive, .tar.gz or unpacked", machine=True)
    cache_dir: str = key("", TEXT, 'for decoded arrays; "": cifar_jax in the user\'s cache directory', machine=True)
    download: bool = key(True, FLAG, "download the data if this machine does not have them", machine=True)
    validation_fraction: float = key(0.15, FRACTION, "of the training images; 0: train on all of them")
    stratified: bool = key(True, FLAG, "split so that both parts have the same class distribution", needs=Needs("validation_fraction"))
    standardize: bool = key(False, FLAG, "by the training images' mean and standard deviation of each channel")


@dataclasses.dataclass(frozen=True)
class Augment:
    """How training images vary. Each is off by default."""

    flip: bool = key(False, FLAG, "mirror each image with probability 1/2")
    alternate_flips: bool = key(False, FLAG, "mirror each image in every other epoch instead", needs=Needs("flip"))
    crop_padding: int = key(0, whole(0), "pad by so many pixels, then crop at a random offset")
    crop_fill: str = key("zero", one_of("zero", "reflect"), "what the padding holds", needs=Needs("crop_padding"))
    cutout: int = key(0, whole(0), "side of a random square that is set to zero, in pixels")
    mixup: float = key(0.0, number(0), "alpha of the Beta distribution that mixing weights are drawn from")


@dataclasses.dataclass(frozen=True)
class Model:
    """The network. Each family adds its own keys."""

    name: str = family("")

    def faults(self) -> Iterator[str]:
        """What in these values contradicts each other, a line each; a family may have some."""
        return iter(())


@dataclasses.dataclass(frozen=True)
class Init:
    """Where the initial values of the parameters come from, besides the seed."""

    workdir: str = key("", TEXT, 'a trained run, or its safetensors export, to start from; "": nothing')
    skip: tuple[str, ...] = key((), all_of("a tuple of regular expressions", PATTERN), "paths that keep fresh values; the whole path must match", needs=Needs("workdir"))
    whitening_images: int = key(5000, whole(1), "training images that a whitening stem is computed from")
    whitening_epsilon: float = key(5e-4, number(1e-8), "added to the variances that a whitening stem divides by")


@dataclasses.dataclass(frozen=True)
class Rule:
    """What sets some parameters apart. The last rule that matches and says something decides."""

    path: str = key(REQUIRED, PATTERN, 'which: the whole path must match, such as "conv2d_0/kernel"')
    rate: float | None = key(None, POSITIVE, "learning rate, relative to the schedule's", factor=True)
    frozen: bool | None = key(None, FLAG, "not trained: no gradient, no optimizer state, no L2")
    l2: float | None = key(None, number(0), "weight of the squared parameter in the objective (coupled)", factor=True)
    decay: bool | None = key(None, FLAG, "shrunk by optimizer.weight_decay; by default kernels are")
    muon: bool | None = key(None, FLAG, "trained by Muon; by default convolution kernels are")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """From gradients to updates, one optax chain: optim/chain.py."""

    name: str = key("adam", one_of("adam", "adamw", "sgd", "muon"), "muon trains convolutions, and SGD with momentum the rest")
    learning_rate: float = key(1e-3, POSITIVE, "the schedule's peak")
    b1: float = key(0.9, FRACTION, "decay of Adam's mean of gradients", needs=_ADAM)
    b2: float = key(0.999, FRACTION, "decay of Adam's mean of squared gradients", needs=_ADAM)
    epsilon: float = key(1e-7, POSITIVE, "added to Adam's root, as Keras does", needs=_ADAM)
    momentum: float = key(0.9, FRACTION, "of SGD", needs=_SGD)
    nesterov: bool = key(False, FLAG, "of SGD", needs=_SGD)
    muon_momentum: float = key(0.6, FRACTION, "of Muon", needs=Needs("name", ("muon",)))
    l2: float = key(0.0, number(0), "coupled; applies to every trained parameter, on top of the L2 of rules", factor=True)
    weight_decay: float = key(0.0, number(0), "decoupled, of kernels", needs=Needs("name", ("adamw",)), factor=True)
    gradient_clip: float = key(0.0, number(0), "largest global norm of the gradient; 0: no limit")
    ema_decay: float = key(0.0, FRACTION, "evaluate a moving average of the parameters; 0: off")
    lookahead_every: int = key(0, whole(0), "steps between meetings with a slow copy; 0: off")
    lookahead_decay: float = key(0.95, FRACTION, "of the slow copy, per step, at the end of the run", needs=Needs("lookahead_every"))
    rules: tuple[Rule, ...] = key((), None, "what sets parameters apart, after the network's own rules", maker="base.rule(...)")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The learning rate over the run."""

    name: str = key("constant", one_of("constant", "linear", "cosine", "one_cycle", "piecewise"), "its shape after the warm-up")
    warmup_epochs: float = key(0.0, number(0), "of a linear rise to the peak")
    initial_fraction: float = key(0.0, number(0, 1), "where the rise begins, as a fraction of the peak", needs=Needs("name", ("constant", "linear", "cosine", "piecewise")))
    boundaries: tuple[float, ...] = key((0.5, 0.75), all_of("a tuple of fractions of config.epochs", BETWEEN), "where the rate drops", needs=Needs("name", ("piecewise",)))
    factor: float = key(0.1, POSITIVE, "that the rate is multiplied by at each boundary", needs=Needs("name", ("piecewise",)), factor=True)
    final_fraction: float = key(0.0, number(0, 1), "where it ends, as a fraction of the peak", needs=Needs("name", ("linear", "cosine", "one_cycle")))


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Lowers the learning rate when the validation loss stalls, on top of the schedule."""

    enabled: bool = key(False, FLAG, "on or off")
    factor: float = key(0.5, BETWEEN, "that the rate is multiplied by", needs=Needs("enabled"))
    patience: int = key(3, whole(1), "epochs without improvement", needs=Needs("enabled"))
    min_delta: float = key(1e-4, POSITIVE, "of the loss: less is no improvement", needs=Needs("enabled"))
    cooldown: int = key(0, whole(0), "epochs after a reduction that do not count", needs=Needs("enabled"))
    min_scale: float = key(0.0, number(0, 1), "the least product of all reductions", needs=Needs("enabled"))


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Ends the run when the validation stalls, and which epoch is tested."""

    enabled: bool = key(False, FLAG, "on or off")
    metric: str = key("validation_loss", one_of("validation_loss", "validation_accuracy"), "what must improve", needs=Needs("enabled"))
    patience: int = key(10, whole(1), "epochs without improvement", needs=Needs("enabled"))
    min_delta: float = key(0.0, number(0), "of the metric: less is no improvement", needs=Needs("enabled"))
    restore_best: bool = key(True, FLAG, "test the epoch of the best validation accuracy; False: the last one")


@dataclasses.dataclass(frozen=True)
class Eval:
    """How a trained network is evaluated."""

    tta: str = key("none", one_of("none", "flip", "multicrop"), "test-time augmentation, reported beside the plain accuracy")
    batch_size: int = key(500, SIZE, "the last batch is padded; the padding does not count")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When a run saves."""

    every_steps: int = key(0, whole(0), "besides one checkpoint an epoch; 0: none")


@dataclasses.dataclass(frozen=True)
class Config:
    """An experiment."""

    seed: int = key(0, whole(0, 2**32 - 1), "decides split, initial values, batch order, augmentation, dropout")
    seeds: int = key(1, SIZE, "more than 1: so many runs side by side, from `seed` on")
    epochs: int = key(40, whole(1), "at most; early stopping may end a run before")
    batch_size: int = key(128, whole(1), "over all devices; an epoch drops the last partial batch")
    dtype: str = key("float32", one_of("float32", "bfloat16"), "of computations; parameters stay float32")
    label_smoothing: float = key(0.0, FRACTION, "weight of the uniform distribution in the targets")
    steps_per_dispatch: int = key(0, whole(0), "train steps in one call; 0: 1 on CPU, 50 on GPU and TPU")
    profile: bool = key(False, FLAG, "write a JAX profiler trace of a few steps into the workdir", machine=True)
    data: Data = key(Data, None, "")
    augment: Augment = key(Augment, None, "")
    model: Model = key(Model, None, "")
    init: Init = key(Init, None, "")
    optimizer: Optimizer = key(Optimizer, None, "")
    schedule: Schedule = key(Schedule, None, "")
    plateau: Plateau = key(Plateau, None, "")
    early_stopping: EarlyStopping = key(EarlyStopping, None, "")
    eval: Eval = key(Eval, None, "")
    checkpoint: Checkpoint = key(Checkpoint, None, "")
