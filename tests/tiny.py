"""An experiment that a test can afford: fabricated images and a network of a few neurons."""

import pathlib
from typing import Any
from unittest import mock

import jax
import numpy as np
from etils import epath
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from cifar_jax import models
from cifar_jax.config import files
from cifar_jax.config.schema import Config
from cifar_jax.data import sources
from cifar_jax.models.network import Network
from cifar_jax.report import page
from cifar_jax.runtime import sharding
from cifar_jax.training import experiment, run
from configs import base

CLASS_NAMES = ("north", "east", "south", "west")
STEPS_PER_EPOCH = 3
BATCH_SIZE = 16

# Pixel-wise, because XLA compiles that in no time, also inside a loop.
BATCH_NORM_BLOCK = base.conv_block(4, kernel=1, batch_norm=True, pool=4, dropout=0.2, l2=0.01)


def config(overrides: dict[str, Any] | None = None) -> ConfigDict:
    """The default config with a tiny network without convolutions, and `{"a.b": value}`."""
    tiny = base.get_config()
    tiny.epochs = 4
    tiny.batch_size = BATCH_SIZE
    tiny.eval.batch_size = 8
    tiny.model.blocks = ()
    tiny.model.dense = (8,)
    tiny.update_from_flattened_dict(overrides or {})
    return tiny


def typed(config: ConfigDict) -> Config:
    """What a run takes."""
    return files.typed(config, models)


def network(config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int) -> Network:
    """The network of a config."""
    known = typed(config)
    return models.build(known.model, image_shape, num_classes, known.dtype)


def train(config: ConfigDict, workdir: pathlib.Path | epath.Path) -> dict[str, Any]:
    """Trains a config as `main.py` does; returns its result."""
    return run.run(typed(config), epath.Path(workdir), write_report=page.write)


def images_and_labels(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise `[size, 8, 8, 3]` uint8, brighter on the side that is the label's."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 128, (size, 8, 8, 3), np.uint8)
    labels = np.arange(size, dtype=np.int32) % 4
    for image, label in zip(images, labels, strict=True):
        np.rot90(image, label)[:4] += 127  # a view: `image` itself gets brighter
    return images, labels


def dataset() -> sources.Dataset:
    """64 images to train and validate on, 20 to test on."""
    train_images, train_labels = images_and_labels(64)
    test_images, test_labels = images_and_labels(20, seed=1)
    return sources.Dataset(
        "tiny", train_images, train_labels, test_images, test_labels, CLASS_NAMES, "fabricated"
    )


def mesh(devices: int) -> Mesh:
    """A mesh over the first so many devices."""
    return jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )


def build(config: ConfigDict, devices: int = 1) -> experiment.Experiment:
    """`experiment.build` on `dataset()` and the first so many devices."""
    with (
        mock.patch.object(sources, "load", return_value=dataset()),
        mock.patch.object(sharding, "make_mesh", return_value=mesh(devices)),
    ):
        return experiment.build(typed(config))


def build_real(config: ConfigDict) -> experiment.Experiment:
    """`experiment.build` on the data that the config names."""
    return experiment.build(typed(config))
