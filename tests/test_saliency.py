"""Saliency: correct where the gradient is known, and available for every network."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from etils import epath

from cifar_jax.evaluation import saliency
from cifar_jax.evaluation.trained import Trained
from configs import base

SPEEDRUN = {"model": base.model("speedrun", widths=(4,), whitening=True)}
CONVOLUTIONAL = {"model.blocks": (base.conv_block(4, batch_norm=True, pool=2),)}


def network(overrides: dict[str, Any] | None = None) -> Trained:
    """A network before training."""
    experiment = tiny.build(tiny.config(overrides))
    return Trained(
        workdir=epath.Path("nowhere"),
        config=experiment.config,
        epoch=1,
        model=experiment.model,
        variables=jax.device_get(experiment.initial_state().variables()),
        image_shape=(8, 8, 3),
        data_shape=(8, 8, 3),
        class_names=tiny.CLASS_NAMES,
        statistics=experiment.statistics,
    )


@pytest.fixture
def image():
    return tiny.images_and_labels(1)[0][0]


def test_the_map_of_a_linear_network_is_its_weights(image: np.ndarray):
    """The gradient is the same everywhere, so the noise makes no difference."""
    linear = network({"model.dense": (), "data.standardize": True})
    mean, std = linear.statistics
    linear = dataclasses.replace(linear, statistics=(mean, std * np.float32([1, 2, 4])))  # pyright: ignore[reportArgumentType, reportOptionalOperand]
    kernel = linear.variables["params"]["head"]["kernel"].reshape(8, 8, 3, 4)
    explain = saliency.make(linear)
    for label in range(4):
        weights = abs(kernel[..., label] / linear.statistics[1]).max(axis=-1)
        expected = np.clip(weights / np.percentile(weights, 99), 0, 1)
        np.testing.assert_allclose(explain(image, label), expected, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides", [{}, CONVOLUTIONAL, SPEEDRUN, {**SPEEDRUN, "dtype": "bfloat16"}]
)
def test_every_network_has_a_map(image: np.ndarray, overrides: dict[str, Any]):
    explain = saliency.make(network(overrides))
    mask = explain(image, 2)
    assert mask.shape == (8, 8) and mask.dtype == np.float32
    assert mask.min() >= 0 and mask.max() == 1 and mask.std() > 0
    np.testing.assert_array_equal(explain(image, 2), mask)  # the noise is fixed
    assert not np.array_equal(explain(image, 3), mask)


def test_a_constant_network_has_an_empty_map(image: np.ndarray):
    constant = network()
    constant = dataclasses.replace(
        constant, variables=jax.tree.map(np.zeros_like, constant.variables)
    )
    assert not saliency.make(constant)(image, 0).any()
