"""Describes the measured networks as plain lists of layers, which each worker builds."""

import importlib
from typing import Any

from ml_collections import ConfigDict

from cifar_jax import models
from configs import base
from tools import flops

# The report's four, and the speedrun network with widths 64, 256, 256.
NETWORKS = ("model1", "model2", "model3", "final", "speedrun")


def scaled(name: str, width: float) -> ConfigDict:
    """A network's config with `width` times the filters in every convolution except the stem."""
    if name == "speedrun":
        config = base.get_config()
        config.batch_size = 250
        config.model.name = "speedrun"
        config.optimizer.name = "sgd"
        config.optimizer.momentum = 0.85
        config.optimizer.nesterov = True
    else:
        config = importlib.import_module(f"configs.{name}").get_config()
    for block in config.model.blocks:
        block.filters = round(block.filters * width)
    config.model.widths = tuple(round(filters * width) for filters in config.model.widths)
    return config


def job(name: str, batch_size: int = 0, width: float = 1.0) -> dict[str, Any]:
    """What a worker needs to build a network, ready for JSON.

    A layer is `{"kind": ..., arguments}`. "l2" is the weight of its squared kernel in the loss.
    """
    experiment = scaled(name, width)
    layers = _LAYERS[experiment.model.name](experiment.model)
    keys = ("name", "learning_rate", "momentum", "b1", "b2", "epsilon")
    return {
        "network": name,
        "batch_size": batch_size or experiment.batch_size,
        "width": width,
        "layers": layers,
        "optimizer": {key: experiment.optimizer[key] for key in keys},
    }


def _cnn(model: ConfigDict) -> list[dict[str, Any]]:
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
    return [*layers, {"kind": "dense", "units": 10, "bias": True}]


def _speedrun(model: ConfigDict) -> list[dict[str, Any]]:
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
        {"kind": "dense", "units": 10, "bias": False},
    ]


_LAYERS = {"cnn": _cnn, "speedrun": _speedrun}


def train_flops(name: str) -> int:
    """FLOPs of one image's train step."""
    return flops.train_flops(models.build(scaled(name, 1.0), (32, 32, 3), 10), (32, 32, 3))
