"""Every key of a config, with its default, its check and its meaning.

The keys of a network are in its own file under `models/`. The checks are from `forms.py`.
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

# ruff: noqa: E501  (each key is one line)
# fmt: off


def _compiles(text: object) -> bool:
    try:
        return isinstance(text, str) and re.compile(text) is not None
    except re.error:
        return False


PATTERN = Check("a regular expression", _compiles)
_ADAM, _SGD = Needs("name", ("adam", "adamw")), Needs("name", ("sgd", "muon"))


def family(name: str) -> Any:
    """Declares the key `name` in the config class of a network family."""
    return key(name, TEXT, "network family: the name of a file in cifar_jax/models")


@dataclasses.dataclass(frozen=True)
class Data:
    """The data set, and where to find it."""

    name: str = key("cifar10", TEXT, '"digits", "folder" for a directory of image files, or any TFDS data set of small images')
    dir: str = key("", TEXT, 'directory of prepared TFDS data, or of "folder"; "": $TFDS_DATA_DIR if set, else the TFDS default', machine=True)
    archive: str = key("", TEXT, 'path of the official CIFAR-10 archive, as .tar.gz or unpacked; "": none', machine=True)
    cache_dir: str = key("", TEXT, 'directory for decoded images; "": cifar_jax in the user\'s cache directory', machine=True)
    download: bool = key(True, FLAG, "download the data set if it is not on this machine", machine=True)
    validation_fraction: float = key(0.15, FRACTION, "fraction of the training images held out for validation; 0: train on all of them")
    train_images: int = key(0, whole(0), "number of training images to use, of those that validation leaves; 0: all of them")
    stratified: bool = key(True, FLAG, "keep the class distribution in validation_fraction and train_images")
    standardize: bool = key(False, FLAG, "standardize each channel by the mean and standard deviation of the training images")
    side: int = key(32, whole(1, 2**10), "side in pixels that the image files of a folder are resized to", needs=Needs("name", ("folder",)))
    resize: int = key(0, whole(0, 2**10), "side in pixels that the devices resize images to for the network, after augmentation; 0: leave them")


@dataclasses.dataclass(frozen=True)
class Augment:
    """Augmentation of the training images. All are off by default."""

    flip: bool = key(False, FLAG, "flip each image horizontally with probability 1/2")
    alternate_flips: bool = key(False, FLAG, "flip each image in every other epoch instead of at random", needs=Needs("flip"))
    crop_padding: int = key(0, whole(0), "pixels to pad each side by, before a random crop to the original size; 0: off")
    crop_fill: str = key("zero", one_of("zero", "reflect"), "fill the padding with zeros, or with a reflection of the image", needs=Needs("crop_padding"))
    brightness: float = key(0.0, FRACTION, "multiply the pixels of each image by a random factor in [1 - brightness, 1 + brightness]; 0: off")
    contrast: float = key(0.0, FRACTION, "the same for the distance of each pixel from the image's mean gray; 0: off")
    cutout: int = key(0, whole(0), "side of a random square that is set to zero, in pixels; 0: off")
    mixup: float = key(0.0, number(0), "alpha of the Beta distribution of the mixing weight; 0: off")
    cutmix: float = key(0.0, number(0), "the same for a rectangle from another image; 0: off. With mixup, each batch gets one of the two")
    trivial: bool = key(False, FLAG, "TrivialAugment: one of 14 operations on each image, at a random strength")
    sides: tuple[int, ...] = key((), all_of("a tuple of sides in pixels", whole(1, 2**10)), "progressive resizing: sides in pixels that the devices resize training images to, each for an equal part of config.epochs; (): they have the size of the test images")


@dataclasses.dataclass(frozen=True)
class Model:
    """The network. Each family adds its own keys."""

    name: str = family("")

    standardizes = False  # whether the network itself standardizes pixels in [0, 1]

    def faults(self) -> Iterator[str]:
        """Yields a line for each contradiction between these values; a family may override this."""
        return iter(())


@dataclasses.dataclass(frozen=True)
class Init:
    """Initial parameters that are not random: trained before, or from the training images."""

    source: str = key("", TEXT, 'where to load parameters from: a workdir, its safetensors export, "imagenet", or published weights (docs/transfer.md); "": nowhere')
    skip: tuple[str, ...] = key((), all_of("a tuple of strings", PATTERN), "parameters not to load: those whose whole path matches one of these", needs=Needs("source"))
    whitening_images: int = key(5000, whole(1), "number of training images that the whitening kernel is computed from")
    whitening_epsilon: float = key(5e-4, number(1e-8), "added to the variance that each whitening filter is normalized by")


@dataclasses.dataclass(frozen=True)
class Rule:
    """Settings for some parameters. For each setting, the last matching rule that has it wins."""

    path: str = key(REQUIRED, PATTERN, 'pattern for the whole path of a parameter, such as "conv2d_0/kernel"')
    rate: float | None = key(None, POSITIVE, "learning rate, relative to the schedule's", factor=True)
    start: float | None = key(None, number(0), "epochs before it begins to train")
    stop: float | None = key(None, POSITIVE, "epochs until it stops training")
    frozen: bool | None = key(None, FLAG, "do not train: no gradient, no optimizer state, no L2")
    l2: float | None = key(None, number(0), "coupled L2: adds l2 * sum(w ** 2) to the objective", factor=True)
    decay: bool | None = key(None, FLAG, "apply optimizer.weight_decay; by default, to kernels only")
    muon: bool | None = key(None, FLAG, "train with Muon; by default, convolution kernels only")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The optimizer: one optax chain, built in optim/chain.py."""

    name: str = key("adam", one_of("adam", "adamw", "sgd", "muon"), "muon trains convolution kernels with Muon, and the rest with SGD")
    learning_rate: float = key(1e-3, POSITIVE, "peak learning rate of the schedule")
    b1: float = key(0.9, FRACTION, "decay of Adam's running mean of gradients", needs=_ADAM)
    b2: float = key(0.999, FRACTION, "decay of Adam's running mean of squared gradients", needs=_ADAM)
    epsilon: float = key(1e-7, POSITIVE, "added to the denominator of Adam's update, as in Keras", needs=_ADAM)
    momentum: float = key(0.9, FRACTION, "momentum of SGD", needs=_SGD)
    nesterov: bool = key(False, FLAG, "use Nesterov momentum in SGD", needs=_SGD)
    muon_momentum: float = key(0.6, FRACTION, "momentum of Muon", needs=Needs("name", ("muon",)))
    l2: float = key(0.0, number(0), "coupled L2 weight of every trained parameter, on top of the L2 of rules", factor=True)
    weight_decay: float = key(0.0, number(0), "decoupled weight decay; by default, of kernels only", needs=Needs("name", ("adamw",)), factor=True)
    gradient_clip: float = key(0.0, number(0), "maximum global norm of the gradient; 0: no clipping")
    ema_decay: float = key(0.0, FRACTION, "decay of the parameter average that is evaluated; 0: evaluate the parameters themselves")
    lookahead_every: int = key(0, whole(0), "steps between lookahead updates; 0: off")
    lookahead_decay: float = key(0.95, FRACTION, "per-step decay of lookahead's slow copy at the end of the run; it rises from 0", needs=Needs("lookahead_every"))
    rules: tuple[Rule, ...] = key((), None, "settings for parameters by path, applied after the network's own rules", maker="base.rule(...)")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The learning-rate schedule."""

    name: str = key("constant", one_of("constant", "linear", "cosine", "one_cycle", "piecewise"), "shape of the schedule after the warm-up")
    warmup_epochs: float = key(0.0, number(0), "length of the linear warm-up in epochs; for one_cycle, 0 means 30 % of the run")
    initial_fraction: float = key(0.0, number(0, 1), "learning rate at the start of the warm-up, as a fraction of the peak", needs=Needs("name", ("constant", "linear", "cosine", "piecewise")))
    boundaries: tuple[float, ...] = key((0.5, 0.75), all_of("a tuple of fractions of config.epochs", BETWEEN), "points of the run at which the learning rate drops", needs=Needs("name", ("piecewise",)))
    factor: float = key(0.1, POSITIVE, "what the learning rate is multiplied by at each boundary", needs=Needs("name", ("piecewise",)), factor=True)
    final_fraction: float = key(0.0, number(0, 1), "learning rate at the end of the run, as a fraction of the peak", needs=Needs("name", ("linear", "cosine", "one_cycle")))


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Reduces the learning rate when the validation loss stalls, on top of the schedule."""

    enabled: bool = key(False, FLAG, "reduce the learning rate when the validation loss stalls")
    factor: float = key(0.5, BETWEEN, "what the learning rate is multiplied by at each reduction", needs=Needs("enabled"))
    patience: int = key(3, whole(1), "epochs without improvement before a reduction", needs=Needs("enabled"))
    min_delta: float = key(1e-4, POSITIVE, "the loss must fall by more than this to count as improved", needs=Needs("enabled"))
    cooldown: int = key(0, whole(0), "epochs to wait after a reduction before patience counts again", needs=Needs("enabled"))
    min_scale: float = key(0.0, number(0, 1), "lower bound on the product of all reductions", needs=Needs("enabled"))


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """When a run stops early, and which epoch is tested."""

    enabled: bool = key(False, FLAG, "stop when the metric no longer improves")
    metric: str = key("validation_loss", one_of("validation_loss", "validation_accuracy"), "metric that must improve", needs=Needs("enabled"))
    patience: int = key(10, whole(1), "epochs without improvement before the run stops", needs=Needs("enabled"))
    min_delta: float = key(0.0, number(0), "the metric must improve by more than this to count as improved", needs=Needs("enabled"))
    restore_best: bool = key(True, FLAG, "test the epoch with the best validation accuracy; False: the last epoch")


