"""A convolution that is fast on CPU; elsewhere XLA's own, to the letter.

On CPU, 3x3 kernels of many channels are computed by Winograd's algorithm, value and gradients;
others by XLA's convolution, which is near the machine's matrix-product speed once
`compilation.jit` keeps it. Measurements: docs/log.md.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cifar_jax.kernels import winograd
from cifar_jax.kernels.winograd import Padding

_Residuals = tuple[jax.Array, jax.Array]
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _is_worth_winograd(kernel_shape: Sequence[int]) -> bool:
    """What Winograd saves grows with C_in * C_out, what it costs with C_in + C_out."""
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
    """`jax.lax.conv_general_dilated` as `flax.linen.Conv` calls it, for its argument of this name.

    Args:
      inputs: `[B, H, W, C_in]`.
      kernel: `[kernel_h, kernel_w, C_in, C_out]`, of the inputs' dtype.
      window_strides, padding, options: as for `jax.lax.conv_general_dilated`.

    Returns:
      `[B, H_out, W_out, C_out]` of the inputs' dtype.
    """
    dilated = {*options.get("lhs_dilation", ()), *options.get("rhs_dilation", ())} - {1}
    plain = set(window_strides) == {1} and not dilated
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(inputs.shape[1:3], kernel.shape[:2], window_strides, padding)
    rows, columns = ((low, high) for low, high in padding)
    grouped = options.get("feature_group_count", 1) != 1
    if not plain or grouped or min(*rows, *columns) < 0 or not _is_worth_winograd(kernel.shape):
        return lax.conv_general_dilated(inputs, kernel, window_strides, padding, **options)
    return _convolve(inputs, kernel, (rows, columns), options.get("precision"))


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

    def of_inputs(inputs: jax.Array, kernel: jax.Array, gradient: jax.Array) -> jax.Array:
        return winograd.input_gradient(
            kernel, gradient, padding, (inputs.shape[1], inputs.shape[2])
        )

    def of_kernel(inputs: jax.Array, kernel: jax.Array, gradient: jax.Array) -> jax.Array:
        return winograd.kernel_gradient(inputs, gradient, padding)

    def by_xla(
        argument: int, inputs: jax.Array, kernel: jax.Array, gradient: jax.Array
    ) -> jax.Array:
        convolve = functools.partial(_xla, padding=padding, precision=precision)
        return jax.vjp(convolve, inputs, kernel)[1](gradient)[argument]

    # Two calls, so that one whose result nobody needs is dropped.
    return tuple(
        lax.platform_dependent(
            inputs, kernel, gradient, cpu=_wide(on_cpu), default=functools.partial(by_xla, argument)
        )
        for argument, on_cpu in enumerate((of_inputs, of_kernel))
    )


_convolve.defvjp(_forward, _backward)


def _wide(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`function` computed in at least float32 (Winograd's points are far apart in bfloat16)."""

    def call(*arrays: jax.Array) -> jax.Array:
        dtype = arrays[0].dtype
        wide = jnp.promote_types(dtype, jnp.float32)
        return function(*(x.astype(wide) for x in arrays)).astype(dtype)

    return call
