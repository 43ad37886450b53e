"""The network of the fastest published trainings: what it computes, and what it refuses."""

import importlib
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from benchmarks import networks
from cifar_jax.errors import UserError
from cifar_jax.kernels.gelu import gelu
from cifar_jax.models import initializers, summary
from cifar_jax.runtime import sharding
from cifar_jax.training import lanes
from configs import base, speedrun94


@pytest.mark.parametrize("channels_out", [3, 8])
def test_dirac_filters_hand_their_channel_on(channels_out: int):
    kernel = initializers.dirac(jax.random.key(0), (3, 3, 4, channels_out))
    x = jax.random.normal(jax.random.key(1), (2, 5, 5, 4))
    layout = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
    count = min(4, channels_out)
    np.testing.assert_allclose(y[..., :count], x[..., :count], atol=1e-6)
    rest = np.abs(np.asarray(kernel[..., count:]))
    assert rest.size == 0 or 0.8 / 6 < rest.max() <= 1 / 6  # 1 / sqrt(fan_in of 36)


@pytest.mark.slow
@pytest.mark.parametrize("residual", [False, True])
def test_small_images_are_refused_and_larger_ones_classified(residual: bool):
    config = base.get_config()
    config.model = base.model("speedrun", widths=(8, 8), residual=residual)
    with pytest.raises(UserError, match="config.model.widths .* 5 pixels"):
        tiny.network(config, (4, 4, 3), 10)
    model = tiny.network(config, (5, 5, 3), 10)
    images = jax.random.uniform(jax.random.key(0), (4, 5, 5, 3))
    variables = model.init(jax.random.key(0), images, train=False)
    logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
    assert logits.shape == (4, 10) and logits.dtype == jnp.float32
    assert np.isfinite(logits).all() and np.ptp(logits, axis=0).max() > 0
    assert set(updated["batch_stats"]) == set(variables["batch_stats"])


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [("speedrun94", 1.97e6, 118.15e6), ("speedrun96", 9.9e6, 452e6)],
)
def test_the_networks_have_the_published_size(name: str, parameters: float, multiply_adds: float):
    config = importlib.import_module(f"configs.{name}").get_config()
    rows = summary.layers(tiny.network(config, (32, 32, 3), 10), (32, 32, 3))
    assert sum(row.parameters for row in rows) == pytest.approx(parameters, rel=0.005)
    assert sum(row.multiply_adds for row in rows) == pytest.approx(multiply_adds, rel=0.002)


def test_gelu_equals_flaxs():
    x = jnp.linspace(-9, 9, 1001)
    ours, theirs = (
        jax.vmap(jax.value_and_grad(function))(x)
        for function in (gelu, lambda x: nn.gelu(x, approximate=False))
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "epoch"), [(250, 0), (500, 0), (500, 7)])
def test_the_library_gets_the_sums_of_batch_norm_whole(batch_size: int, epoch: int):
    """XLA splits a sum of many images into two, unless the library takes it, which is four times
    as fast. Whether it does hangs on how the operations before it are written; from 500 images on,
    those of the loss as well. In the last epoch the stem has stopped training."""
    config = speedrun94.get_config()
    config.model.widths, config.batch_size = (16, 32, 32), batch_size
    with mock.patch.object(sharding, "make_mesh", return_value=tiny.mesh(1)):
        exp = networks.on_noise(tiny.typed(config), batch_size)
    lane = lanes.make_lanes([exp])
    step: Any = lane.dispatch(epoch)
    text = step.compile(exp.initial_state(), lane.arrays, lane.order(0), 1).as_text()
    assert "__ynn_fusion" in text and "f32[8,1,1,32]" not in text
