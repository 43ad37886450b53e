"""A convolution that is fast on CPU; on other devices it is exactly XLA's.

On CPU, 3x3 convolutions with many channels and their gradients use Winograd's algorithm, and those
with one kernel per channel are sums of shifted products. All others use XLA's convolution, which
runs almost as fast as a matrix product if the program is compiled by `compilation.jit`.
Measurements: docs/log.md.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cifar_jax.kernels import winograd
from cifar_jax.kernels.depthwise import depthwise
from cifar_jax.kernels.winograd import Padding

_Residuals = tuple[jax.Array, jax.Array]
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _is_worth_winograd(kernel_shape: Sequence[int]) -> bool:
    """Whether Winograd is faster: it saves work ~ C_in * C_out and costs work ~ C_in + C_out."""
    rows, columns, channels_in, channels_out = kernel_shape
    many = channels_in * channels_out >= 40 * (channels_in + channels_out)
    return rows == columns == 3 and many


def conv_general_dilated(
    inputs: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> jax.Array:
    """Replaces `jax.lax.conv_general_dilated`; pass it to `flax.linen.Conv` under this name.

    Args:
      inputs: `[B, H, W, C_in]`, a float dtype.
      kernel: `[kernel_h, kernel_w, C_in, C_out]`, same dtype as `inputs`.
      window_strides, padding, options: as for `jax.lax.conv_general_dilated`.

    Returns:
      `[B, H_out, W_out, C_out]`, same dtype as `inputs`.
    """
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(inputs.shape[1:3], kernel.shape[:2], window_strides, padding)
    rows, columns = ((int(low), int(high)) for low, high in padding)
    row_stride, column_stride = window_strides
    xla = functools.partial(
        lax.conv_general_dilated, window_strides=window_strides, padding=padding, **options
    )
    dilated = {*options.get("lhs_dilation", ()), *options.get("rhs_dilation", ())} - {1}
    groups = options.get("feature_group_count", 1)
    if dilated or min(*rows, *columns) < 0:
        return xla(inputs, kernel)
    if 1 < groups == inputs.shape[-1] == kernel.shape[-1]:
        return lax.platform_dependent(
            inputs,
            kernel,
            cpu=lambda inputs, kernel: depthwise(
                inputs, kernel[:, :, 0], (row_stride, column_stride), (rows, columns)
            ),
            default=xla,
        )
    if groups == row_stride == column_stride == 1 and kernel.shape[:2] == (1, 1):
        return lax.platform_dependent(inputs, kernel, cpu=_pointwise, default=xla)
    if groups == row_stride == column_stride == 1 and _is_worth_winograd(kernel.shape):
        return _convolve(inputs, kernel, (rows, columns), options.get("precision"))
    return xla(inputs, kernel)


def _pointwise(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 1x1 convolution as a product of two matrices, so that its kernel's gradient is one, too."""
    pixels = inputs.reshape(-1, inputs.shape[-1])
    return (pixels @ kernel[0, 0]).reshape(*inputs.shape[:-1], kernel.shape[-1])


def _xla(
    inputs: jax.Array, kernel: jax.Array, padding: Padding, precision: lax.PrecisionLike
) -> jax.Array:
    return lax.conv_general_dilated(
        inputs, kernel, (1, 1), padding, dimension_numbers=_LAYOUT, precision=precision
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(
    inputs: jax.Array, kernel: jax.Array, padding: Padding, precision: lax.PrecisionLike
) -> jax.Array:
    return lax.platform_dependent(
        inputs,
        kernel,
        cpu=_wide(functools.partial(winograd.value, padding=padding)),
        default=functools.partial(_xla, padding=padding, precision=precision),
    )


def _forward(
    inputs: jax.Array, kernel: jax.Array, padding: Padding, precision: lax.PrecisionLike
) -> tuple[jax.Array, _Residuals]:
    return _convolve(inputs, kernel, padding, precision), (inputs, kernel)


def _backward(
    padding: Padding, precision: lax.PrecisionLike, residuals: _Residuals, gradient: jax.Array
) -> tuple[jax.Array, ...]:
    inputs, kernel = residuals

    def input_gradient(inputs: jax.Array, kernel: jax.Array, gradient: jax.Array) -> jax.Array:
        return winograd.input_gradient(
            kernel, gradient, padding, (inputs.shape[1], inputs.shape[2])
        )

    def kernel_gradient(inputs: jax.Array, kernel: jax.Array, gradient: jax.Array) -> jax.Array:
        return winograd.kernel_gradient(inputs, gradient, padding)

    def xla_gradient(
        argument: int, inputs: jax.Array, kernel: jax.Array, gradient: jax.Array
    ) -> jax.Array:
        convolve = functools.partial(_xla, padding=padding, precision=precision)
        return jax.vjp(convolve, inputs, kernel)[1](gradient)[argument]

    # Two calls, so that the compiler can drop a gradient that is not used.
    return tuple(
        lax.platform_dependent(
            inputs,
            kernel,
            gradient,
            cpu=_wide(on_cpu),
            default=functools.partial(xla_gradient, argument),
        )
        for argument, on_cpu in enumerate((input_gradient, kernel_gradient))
    )


_convolve.defvjp(_forward, _backward)


def _wide(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Runs `function` in at least float32: Winograd's algorithm is too inexact in bfloat16."""

    def call(*arrays: jax.Array) -> jax.Array:
        dtype = arrays[0].dtype
        wide = jnp.promote_types(dtype, jnp.float32)
        return function(*(x.astype(wide) for x in arrays)).astype(dtype)

    return call
