"""The convolution equals XLA's, in value and in every gradient, however it is transformed."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cifar_jax import sharding
from cifar_jax.models.convolution import conv_general_dilated

# (batch, height, width, channels in, channels out, kernel, stride, padding)
SHAPES = [
    (4, 32, 32, 3, 64, 3, 1, "SAME"),
    (2, 16, 16, 64, 128, 3, 1, "SAME"),
    (2, 4, 4, 256, 512, 3, 1, "SAME"),
    (4, 32, 32, 3, 32, 3, 1, "VALID"),
    (4, 15, 15, 32, 64, 3, 1, "VALID"),
    (4, 6, 6, 64, 64, 3, 1, "VALID"),
    (1, 7, 9, 5, 6, 3, 1, "SAME"),
    (1, 7, 9, 17, 6, 3, 1, "VALID"),
    (3, 8, 8, 17, 1, 5, 1, "SAME"),
    (3, 9, 8, 1, 7, 2, 1, "SAME"),
    (3, 9, 8, 20, 7, 4, 1, "VALID"),
    (3, 8, 8, 18, 7, 1, 1, "SAME"),
    (3, 9, 9, 17, 6, 3, 2, "SAME"),
    (3, 8, 8, 3, 6, 3, 2, "VALID"),
]


def arrays(shape, dtype=jnp.float32):
    batch, height, width, channels_in, channels_out, kernel, stride, padding = shape
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (batch, height, width, channels_in), dtype)
    w = jax.random.normal(keys[1], (kernel, kernel, channels_in, channels_out), dtype)
    out = jax.eval_shape(functools.partial(call, lax.conv_general_dilated, shape), x, w)
    return x, w, jax.random.normal(keys[2], out.shape, dtype)


def call(convolution, shape, x, w):
    stride, padding = shape[-2:]
    return convolution(x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def value_and_gradients(convolution, shape, x, w, cotangent):
    value, pullback = jax.vjp(functools.partial(call, convolution, shape), x, w)
    return value, *pullback(cotangent)


def assert_close(ours, expected, tolerance=1e-5):
    """Equal relative to the largest entry: sums of thousands of terms of either sign cancel."""
    for name, a, b in zip(("value", "input", "kernel"), ours, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max(), name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_gradients_are_xlas(shape):
    run = [
        jax.jit(functools.partial(value_and_gradients, convolution, shape))(*arrays(shape))
        for convolution in (conv_general_dilated, lax.conv_general_dilated)
    ]
    assert_close(*run)


def test_bfloat16_stays_bfloat16_and_near():
    shape = (4, 8, 8, 32, 16, 3, 1, "SAME")
    ours = value_and_gradients(conv_general_dilated, shape, *arrays(shape, jnp.bfloat16))
    exact = [x.astype(jnp.float32) for x in arrays(shape, jnp.bfloat16)]
    expected = value_and_gradients(lax.conv_general_dilated, shape, *exact)
    assert_close(ours, [x.astype(jnp.bfloat16) for x in expected], 2e-2)


def test_vmap_over_kernels_is_a_loop_over_kernels():
    shape = (2, 8, 8, 20, 6, 3, 1, "SAME")
    x, w, cotangent = arrays(shape)
    kernels = jnp.stack([w, 2 * w, w[::-1]])
    one = functools.partial(value_and_gradients, conv_general_dilated, shape)
    mapped = jax.vmap(one, (None, 0, None))(x, kernels, cotangent)
    looped = [one(x, kernel, cotangent) for kernel in kernels]
    for i, expected in enumerate(looped):
        assert_close([leaf[i] for leaf in mapped], expected)


def test_a_batch_shared_by_eight_devices_gives_the_same():
    shape = (16, 8, 8, 20, 6, 3, 1, "SAME")
    x, w, cotangent = arrays(shape)
    run = jax.jit(functools.partial(value_and_gradients, conv_general_dilated, shape))
    mesh = sharding.make_mesh()
    assert mesh.size == 8
    split, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    shared = run(*jax.device_put((x, w, cotangent), (split, whole, split)))
    assert shared[0].sharding.is_equivalent_to(split, 4)
    assert_close(shared, run(x, w, cotangent))


def test_only_the_cpu_leaves_xlas_gradients():
    """Lowered for a GPU or TPU, the gradients are XLA's convolutions and nothing else."""
    shape = (4, 8, 8, 20, 6, 3, 1, "SAME")
    run = jax.jit(functools.partial(value_and_gradients, conv_general_dilated, shape))
    products = {}
    for platform in ("cpu", "cuda", "tpu"):
        text = run.trace(*arrays(shape)).lower(lowering_platforms=(platform,)).as_text()
        products[platform] = text.count("dot_general"), text.count("stablehlo.convolution")
    assert products["cuda"] == products["tpu"] == (0, 3)
    assert products["cpu"] == (9, 2)


def test_the_first_layer_computes_no_input_gradient():
    model = nn.Conv(8, (3, 3), conv_general_dilated=conv_general_dilated)
    x = jnp.ones((2, 8, 8, 20))
    params = model.init(jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda params: model.apply(params, x).sum()))
    text = gradient.lower(params).compile().as_text()
    assert text.count(" convolution(") == 0  # neither the value nor the input's gradient is used
