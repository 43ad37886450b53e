"""A convolution that is fast on CPU; elsewhere XLA's own, to the letter.

On CPU, XLA's gradient convolutions run at a third of the speed of a matrix product, and its
convolutions of few channels at less. So on CPU the convolution of stride 1 is written as matrix
products, in one of three forms; `_form` chooses by shape, from measurements (docs/log.md).
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cifar_jax.models import winograd
from cifar_jax.models.winograd import Padding

_LAYOUT = ("NHWC", "HWIO", "NHWC")


class _Form(NamedTuple):
    value: Callable  # (inputs, kernel, padding)
    kernel_gradient: Callable  # (inputs, gradient, padding)
    input_gradient: Callable  # (kernel, gradient, padding, (height, width) of the inputs)


def _form(kernel_shape: Sequence[int]) -> _Form:
    """The fastest form for a kernel `[rows, columns, C_in, C_out]`."""
    rows, columns, channels_in, _ = kernel_shape
    if channels_in <= 16:
        return _IM2COL
    return _WINOGRAD if rows == columns == 3 else _BY_TAPS


def conv_general_dilated(
    inputs: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options,
) -> jax.Array:
    """`jax.lax.conv_general_dilated` as `flax.linen.Conv` calls it, for its argument of this name.

    Args:
      inputs: `[B, H, W, C_in]`.
      kernel: `[kernel_h, kernel_w, C_in, C_out]`, of the inputs' dtype.
      window_strides, padding, options: as for `jax.lax.conv_general_dilated`. Strides, dilations
        and groups other than 1 are XLA's on every backend.

    Returns:
      `[B, H_out, W_out, C_out]` of the inputs' dtype; computed in at least float32 on CPU.
    """
    dilated = {*options.get("lhs_dilation", ()), *options.get("rhs_dilation", ())} - {1}
    if set(window_strides) != {1} or dilated or options.get("feature_group_count", 1) != 1:
        return lax.conv_general_dilated(inputs, kernel, window_strides, padding, **options)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(inputs.shape[1:3], kernel.shape[:2], (1, 1), padding)
    rows, columns = map(tuple, padding)
    return _convolve(inputs, kernel, (rows, columns), options.get("precision"))


def _xla(inputs, kernel, padding, precision=None):
    return lax.conv_general_dilated(
        inputs, kernel, (1, 1), padding, dimension_numbers=_LAYOUT, precision=precision
    )


def _wide(on_cpu: Callable, dtype) -> Callable:
    """`on_cpu` computed in at least float32, its result in `dtype`."""
    wide = jnp.promote_types(dtype, jnp.float32)

    def call(*arrays):
        return on_cpu(*(x.astype(wide) for x in arrays)).astype(dtype)

    return call


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(inputs, kernel, padding: Padding, precision):
    form = _form(kernel.shape)
    return lax.platform_dependent(
        inputs,
        kernel,
        cpu=_wide(functools.partial(form.value, padding=padding), inputs.dtype),
        default=functools.partial(_xla, padding=padding, precision=precision),
    )


def _forward(inputs, kernel, padding, precision):
    return _convolve(inputs, kernel, padding, precision), (inputs, kernel)


def _backward(padding, precision, residuals, gradient):
    inputs, kernel = residuals
    form, size = _form(kernel.shape), inputs.shape[1:3]

    def by_xla(argument, inputs, kernel, gradient):
        convolve = functools.partial(_xla, padding=padding, precision=precision)
        return jax.vjp(convolve, inputs, kernel)[1](gradient)[argument]

    def of_inputs(inputs, kernel, gradient):
        return form.input_gradient(kernel, gradient, padding, size)

    def of_kernel(inputs, kernel, gradient):
        return form.kernel_gradient(inputs, gradient, padding)

    # Two calls, so that the one whose result nobody needs (the first layer's input) is dropped.
    return tuple(
        lax.platform_dependent(
            inputs,
            kernel,
            gradient,
            cpu=_wide(on_cpu, inputs.dtype),
            default=functools.partial(by_xla, argument),
        )
        for argument, on_cpu in enumerate((of_inputs, of_kernel))
    )


_convolve.defvjp(_forward, _backward)


def _input_gradient(kernel, gradient, padding: Padding, size):
    """Full correlation of `gradient` with the flipped kernel, channels swapped."""
    del size
    sizes = zip(kernel.shape[:2], padding, strict=True)
    full = tuple((n - 1 - low, n - 1 - high) for n, (low, high) in sizes)
    return _xla(gradient, kernel[::-1, ::-1].swapaxes(2, 3), full)


def _views(inputs, gradient_size, padding: Padding):
    """The inputs as each tap of the kernel sees them: `{(row, column): [B, H_out, W_out, C]}`."""
    height, width = gradient_size
    # Not jnp.pad: a negative padding (VALID's complement) must crop.
    padded = lax.pad(
        inputs, jnp.zeros([], inputs.dtype), [(0, 0, 0), *((*p, 0) for p in padding), (0, 0, 0)]
    )
    return [
        [
            padded[:, row : row + height, column : column + width]
            for column in range(padded.shape[2] - width + 1)
        ]
        for row in range(padded.shape[1] - height + 1)
    ]


def _kernel_gradient_by_taps(inputs, gradient, padding: Padding):
    """For each tap, the product of the input as that tap saw it with `gradient`."""
    products = [
        [jnp.einsum("bhwc,bhwk->ck", view, gradient) for view in row]
        for row in _views(inputs, gradient.shape[1:3], padding)
    ]
    return jnp.stack([jnp.stack(row) for row in products])


def _columns(inputs, kernel_size, padding: Padding):
    """im2col: `[B, H_out, W_out, kernel_h * kernel_w * C_in]`."""
    size = [
        n + sum(p) - k + 1
        for n, p, k in zip(inputs.shape[1:3], padding, kernel_size, strict=True)
    ]
    views = _views(inputs, size, padding)
    return jnp.concatenate([view for row in views for view in row], axis=-1)


def _im2col_value(inputs, kernel, padding: Padding):
    columns = _columns(inputs, kernel.shape[:2], padding)
    return jnp.matmul(columns, kernel.reshape(-1, kernel.shape[-1]))


def _im2col_kernel_gradient(inputs, gradient, padding: Padding):
    size = [
        n + sum(p) - g + 1
        for n, p, g in zip(inputs.shape[1:3], padding, gradient.shape[1:3], strict=True)
    ]
    columns = _columns(inputs, size, padding)
    product = jnp.einsum("bhwc,bhwk->ck", columns, gradient)
    return product.reshape(*size, inputs.shape[-1], gradient.shape[-1])


_IM2COL = _Form(_im2col_value, _im2col_kernel_gradient, _input_gradient)
_BY_TAPS = _Form(_xla, _kernel_gradient_by_taps, _input_gradient)
_WINOGRAD = _Form(winograd.value, winograd.kernel_gradient, winograd.input_gradient)
