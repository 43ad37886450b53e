"""A depthwise convolution as a sum of shifted products: fast on CPU, where XLA's own is very slow.

Each channel has a kernel of its own, so the result is one product a tap: k * k passes that the
compiler joins to one loop. Its automatic gradient is slow, so both gradients are written out.
Measurements: docs/log.md.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]  # before and after, of rows and of columns
Strides = tuple[int, int]
_PARTS, _TAPS = 8, 7  # measured: with more of either, the sums no longer fit into registers
Kernel = Float[Array, "k l c"]
Images = Float[Array, "b _ _ c"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(images: Images, kernel: Kernel, strides: Strides, padding: Padding) -> Images:
    """Convolves each channel with its own kernel.

    Args:
      images: `[B, H, W, C]`.
      kernel: `[k, l, C]`, of the dtype of `images`.
      padding: zeros around the image, none of them negative.

    Returns:
      `[B, (H + padding - k) // stride + 1, (W + padding - l) // stride + 1, C]`.
    """
    padded = _padded(images, padding)
    terms = [window * kernel[i, j] for i, j, window in _windows(padded, kernel.shape[:2], strides)]
    return sum(terms[1:], terms[0])


def _forward(
    images: Images, kernel: Kernel, strides: Strides, padding: Padding
) -> tuple[Images, tuple[Images, Kernel]]:
    return depthwise(images, kernel, strides, padding), (images, kernel)


def _backward(
    strides: Strides, padding: Padding, residuals: tuple[Images, Kernel], gradient: Images
) -> tuple[Images, Kernel]:
    images, kernel = residuals
    return (
        _images_gradient(images.shape, kernel, strides, padding, gradient),
        _kernel_gradient(images, kernel.shape, strides, padding, gradient),
    )


depthwise.defvjp(_forward, _backward)


def _padded(images: Images, padding: Padding) -> Images:
    return jnp.pad(images, ((0, 0), *padding, (0, 0)))


def _windows(
    padded: Images, sides: tuple[int, ...], strides: Strides
) -> Iterator[tuple[int, int, Images]]:
    """Yields each tap (i, j) with the pixels that it meets, one for each output."""
    batch, height, width, channels = padded.shape
    rows, columns = (
        (size - side) // stride * stride + 1
        for size, side, stride in zip((height, width), sides, strides, strict=True)
    )
    for i in range(sides[0]):
        for j in range(sides[1]):
            start, end = (0, i, j, 0), (batch, i + rows, j + columns, channels)
            yield i, j, lax.slice(padded, start, end, (1, *strides, 1))


def _images_gradient(
    shape: tuple[int, ...], kernel: Kernel, strides: Strides, padding: Padding, gradient: Images
) -> Images:
    """The depthwise convolution of the dilated gradient with the mirrored kernel."""
    edges = []
    for size, side, stride, (low, _), outputs in zip(
        shape[1:3], kernel.shape[:2], strides, padding, gradient.shape[1:3], strict=True
    ):
        before = side - 1 - low
        after = size - 1 + side - before - ((outputs - 1) * stride + 1)
        edges.append((before, after, stride - 1))
    dilated = lax.pad(gradient, jnp.zeros([], gradient.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
    return depthwise(dilated, kernel[::-1, ::-1], (1, 1), ((0, 0), (0, 0)))


def _kernel_gradient(
    images: Images, shape: tuple[int, ...], strides: Strides, padding: Padding, gradient: Images
) -> Kernel:
    """For each tap, the sum over all outputs of the gradient times the pixel that it met.

    XLA's reduction over all but the last axis is slow. So parts of the batch are added up first,
    for several taps in one loop, and a matrix product with ones adds up the rest.
    """
    padded = _padded(images, padding)
    batch, rows, columns, channels = gradient.shape
    parts = next(n for n in range(min(_PARTS, batch), 0, -1) if batch % n == 0)
    products = [
        (window * gradient).reshape(parts, -1, channels)
        for _, _, window in _windows(padded, shape[:2], strides)
    ]
    ones = jnp.ones((1, batch // parts * rows * columns), gradient.dtype)
    sums = []
    for at in range(0, len(products), _TAPS):
        some = tuple(products[at : at + _TAPS])
        zeros = (jnp.zeros([], gradient.dtype),) * len(some)
        added = lax.reduce(some, zeros, lambda a, b: tuple(map(jnp.add, a, b)), (0,))
        sums += [jnp.dot(ones, part)[0] for part in added]
    return jnp.stack(sums).reshape(shape)
