"""The pictures of a finished run in TensorBoard: its first batch, and the confusion matrix."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from cifar_jax.report import figures, galleries
from cifar_jax.report.evidence import Run
from cifar_jax.runtime import compilation, distributed, settings, tensorboard
from cifar_jax.runtime import workdir as files
from cifar_jax.training.experiment import Experiment

_SIDE = 8  # images in a row and in a column


def add(run: Run, exp: Experiment) -> None:
    """Adds the pictures at the last step of a run.

    Raises:
      UserError: they cannot be written.
    """
    pictures = {}
    if not (exp.config.probe or distributed.several()):  # features; or all processes would draw
        pictures["first batch, augmented"] = galleries.png(grid(first_batch(exp)))
    if run.result:
        matrix, classes = run.result["confusion_matrix"], exp.dataset.class_names
        pictures["confusion matrix, test images"] = figures.confusion_png(matrix, classes)
    tensorboard.add_images(run.workdir / files.TENSORBOARD, run.rows[-1]["step"], pictures)


@settings.pinned()
def first_batch(exp: Experiment) -> Float32[np.ndarray, "b h w c"]:
    """The first batch that the run trained on, augmented: pixels in [0, 1]."""
    draw = compilation.jit(lambda *arguments: exp.train_step().draw(*arguments).pixels)
    arrays, order = exp.put(exp.train), exp.epoch_order(0)
    pixels = np.asarray(draw(jnp.int32(0), arrays, order, exp.config.seed, exp.statistics))
    mean, std = exp.statistics
    return pixels if mean is None or std is None else pixels * std + mean


def grid(images: Float32[np.ndarray, "b h w c"]) -> UInt8[np.ndarray, "h2 w2 c"]:
    """The first 64 images side by side, eight in a row."""
    height, width, channels = images.shape[1:]
    cells = np.zeros((_SIDE * -(-len(images) // _SIDE), height, width, channels), np.uint8)
    cells[: len(images)] = np.round(255 * images.clip(0, 1))
    cells = cells[: _SIDE * _SIDE].reshape(-1, _SIDE, height, width, channels)
    return cells.transpose(0, 2, 1, 3, 4).reshape(-1, _SIDE * width, channels)
