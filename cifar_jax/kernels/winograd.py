"""Winograd's convolution F(m x m, 3x3), written as matrix products.

Each output tile of m x m pixels depends on an input patch of m + 2 pixels a side. Patches and
kernel are transformed to (m + 2)^2 points, where the convolution needs one multiplication per
point: with tiles of 4x4, 36 instead of 16 * 9, a quarter (Winograd 1980; Lavin and Gray 2016). In
one dimension a tile is `A' [(G kernel) * (B' patch)]`; in two dimensions, the matrices are replaced
by their Kronecker products. So the algorithm is a product with a constant matrix for each of
patches, kernel and tiles, and (m + 2)^2 products of `[tiles, C_in] @ [C_in, C_out]` in between. The
constant matrices are sparse, but the loops that XLA compiles for sparse code are slower than these
dense products.

Each axis has tiles of the size that needs the fewest points: with maps of 15 pixels, three of five.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from cifar_jax.kernels.unfused import copied, unfused

Padding = tuple[tuple[int, int], tuple[int, int]]  # (low, high) of rows, (low, high) of columns
Images = Float[Array, "b h w c"]
Kernel = Float[Array, "3 3 c k"]

_KERNEL = 3
# The finite points for tiles of each size; infinity is always one more. They were chosen for a
# small rounding error: the root mean square, relative to the largest output of 128 channels in
# float32, is 2.6e-7 for tiles of 4x4, 5.3e-7 for 5x5 and 8.1e-7 for 7x4. Others with 7 have more,
# so only rows have tiles of 7, and only where they fit.
_POINTS = {
    3: (0.0, 0.75, -0.75, 2.0),
    4: (0.0, 0.75, -0.75, 1.5, -1.5),
    5: (0.4, -0.4, 0.875, -0.875, 1.75, -1.75),
    7: (0.3, -0.3, 0.7, -0.7, 1.1, -1.1, 2.5, -2.5),
}


@dataclasses.dataclass(frozen=True)
class _Axis:
    """How an axis of the output is cut into tiles."""

    tile: int  # pixels
    count: int  # tiles

    @property
    def patch(self) -> int:
        """Pixels of a patch, and points of a tile."""
        return self.tile + _KERNEL - 1


_Axes = tuple[_Axis, _Axis]  # of rows and columns


def _axes(size: Sequence[int]) -> _Axes:
    """The tiles of an output of `size` (h, w)."""

    def axis(n: int, tiles: Sequence[int]) -> _Axis:
        ways = [_Axis(tile, -(-n // tile)) for tile in tiles]
        return min(ways, key=lambda way: way.count * way.patch)

    if size[0] % 7 == 0:
        return _Axis(7, size[0] // 7), axis(size[1], (3, 4))
    return axis(size[0], (3, 4, 5)), axis(size[1], (3, 4, 5))


@functools.cache
def _constants(axes: _Axes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kronecker products of `A' [m, m + 2]`, `B' [m + 2, m + 2]` and `G [m + 2, 3]` of both axes.

    By the Cook-Toom construction: a Vandermonde matrix evaluates a polynomial at the points; its
    value at infinity is the highest coefficient. The inverse matrix interpolates. Correlation is
    the transpose of polynomial multiplication.
    """

    def evaluate(points: tuple[float, ...], length: int) -> np.ndarray:
        highest = np.eye(1, length, length - 1)
        return np.concatenate([np.vander(points, length, increasing=True), highest])

    def one(axis: _Axis) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        points = _POINTS[axis.tile]
        interpolate = np.linalg.inv(evaluate(points, axis.patch))
        return evaluate(points, axis.tile).T, interpolate.T, evaluate(points, _KERNEL)

    a, b, g = (np.kron(*pair) for pair in zip(*map(one, axes), strict=True))
    return a, b, g


def value(inputs: Images, kernel: Kernel, padding: Padding) -> Float[Array, "b h2 w2 k"]:
    """The convolution, with stride 1."""
    height, width = _output_size(inputs.shape[1:3], padding)
    rows, columns = axes = _axes((height, width))
    points = jnp.matmul(_points_of_inputs(inputs, padding, axes), _points_of_kernel(kernel, axes))
    tiles = _product(_constants(axes)[0], points)
    tiles = tiles.reshape(rows.tile, columns.tile, -1, rows.count, columns.count, kernel.shape[-1])
    return unfused(_whole)(tiles)[:, :height, :width]


def _whole(tiles: Float[Array, "m1 m2 b rows columns k"]) -> Float[Array, "b m1*rows m2*columns k"]:
    height, width, batch, rows, columns, channels = tiles.shape
    whole = copied(tiles.transpose(2, 3, 0, 4, 1, 5))
    return whole.reshape(batch, rows * height, columns * width, channels)


