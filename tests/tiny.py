"""A tiny experiment for tests: fabricated images and a network with a few units."""

import itertools
import os
import pathlib
import signal
from contextlib import AbstractContextManager
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
from cifar_jax.models import efficientnet_lite
from cifar_jax.models.network import Network
from cifar_jax.report import page
from cifar_jax.runtime import sharding
from cifar_jax.training import experiment, run, steps
from configs import base

CLASS_NAMES = ("north", "east", "south", "west")
STEPS_PER_EPOCH = 3
BATCH_SIZE = 16

# A 1x1 convolution, because XLA compiles it quickly, even inside a loop.
BATCH_NORM_BLOCK = base.conv_block(4, kernel=1, batch_norm=True, pool=4, dropout=0.2, l2=0.01)


def config(overrides: dict[str, Any] | None = None) -> ConfigDict:
    """A config with a tiny network without convolutions, and overrides `{"a.b": value}`."""
    tiny = base.get_config()
    tiny.epochs = 4
    tiny.batch_size = BATCH_SIZE
    tiny.eval.batch_size = 8
    tiny.model.blocks = ()
    tiny.model.dense = (8,)
    tiny.update_from_flattened_dict(overrides or {})
    return tiny


def compass() -> ConfigDict:
    """The config of the run that `conftest.compass` is."""
    return config({"epochs": 1, "data.standardize": True})


def typed(config: ConfigDict) -> Config:
    """The typed form of a config."""
    return files.typed(config, models)


def network(config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int) -> Network:
    """Builds the network of a config."""
    known = typed(config)
    return models.build(known.model, image_shape, num_classes, known.dtype)


def train(
    config: ConfigDict, workdir: pathlib.Path | epath.Path, report: bool = False
) -> dict[str, Any]:
    """Trains a config as `main.py` does, and returns the result; the page is written if asked."""
    write = page.write if report else None
    with two_devices():
        return run.run(typed(config), epath.Path(workdir), write_report=write)


def two_devices() -> AbstractContextManager[Any]:
    """What is built in this context uses two of the eight devices, as `train` does.

    On other devices, sums are added in another order, and their last digits may differ.
    """
    return mock.patch.object(sharding, "make_mesh", return_value=mesh(2))


def few_blocks() -> AbstractContextManager[Any]:
    """Builds EfficientNet-Lite from its first 5 of 16 blocks, which compiles three times faster."""
    return mock.patch.object(efficientnet_lite, "STAGES", efficientnet_lite.STAGES[:3])


def stop_at(step: int) -> AbstractContextManager[Any]:
    """Runs that are trained in this context get SIGTERM while they make this step."""
    make = steps.make_dispatch

    def make_dispatch(train_step: Any, mesh: Mesh) -> steps.Dispatch:
        dispatch, made = make(train_step, mesh), itertools.count(1)

        def signalled(*arguments: Any) -> Any:
            if next(made) == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return dispatch(*arguments)

        return signalled

    return mock.patch.object(steps, "make_dispatch", make_dispatch)


def images_and_labels(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise images and labels: each image is brighter on the side that its label stands for.

    uint8 `[size, 8, 8, 3]` and int32 `[size]` in [0, 4).
    """
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 128, (size, 8, 8, 3), np.uint8)
    labels = np.arange(size, dtype=np.int32) % 4
    for image, label in zip(images, labels, strict=True):
        np.rot90(image, label)[:4] += 127  # a view: `image` itself gets brighter  # pyright: ignore[reportArgumentType, reportCallIssue]
    return images, labels


def dataset() -> sources.Dataset:
    """64 images to train and validate on, 20 to test on."""
    train_images, train_labels = images_and_labels(64)
    test_images, test_labels = images_and_labels(20, seed=1)
    return sources.Dataset(
        "tiny", train_images, train_labels, test_images, test_labels, CLASS_NAMES, "fabricated"
    )


def mesh(devices: int) -> Mesh:
    """A mesh over the first `devices` devices."""
    return jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )


def build(config: ConfigDict, devices: int = 1) -> experiment.Experiment:
    """`experiment.build` with `dataset()` and the first `devices` devices."""
    with (
        mock.patch.object(sources, "load", return_value=dataset()),
        mock.patch.object(sharding, "make_mesh", return_value=mesh(devices)),
    ):
        return experiment.build(typed(config))


def build_real(config: ConfigDict) -> experiment.Experiment:
    """`experiment.build` with the data set of the config."""
    return experiment.build(typed(config))
