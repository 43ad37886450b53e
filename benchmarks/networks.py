"""Describes the measured networks as plain lists of layers, which each worker builds."""

import dataclasses
import importlib
from typing import Any

import numpy as np

from cifar_jax import models
from cifar_jax.config import files
from cifar_jax.config.schema import Config
from cifar_jax.data import sources
from cifar_jax.models import cnn, speedrun
from cifar_jax.training import experiment
from configs import base
from tools import flops

IMAGE_SHAPE, CLASSES = (32, 32, 3), 10

# The report's four, and the speedrun's with widths 64, 256, 256.
NETWORKS = ("model1", "model2", "model3", "final", "speedrun")


def scaled(name: str, width: float) -> Config:
    """The config of a network with `width` times the filters in every convolution, stem aside."""
    if name == "speedrun":
        config = base.get_config()
        config.batch_size = 250
        config.model = base.model("speedrun")
        config.model.widths = tuple(round(filters * width) for filters in config.model.widths)
        config.optimizer.name = "sgd"
        config.optimizer.momentum = 0.85
        config.optimizer.nesterov = True
    else:
        config = importlib.import_module(f"configs.{name}").get_config()
        for block in config.model.blocks:
            block.filters = round(block.filters * width)
    return files.typed(config, models)


def on_noise(config: Config, images: int, seed: int = 0) -> experiment.Experiment:
    """The experiment of a config on so many random images, all of them to train on."""
    rng = np.random.default_rng(seed)
    data = dataclasses.replace(config.data, validation_fraction=0.0, standardize=False)
    dataset = sources.Dataset(
        name="noise",
        train_images=rng.integers(0, 256, (images, *IMAGE_SHAPE), np.uint8),
        train_labels=rng.integers(0, CLASSES, images, np.int32),
        test_images=np.zeros((1, *IMAGE_SHAPE), np.uint8),
        test_labels=np.zeros(1, np.int32),
        class_names=tuple(f"class {i}" for i in range(CLASSES)),
        source="random numbers",
    )
    return experiment.build(dataclasses.replace(config, data=data), dataset)


def job(name: str, batch_size: int = 0, width: float = 1.0) -> dict[str, Any]:
    """What a worker needs to build a network, ready for JSON.

    A layer is `{"kind": ..., arguments}`. "l2" is the weight of its squared kernel in the loss.
    """
    config = scaled(name, width)
    keys = ("name", "learning_rate", "momentum", "b1", "b2", "epsilon")
    return {
        "network": name,
        "batch_size": batch_size or config.batch_size,
        "width": width,
        "layers": _LAYERS[type(config.model)](config.model),
        "optimizer": {key: getattr(config.optimizer, key) for key in keys},
    }


def _cnn(model: cnn.Config) -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = []
    for block in model.blocks:
        layers.append(
            {
                "kind": "conv",
                "filters": block.filters,
                "kernel": block.kernel,
                "padding": block.padding,
                "bias": True,
                "l2": block.l2,
            }
        )
        layers.append({"kind": "relu"})
        if block.batch_norm:
            layers.append({"kind": "batch_norm", "scale": True, "epsilon": 1e-3})
        if block.pool > 1:
            layers.append({"kind": "max_pool", "window": block.pool})
        if block.dropout:
            layers.append({"kind": "dropout", "rate": block.dropout})
    layers.append({"kind": "flatten"})
    for units in model.dense:
        layers += [{"kind": "dense", "units": units, "bias": True}, {"kind": "relu"}]
        if model.dense_dropout:
            layers.append({"kind": "dropout", "rate": model.dense_dropout})
    return [*layers, {"kind": "dense", "units": CLASSES, "bias": True}]


def _speedrun(model: speedrun.Config) -> list[dict[str, Any]]:
    def conv(filters: int) -> dict[str, Any]:
        same = {"kernel": 3, "padding": "SAME", "bias": False, "l2": 0.0}
        return {"kind": "conv", "filters": filters, **same}

    norm = [{"kind": "batch_norm", "scale": False, "epsilon": 1e-12}, {"kind": "gelu"}]
    layers: list[dict[str, Any]] = [
        {"kind": "conv", "filters": 24, "kernel": 2, "padding": "VALID", "bias": True, "l2": 0.0},
        {"kind": "gelu"},
    ]
    for filters in model.widths:
        layers += [conv(filters), {"kind": "max_pool", "window": 2}, *norm, conv(filters), *norm]
    return [
        *layers,
        {"kind": "max_pool", "window": 3},
        {"kind": "flatten"},
        {"kind": "dense", "units": CLASSES, "bias": False},
    ]


_LAYERS: dict[type, Any] = {cnn.Config: _cnn, speedrun.Config: _speedrun}


def train_flops(name: str) -> int:
    """FLOPs of one image's train step."""
    model = models.build(scaled(name, 1.0).model, IMAGE_SHAPE, CLASSES)
    return flops.train_flops(model, IMAGE_SHAPE)