def kernel_gradient(
    inputs: Images, gradient: Float[Array, "b h2 w2 k"], padding: Padding
) -> Kernel:
    """The gradient with respect to `kernel`, given the `gradient` with respect to the output."""
    axes = _axes(gradient.shape[1:3])
    # `value` has already computed the first factor; the compiler reuses it.
    points = jnp.einsum(
        "ptc,ptk->pck",
        _points_of_inputs(inputs, padding, axes),
        _points_of_gradient(gradient, axes),
    )
    channels = points.shape[1:]
    return _product(_constants(axes)[2].T, points).reshape(_KERNEL, _KERNEL, *channels)


def input_gradient(
    kernel: Kernel,
    gradient: Float[Array, "b h2 w2 k"],
    padding: Padding,
    size: tuple[int, int],
) -> Images:
    """The gradient with respect to the inputs, given the `gradient` with respect to the output.

    Args:
      size: (h, w) of the inputs.
    """
    rows, columns = axes = _axes(gradient.shape[1:3])
    points = jnp.einsum(
        "ptk,pck->ptc", _points_of_gradient(gradient, axes), _points_of_kernel(kernel, axes)
    )
    patches = _product(_constants(axes)[1].T, points)
    shape = rows.patch, columns.patch, -1, rows.count, columns.count, kernel.shape[2]
    patches = patches.reshape(shape)
    # Patches overlap by two pixels, so in each direction a pixel lies in one or two of them.
    total = jnp.zeros([], patches.dtype)
    for row, row_tile, in_row in _patch_positions(size[0], rows, padding[0][0]):
        for column, column_tile, in_column in _patch_positions(size[1], columns, padding[1][0]):
            term = patches[row[:, None], column, :, row_tile[:, None], column_tile]
            inside = in_row[:, None] & in_column
            if not inside.all():
                term = jnp.where(inside[..., None, None], term, 0)
            total = total + term
    return total.transpose(2, 0, 1, 3)


def _patch_positions(
    size: int, axis: _Axis, low: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Where the pixels 0 ... size - 1 of one axis lie in the patches.

    Returns:
      Twice (offset in the patch, index of the patch, whether the pixel lies in it): first for the
      last patch with the pixel, then for the patch before it.
    """
    position = np.arange(size) + low
    tile = np.minimum(position // axis.tile, axis.count - 1)
    offset = position - axis.tile * tile
    before = (offset < axis.patch - axis.tile) & (tile > 0)
    return [
        (offset, tile, np.ones(size, bool)),
        (np.where(before, offset + axis.tile, 0), np.where(before, tile - 1, 0), before),
    ]


def _points_of_inputs(inputs: Images, padding: Padding, axes: _Axes) -> Float[Array, "p tiles c"]:
    patches = unfused(functools.partial(_patches, padding=padding, axes=axes))(inputs)
    return _by_point(_product(_constants(axes)[1], patches), inputs.shape[-1])


def _patches(inputs: Images, padding: Padding, axes: _Axes) -> Float[Array, "p1 p2 b m n c"]:
    widths = [
        (low, axis.tile * (axis.count - 1) + axis.patch - n - low, 0)
        for n, (low, _), axis in zip(inputs.shape[1:3], padding, axes, strict=True)
    ]
    padded = lax.pad(inputs, jnp.zeros([], inputs.dtype), [(0, 0, 0), *widths, (0, 0, 0)])
    # A gather: on CPU, XLA takes four times as long to concatenate as many slices.
    rows, columns = (
        np.arange(axis.patch)[:, None] + axis.tile * np.arange(axis.count) for axis in axes
    )
    patches = padded[:, rows[:, None, :, None], columns[None, :, None, :]]
    return copied(patches.transpose(1, 2, 0, 3, 4, 5))


def _points_of_gradient(
    gradient: Float[Array, "b h2 w2 k"], axes: _Axes
) -> Float[Array, "p tiles k"]:
    batch, height, width, channels = gradient.shape
    rows, columns = axes
    more = rows.count * rows.tile - height, columns.count * columns.tile - width
    whole = jnp.pad(gradient, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)))
    tiles = whole.reshape(batch, rows.count, rows.tile, columns.count, columns.tile, channels)
    tiles = copied(tiles.transpose(2, 4, 0, 1, 3, 5))
    return _by_point(_product(_constants(axes)[0].T, tiles), channels)


def _points_of_kernel(kernel: Kernel, axes: _Axes) -> Float[Array, "p c k"]:
    return _product(_constants(axes)[2], kernel).reshape(-1, *kernel.shape[2:])


def _by_point(x: Float[Array, "p n"], channels: int) -> Float[Array, "p tiles {channels}"]:
    return x.reshape(len(x), -1, channels)


def _product(constant: np.ndarray, x: jax.Array) -> jax.Array:
    """`constant [p, q] @ x`, where the leading axes of `x` are flattened to q; returns `[p, n]`."""
    flat = x.reshape(constant.shape[1], -1)
    return jnp.matmul(constant.astype(x.dtype), flat)


def _output_size(size: Sequence[int], padding: Padding) -> tuple[int, ...]:
    return tuple(n + sum(p) - _KERNEL + 1 for n, p in zip(size, padding, strict=True))
