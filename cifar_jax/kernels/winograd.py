"""Winograd's convolution F(4x4, 3x3), written as matrix products.

Each output tile of 4x4 pixels depends on an input patch of 6x6 pixels. Patches and kernel are
transformed to 36 points, where the convolution needs one multiplication per point: 36 instead of
16 * 9, a quarter (Winograd 1980; Lavin and Gray 2016). In one dimension a tile is
`A' [(G kernel) * (B' patch)]`; in two dimensions, the matrices are replaced by their Kronecker
squares. So the algorithm is a product with a constant matrix for each of patches, kernel and tiles,
and 36 products of `[tiles, C_in] @ [C_in, C_out]` in between. The constant matrices are sparse, but
the loops that XLA compiles for sparse code are slower than these dense products.

The points are 0, +-3/4, +-3/2 and infinity. Relative to the largest output, their rounding error in
float32 is 2.5e-6; with the usual points 0, +-1, +-2 and infinity it is 1e-5.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]  # (low, high) of rows, (low, high) of columns
Images = Float[Array, "b h w c"]
Kernel = Float[Array, "3 3 c k"]

_TILE, _KERNEL, _POINTS = 4, 3, (0.0, 0.75, -0.75, 1.5, -1.5)
_PATCH = _TILE + _KERNEL - 1


def _constants() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kronecker squares of `A' [4, 6]`, `B' [6, 6]` and `G [6, 3]`, by the Cook-Toom construction.

    A Vandermonde matrix evaluates a polynomial at the points; its value at infinity is the highest
    coefficient. The inverse matrix interpolates. Correlation is the transpose of polynomial
    multiplication.
    """

    def evaluate(length: int) -> np.ndarray:
        highest = np.eye(1, length, length - 1)
        return np.concatenate([np.vander(_POINTS, length, increasing=True), highest])

    one = evaluate(_TILE).T, np.linalg.inv(evaluate(_PATCH)).T, evaluate(_KERNEL)
    a, b, g = (np.kron(matrix, matrix) for matrix in one)
    return a, b, g


_OUTPUT, _INPUT, _WEIGHTS = _constants()


def value(inputs: Images, kernel: Kernel, padding: Padding) -> Float[Array, "b h2 w2 k"]:
    """The convolution, with stride 1."""
    points = jnp.matmul(_points_of_inputs(inputs, padding), _points_of_kernel(kernel))
    height, width = _output_size(inputs.shape[1:3], padding)
    tiles = _product(_OUTPUT, points)
    tiles = tiles.reshape(_TILE, _TILE, -1, _tiles(height), _tiles(width), kernel.shape[-1])
    whole = tiles.transpose(2, 3, 0, 4, 1, 5)
    _, rows, _, columns, *_ = whole.shape
    whole = whole.reshape(-1, rows * _TILE, columns * _TILE, kernel.shape[-1])
    return whole[:, :height, :width]


def kernel_gradient(
    inputs: Images, gradient: Float[Array, "b h2 w2 k"], padding: Padding
) -> Kernel:
    """The gradient with respect to `kernel`, given the `gradient` with respect to the output."""
    # `value` has already computed the first factor; the compiler reuses it.
    points = jnp.einsum(
        "ptc,ptk->pck", _points_of_inputs(inputs, padding), _points_of_gradient(gradient)
    )
    channels = points.shape[1:]
    return _product(_WEIGHTS.T, points).reshape(_KERNEL, _KERNEL, *channels)


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
    rows, columns = _tiles(gradient.shape[1]), _tiles(gradient.shape[2])
    points = jnp.einsum("ptk,pck->ptc", _points_of_gradient(gradient), _points_of_kernel(kernel))
    patches = _product(_INPUT.T, points)
    patches = patches.reshape(_PATCH, _PATCH, -1, rows, columns, kernel.shape[2])
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
    size: int, tiles: int, low: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Where the pixels 0 ... size - 1 of one axis lie in the patches.

    Returns:
      Twice (offset in the patch, index of the patch, whether the pixel lies in it): first for the
      last patch with the pixel, then for the patch before it.
    """
    position = np.arange(size) + low
    tile = np.minimum(position // _TILE, tiles - 1)
    offset = position - _TILE * tile
    before = (offset < _PATCH - _TILE) & (tile > 0)
    return [
        (offset, tile, np.ones(size, bool)),
        (np.where(before, offset + _TILE, 0), np.where(before, tile - 1, 0), before),
    ]


def _points_of_inputs(inputs: Images, padding: Padding) -> Float[Array, "36 tiles c"]:
    batch, *size, channels = inputs.shape
    tiles = [_tiles(n) for n in _output_size(size, padding)]
    widths = [
        (low, _TILE * count + _PATCH - _TILE - n - low, 0)
        for n, (low, _), count in zip(size, padding, tiles, strict=True)
    ]
    padded = lax.pad(inputs, jnp.zeros([], inputs.dtype), [(0, 0, 0), *widths, (0, 0, 0)])
    # A gather: on CPU, XLA takes four times as long to concatenate 36 slices.
    rows, columns = (np.arange(_PATCH)[:, None] + _TILE * np.arange(n) for n in tiles)
    patches = padded[:, rows[:, None, :, None], columns[None, :, None, :]]
    return _product(_INPUT, patches.transpose(1, 2, 0, 3, 4, 5)).reshape(_PATCH**2, -1, channels)


def _points_of_gradient(gradient: Float[Array, "b h2 w2 k"]) -> Float[Array, "36 tiles k"]:
    batch, height, width, channels = gradient.shape
    rows, columns = _tiles(height), _tiles(width)
    whole = jnp.pad(
        gradient,
        ((0, 0), (0, _TILE * rows - height), (0, _TILE * columns - width), (0, 0)),
    ).reshape(batch, rows, _TILE, columns, _TILE, channels)
    tiles = whole.transpose(2, 4, 0, 1, 3, 5)
    return _product(_OUTPUT.T, tiles).reshape(_PATCH**2, -1, channels)


def _points_of_kernel(kernel: Kernel) -> Float[Array, "36 c k"]:
    return _product(_WEIGHTS, kernel).reshape(_PATCH**2, *kernel.shape[2:])


def _product(constant: np.ndarray, x: jax.Array) -> jax.Array:
    """`constant [p, q] @ x`, where the leading axes of `x` are flattened to q; returns `[p, n]`."""
    flat = x.reshape(constant.shape[1], -1)
    return jnp.matmul(constant.astype(x.dtype), flat)


def _tiles(size: int) -> int:
    return -(-size // _TILE)


def _output_size(size: Sequence[int], padding: Padding) -> tuple[int, ...]:
    return tuple(n + sum(p) - _KERNEL + 1 for n, p in zip(size, padding, strict=True))
