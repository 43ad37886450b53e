"""Convolution and pooling equal XLA's in value and gradients, also under vmap and sharding."""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cifar_jax.kernels.convolution import conv_general_dilated
from cifar_jax.kernels.pooling import max_pool
from cifar_jax.kernels.unfused import no_borders
from cifar_jax.runtime import compilation, sharding

# (batch, height, width, channels in, channels out, kernel, stride, padding)
SHAPES = [
    (4, 32, 32, 3, 64, 3, 1, "SAME"),
    (2, 16, 16, 64, 128, 3, 1, "SAME"),
    (2, 4, 4, 256, 512, 3, 1, "SAME"),
    (1, 15, 15, 64, 256, 3, 1, "SAME"),
    (2, 7, 9, 256, 256, 3, 1, "SAME"),
    (1, 3, 3, 256, 256, 3, 1, "SAME"),
    (2, 7, 10, 80, 96, 3, 1, "VALID"),
    (1, 3, 3, 96, 80, 3, 1, "VALID"),
    (1, 14, 10, 80, 96, 3, 1, "SAME"),
    (1, 7, 7, 256, 256, 3, 1, "SAME"),
    (2, 5, 13, 96, 80, 3, 1, "SAME"),
    (1, 1, 2, 96, 80, 3, 1, "SAME"),
    (2, 9, 9, 96, 80, 3, 2, "SAME"),
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


def arrays(shape: tuple[int, int, int, int, int, int, int, str], dtype: type = jnp.float32):
    batch, height, width, channels_in, channels_out, kernel, stride, padding = shape
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (batch, height, width, channels_in), dtype)
    w = jax.random.normal(keys[1], (kernel, kernel, channels_in, channels_out), dtype)
    out = jax.eval_shape(functools.partial(call, lax.conv_general_dilated, shape), x, w)
    return x, w, jax.random.normal(keys[2], out.shape, dtype)


def call(
    convolution: Callable[..., Any],
    shape: tuple[int, int, int, int, int, int, int, str],
    x: jax.Array,
    w: jax.Array,
):
    stride, padding = shape[-2:]
    return convolution(x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def value_and_gradients(
    convolution: Callable[..., Any],
    shape: tuple[int, int, int, int, int, int, int, str],
    x: jax.Array,
    w: jax.Array,
    cotangent: jax.Array,
):
    value, pullback = jax.vjp(functools.partial(call, convolution, shape), x, w)
    return value, *pullback(cotangent)


def with_gradients(function: Callable[..., jax.Array], *arrays: jax.Array) -> list[jax.Array]:
    """The value and the gradients of a random sum of its entries, in one program."""
    weights = jax.random.normal(jax.random.key(2), jax.eval_shape(function, *arrays).shape)

    def run(*arrays: jax.Array):
        value, pullback = jax.vjp(function, *arrays)
        return [value, *pullback(weights)]

    return jax.jit(run)(*arrays)


def assert_close(ours: Sequence[jax.Array], expected: Sequence[jax.Array], tolerance: float = 1e-5):
    """Compares relative to the largest entry, since sums of thousands of terms may cancel."""
    for name, a, b in zip(("value", "input", "kernel"), ours, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max(), name


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_gradients_equal_xlas(shape: tuple[int, int, int, int, int, int, int, str]):
    run = [
        jax.jit(functools.partial(value_and_gradients, convolution, shape))(*arrays(shape))
        for convolution in (conv_general_dilated, lax.conv_general_dilated)
    ]
    assert_close(*run)


@pytest.mark.slow
def test_borders_stay_in_the_program_and_change_no_number():
    def program() -> jax.stages.Compiled:
        function = functools.partial(value_and_gradients, conv_general_dilated, shape)
        return (
            jax.jit(lambda x, w, cotangent: function(jnp.sin(x), w, cotangent))
            .lower(*arrays(shape))
            .compile()
        )

    shape = (2, 8, 8, 96, 80, 3, 1, "SAME")
    ours = program()
    with no_borders():
        plain = program()
    calls = [len(re.findall(r" call\(", found.as_text() or "")) for found in (ours, plain)]
    assert calls == [2, 0]  # the patches, and the whole output
    assert_close(ours(*arrays(shape)), plain(*arrays(shape)), 1e-6)


# (batch, height, width, channels, kernel, stride, padding)
DEPTHWISE = [
    (2, 9, 9, 5, 3, 1, "SAME"),
    (2, 9, 9, 5, 3, 2, "SAME"),
    (2, 8, 8, 6, 3, 2, "SAME"),
    (1, 7, 10, 4, 5, 1, "SAME"),
    (1, 7, 10, 4, 5, 2, "SAME"),
    (2, 8, 6, 3, 5, 2, "SAME"),
    (1, 3, 3, 7, 5, 2, "SAME"),
    (1, 1, 1, 7, 5, 1, "SAME"),
    (2, 11, 8, 4, 3, 2, "VALID"),
    (2, 8, 8, 4, 5, 3, "VALID"),
    (2, 8, 8, 4, 3, 2, ((1, 1), (1, 1))),
    (1, 9, 8, 4, 5, 2, ((2, 2), (2, 2))),
    (1, 9, 8, 4, 3, 1, ((4, 0), (0, 3))),
]


@pytest.mark.parametrize("shape", DEPTHWISE, ids=str)
def test_a_depthwise_convolution_equals_xlas_in_value_and_gradients(shape: tuple[Any, ...]):
    batch, height, width, channels, side, stride, padding = shape
    x = jax.random.normal(jax.random.key(0), (batch, height, width, channels))
    w = jax.random.normal(jax.random.key(1), (side, side, 1, channels))
    outcomes = []
    for convolution in (conv_general_dilated, lax.conv_general_dilated):
        run = functools.partial(
            convolution,
            window_strides=(stride, stride),
            padding=padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=channels,
        )
        outcomes.append(with_gradients(run, x, w))
    assert_close(*outcomes)


@pytest.mark.slow
def test_bfloat16_stays_bfloat16_and_is_accurate():
    shape = (4, 8, 8, 96, 80, 3, 1, "SAME")
    ours = value_and_gradients(conv_general_dilated, shape, *arrays(shape, jnp.bfloat16))
    exact = [x.astype(jnp.float32) for x in arrays(shape, jnp.bfloat16)]
    expected = value_and_gradients(lax.conv_general_dilated, shape, *exact)
    assert_close(ours, [x.astype(jnp.bfloat16) for x in expected], 2e-2)


@pytest.mark.slow
def test_vmap_over_kernels_equals_a_loop():
    shape = (2, 8, 8, 96, 80, 3, 1, "SAME")
    x, w, cotangent = arrays(shape)
    kernels = jnp.stack([w, 2 * w, w[::-1]])
    one = functools.partial(value_and_gradients, conv_general_dilated, shape)
    mapped = jax.vmap(one, (None, 0, None))(x, kernels, cotangent)
    looped = [one(x, kernel, cotangent) for kernel in kernels]
    for i, expected in enumerate(looped):
        assert_close([leaf[i] for leaf in mapped], expected)


@pytest.mark.slow
def test_a_batch_sharded_over_eight_devices_gives_the_same_result():
    shape = (16, 7, 7, 96, 80, 3, 1, "SAME")
    x, w, cotangent = arrays(shape)
    run = jax.jit(functools.partial(value_and_gradients, conv_general_dilated, shape))
    mesh = sharding.make_mesh()
    assert mesh.size == 8
    split, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    shared = run(*jax.device_put((x, w, cotangent), (split, whole, split)))
    assert shared[0].sharding.is_equivalent_to(split, 4)
    assert_close(shared, run(x, w, cotangent))


def test_only_the_cpu_replaces_xlas_convolutions():
    """Lowered for a GPU or TPU, value and gradients are three convolutions of XLA."""
    shape = (4, 8, 8, 96, 80, 3, 1, "SAME")
    run = jax.jit(functools.partial(value_and_gradients, conv_general_dilated, shape))
    operations = {}
    for platform in ("cpu", "cuda", "tpu"):
        text = run.trace(*arrays(shape)).lower(lowering_platforms=(platform,)).as_text()
        operations[platform] = "dot_general" in text, text.count("stablehlo.convolution")
    assert operations == {"cpu": (True, 0), "cuda": (False, 3), "tpu": (False, 3)}


def test_only_the_cpu_replaces_xlas_depthwise_convolutions():
    x, w = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 1, 4))
    run = jax.jit(
        lambda x, w: conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=4
        )
    )
    counts = {
        platform: run.trace(x, w)
        .lower(lowering_platforms=(platform,))
        .as_text()
        .count("stablehlo.convolution")
        for platform in ("cpu", "cuda", "tpu")
    }
    assert counts == {"cpu": 0, "cuda": 1, "tpu": 1}


