"""Describes the measured networks as plain lists of layers, which each worker builds."""

import dataclasses
import importlib
from typing import Any

import numpy as np

from cifar_jax import models
from cifar_jax.config import files
from cifar_jax.config.schema import Config
from cifar_jax.data import sources
from cifar_jax.models import cnn, efficientnet_lite, speedrun
from cifar_jax.training import experiment
from configs import base
from tools import flops

IMAGE_SHAPE, CLASSES = (32, 32, 3), 10

# The report's four, and the speedrun's with widths 64, 256, 256.
FROM_SCRATCH = ("model1", "model2", "model3", "final", "speedrun")
NETWORKS = (*FROM_SCRATCH, "transfer_finetune")


def scaled(name: str, width: float) -> Config:
    """The config of a network with `width` times the filters in every convolution, stem aside.

    Raises:
      ValueError: the filters of this network are fixed, and `width` is not 1.
    """
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
        if name == "transfer_finetune":
            config.init.source, config.init.skip = "", ()  # speed does not depend on the weights
            if width != 1:
                raise ValueError(f"the filters of {name} are fixed")
        else:
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

    A layer is `{"kind": ..., arguments}`. "l2" is the weight of its squared kernel in the loss. The
    first `frozen` layers are not trained.
    """
    config = scaled(name, width)
    keys = ("name", "learning_rate", "momentum", "b1", "b2", "epsilon")
    frozen = getattr(config.model, "frozen_blocks", 0)
    return {
        "network": name,
        "batch_size": batch_size or config.batch_size,
        "width": width,
        "side": config.data.resize or IMAGE_SHAPE[0],
        "layers": _LAYERS[type(config.model)](config.model),
        "frozen": frozen and 1 + frozen,  # and the stem
        "optimizer": {key: getattr(config.optimizer, key) for key in keys},
    }


def _conv(filters: int, kernel: int, padding: str = "SAME", **options: Any) -> dict[str, Any]:
    defaults = {"bias": False, "l2": 0.0, "stride": 1, "depthwise": False}
    shape = {"filters": filters, "kernel": kernel, "padding": padding}
    return {"kind": "conv", **shape, **defaults, **options}


def _norm(epsilon: float, scale: bool = True) -> dict[str, Any]:
    return {"kind": "batch_norm", "scale": scale, "epsilon": epsilon}


def _cnn(model: cnn.Config) -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = []
    for block in model.blocks:
        layers.append(_conv(block.filters, block.kernel, block.padding, bias=True, l2=block.l2))
        layers.append({"kind": "relu"})
        if block.batch_norm:
            layers.append(_norm(1e-3))
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
    norm = [_norm(1e-12, scale=False), {"kind": "gelu"}]
    layers = [_conv(24, 2, "VALID", bias=True), {"kind": "gelu"}]
    for filters in model.widths:
        pool = {"kind": "max_pool", "window": 2}
        layers += [_conv(filters, 3), pool, *norm, _conv(filters, 3), *norm]
    return [
        *layers,
        {"kind": "max_pool", "window": 3},
        {"kind": "flatten"},
        {"kind": "dense", "units": CLASSES, "bias": False},
    ]


def _efficientnet_lite(model: efficientnet_lite.Config) -> list[dict[str, Any]]:
    def conv_norm(filters: int, kernel: int, **options: Any) -> list[dict[str, Any]]:
        return [_conv(filters, kernel, **options), _norm(1e-3)]

    relu6 = {"kind": "relu6"}
    layers = [{"kind": "block", "layers": [*conv_norm(32, 3, stride=2), relu6], "residual": False}]
    channels = 32
    for shape in efficientnet_lite.blocks(model.variant):
        wide = shape.expansion * channels
        inner = [*conv_norm(wide, 1), relu6] * (shape.expansion > 1)
        inner += [*conv_norm(wide, shape.side, stride=shape.stride, depthwise=True), relu6]
        inner += conv_norm(shape.filters, 1)
        residual = shape.stride == 1 and shape.filters == channels
        layers.append({"kind": "block", "layers": inner, "residual": residual})
        channels = shape.filters
    return [
        *layers,
        *conv_norm(1280, 1),
        relu6,
        {"kind": "mean"},
        {"kind": "dropout", "rate": model.dropout},
        {"kind": "dense", "units": CLASSES, "bias": True},
    ]


_LAYERS: dict[type, Any] = {
    cnn.Config: _cnn,
    speedrun.Config: _speedrun,
    efficientnet_lite.Config: _efficientnet_lite,
}


def train_flops(name: str) -> int:
    """FLOPs of one image's train step."""
    config = scaled(name, 1.0)
    model = models.build(config.model, IMAGE_SHAPE, CLASSES, resize=config.data.resize)
    return flops.train_flops(model, IMAGE_SHAPE, model.rules())