@dataclasses.dataclass(frozen=True)
class Eval:
    """How a trained network is evaluated."""

    tta: str = key("none", one_of("none", "flip", "multicrop"), "test-time augmentation; the plain accuracy is reported as well")
    tta_share: float = key(1.0, number(0, 1), "fraction of the images that get it: those with the least confident plain answers", needs=Needs("tta", ("flip", "multicrop")))
    batch_size: int = key(500, SIZE, "images per evaluation batch; the last one is padded, and padding is not scored")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When a run saves checkpoints."""

    every_steps: int = key(0, whole(0), "steps between extra checkpoints within an epoch; 0: only one per epoch")


@dataclasses.dataclass(frozen=True)
class Range:
    """A key that a search chooses. Of blocks that a trial does not have, nothing is chosen."""

    name: str = key(REQUIRED, TEXT, 'the key, such as "optimizer.learning_rate"; "model.blocks" is the number of blocks, and "model.blocks[*].filters" the filters of all of them')
    low: float | None = key(None, number(-1e30, 1e30), "least value")
    high: float | None = key(None, number(-1e30, 1e30), "greatest value")
    step: float | None = key(None, POSITIVE, "distance between the values; by default 1 for integers, and none for other numbers")
    log: bool | None = key(None, FLAG, "choose the logarithm evenly, not the value")
    growth: float | None = key(None, number(1), "of a key with [*]: each block's value is the last one's times a factor from 1 to this, rounded to a multiple of 8")
    choices: tuple[Any, ...] | None = key(None, Check("a tuple of at least one value", lambda v: isinstance(v, tuple | list) and len(v) > 0), "the values to choose from, instead of low and high")


@dataclasses.dataclass(frozen=True)
class Search:
    """How `--mode=search` looks for a better config, and when it stops."""

    space: tuple[Range, ...] = key((), None, "what to choose, in this order", maker="base.choose(...)")
    objectives: tuple[str, ...] = key(("accuracy",), all_of("a tuple of objectives", one_of("accuracy", "multiply_adds", "step_ms")), "validation accuracy, the highest of a trial's epochs; or that and one cost, whose trade-offs are searched")
    sampler: str = key("tpe", one_of("tpe", "random", "nsga2", "evolution"), "how the next trial is chosen")
    pruner: str = key("none", one_of("none", "halving", "hyperband"), "how unpromising trials are stopped before their last epoch; with one objective only")
    trials: int = key(50, whole(1), "trials to train, by all workers together")
    minutes: float = key(0.0, number(0), "minutes after which this worker starts no other trial; 0: no limit")
    max_parameters: int = key(0, whole(0, 2**62), "greatest number of parameters; 0: no limit")
    max_multiply_adds: int = key(0, whole(0, 2**62), "greatest number of multiply-adds of one image's forward pass; 0: no limit")
    max_step_ms: float = key(0.0, number(0), "greatest time of a train step on this machine, in milliseconds; 0: no limit")
    max_minutes: float = key(0.0, number(0), "greatest time of all train steps of a whole training on this machine, in minutes; 0: no limit")
    storage: str = key("", TEXT, 'URL of the database that the workers share; "": an SQLite file in the workdir', machine=True)
    name: str = key("", TEXT, 'name of the study in the storage; "": that of the workdir', machine=True)
    patience: float = key(120.0, number(0), "seconds to try again if the storage is away", machine=True)
    heartbeat: int = key(15, whole(1, 3600), "seconds between two signs of life of a worker; after four without one, another worker goes on with its trial", machine=True)


@dataclasses.dataclass(frozen=True)
class Config:
    """An experiment."""

    seed: int = key(0, whole(0, 2**32 - 1), "determines the split, initial values, batch order, augmentation and dropout")
    seeds: int = key(1, SIZE, "number of runs to train side by side, with consecutive seeds from `seed`")
    epochs: int = key(40, whole(1), "maximum number of epochs; early stopping may end the run sooner")
    batch_size: int = key(128, whole(1), "images per step, over all devices; the last partial batch of an epoch is dropped")
    dtype: str = key("float32", one_of("float32", "bfloat16"), "dtype of computations; parameters stay float32")
    label_smoothing: float = key(0.0, FRACTION, "weight of the uniform distribution in the targets")
    probe: bool = key(False, FLAG, "train the classifier only, on features that the frozen backbone computes once")
    steps_per_dispatch: int = key(0, whole(0), "train steps per call to the device; 0: 1 on CPU, 50 on GPU and TPU")
    wandb: str = key("", one_of("", "online", "offline"), 'log to Weights & Biases as well; "": do not', machine=True)
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
    search: Search = key(Search, None, "")