def operations(function: Callable[..., Any], *arguments: Any) -> float:
    """How many floating-point operations the compiled program does."""
    return compilation.jit(function).compile(*arguments).cost_analysis()["flops"]  # pyright: ignore[reportOptionalSubscript]


@pytest.mark.parametrize("channels", [20, 160])  # the second one by Winograd's method
def test_the_first_layer_computes_no_input_gradient(channels: int):
    model = nn.Conv(64, (3, 3), use_bias=False, conv_general_dilated=conv_general_dilated)
    x = jnp.ones((2, 8, 8, channels))
    params = model.init(jax.random.key(0), x)
    kernel, both = (
        operations(jax.grad(lambda p, x: model.apply(p, x).sum(), argnums=by), params, x)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
        for by in (0, (0, 1))
    )
    assert 0 < kernel < 0.6 * both


def test_the_backward_pass_reuses_what_winograd_computed_in_the_forward_pass():
    shape = (2, 8, 8, 96, 80, 3, 1, "SAME")
    x, w, cotangent = arrays(shape)
    run = functools.partial(value_and_gradients, conv_general_dilated, shape)
    forward = operations(functools.partial(call, conv_general_dilated, shape), x, w)
    backward = operations(lambda *arrays: run(*arrays)[1:], x, w, cotangent)
    assert operations(run, x, w, cotangent) < 0.85 * (forward + backward)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (2, 3)])
@pytest.mark.parametrize("window", [2, 3])
def test_pooling_equals_xlas_in_value_and_gradient(size: tuple[int, int], window: int):
    if min(size) < window:
        pytest.skip("no whole window")
    # Few distinct values, so that windows have several maxima; the first one gets the gradient.
    x = jnp.round(jax.random.normal(jax.random.key(0), (3, *size, 5)))
    outputs = []
    for pool in (
        functools.partial(max_pool, window=window),
        lambda x: nn.max_pool(x, (window, window), (window, window)),
    ):
        outputs.append(with_gradients(pool, x))
    for ours, xlas in zip(*outputs, strict=True):
        np.testing.assert_array_equal(ours, xlas)
