"""The network of the fastest published trainings: what it computes, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax import models
from cifar_jax.errors import UserError
from cifar_jax.models import initializers
from configs import base


@pytest.mark.parametrize("channels_out", [3, 8])
def test_dirac_filters_hand_their_channel_on(channels_out):
    kernel = initializers.dirac(jax.random.key(0), (3, 3, 4, channels_out))
    x = jax.random.normal(jax.random.key(1), (2, 5, 5, 4))
    layout = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
    count = min(4, channels_out)
    np.testing.assert_allclose(y[..., :count], x[..., :count], atol=1e-6)
    rest = np.abs(np.asarray(kernel[..., count:]))
    assert rest.size == 0 or 0.8 / 6 < rest.max() <= 1 / 6  # 1 / sqrt(fan_in of 36)


def test_small_images_are_refused_and_larger_ones_classified():
    config = base.get_config()
    config.model.name = "speedrun"
    config.model.widths = (8, 8)
    with pytest.raises(UserError, match="config.model.widths .* 13 pixels"):
        models.build(config, (12, 12, 3), 10)
    model = models.build(config, (13, 13, 3), 10)
    images = jax.random.uniform(jax.random.key(0), (4, 13, 13, 3))
    variables = model.init(jax.random.key(0), images, train=False)
    logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
    assert logits.shape == (4, 10) and logits.dtype == jnp.float32
    assert np.isfinite(logits).all() and np.ptp(logits, axis=0).max() > 0
    assert set(updated["batch_stats"]) == set(variables["batch_stats"])
