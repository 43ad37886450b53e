"""Resamples a batch of images in numpy: gathering, interpolation, zoom, motion blur.

Images are float `[N, H, W, C]`. Row coordinates grow downward and column coordinates to the right;
(0, 0) is the center of the first pixel.
"""

import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy import ndimage

Pixels = Float[np.ndarray, "n h w c"]


def grid(x: Pixels) -> tuple[np.ndarray, np.ndarray]:
    """Row coordinates `[1, H, 1]` and column coordinates `[1, 1, W]` of all pixels, int."""
    rows, columns = np.ogrid[: x.shape[1], : x.shape[2]]
    return rows[None], columns[None]


def gather(x: Pixels, rows: np.ndarray, columns: np.ndarray) -> Pixels:
    """Picks pixels of each image by row and column, int arrays that broadcast to `[N, H, W]`."""
    return x[np.arange(len(x))[:, None, None], rows, columns]


def interpolate(x: Pixels, rows: np.ndarray, columns: np.ndarray) -> Pixels:
    """Bilinear values of each image at `[N, H, W]` float coordinates; mirrored at the border."""
    height, width = x.shape[1:3]
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = ((rows - top)[..., None], (columns - left)[..., None])

    def at(i: int, j: int) -> Pixels:
        return gather(x, _mirrored(top + i, height), _mirrored(left + j, width))

    upper = (1 - right) * at(0, 0) + right * at(0, 1)
    lower = (1 - right) * at(1, 0) + right * at(1, 1)
    return (1 - down) * upper + down * lower


def _mirrored(index: np.ndarray, size: int) -> np.ndarray:
    """Reflects indices at the centers of the border pixels, into [0, size)."""
    return size - 1 - np.abs(size - 1 - index % (2 * size - 2))


def boxes(x: Pixels, factor: float) -> Pixels:
    """Shrinks to `factor` of the size and enlarges again, both with Pillow's box filter."""

    def matrix(size: int) -> np.ndarray:
        box, small = Image.Resampling.BOX, int(factor * size)
        # Resizing is linear: its matrix is the result for the identity.
        down = Image.fromarray(np.eye(size, dtype=np.float32)).resize((size, small), box)
        return np.asarray(down.resize((size, size), box))

    rows, columns = map(matrix, x.shape[1:3])
    return np.einsum("ih,nhwc,jw->nijc", rows, x, columns, optimize=True)


def zoom(x: Pixels, *factors: float) -> Pixels:
    """Magnifies the center bilinearly by each factor (>= 1), keeps the size, returns the sum."""

    def matrices(size: int) -> np.ndarray:
        return np.stack([_magnifier(size, factor) for factor in factors])

    # All magnifications together are one linear map, so one matrix product does them all.
    rows, columns = map(matrices, x.shape[1:3])
    kernel = np.einsum("zih,zjw->hwij", rows, columns, optimize=True)
    return np.moveaxis(np.tensordot(x, kernel, ([1, 2], [0, 1])), 1, -1)


def _magnifier(size: int, factor: float) -> np.ndarray:
    """`[size, size]` matrix that maps one axis of an image to that of its magnified center."""
    crop = int(np.ceil(size / factor))
    start = (size - crop) // 2
    units = np.eye(size, dtype=np.float32)[start : start + crop]
    zoomed = ndimage.zoom(units, (factor, 1), order=1)
    first = (len(zoomed) - size) // 2
    return zoomed[first : first + size]


def streak(x: Pixels, degrees: np.ndarray, radius: int, sigma: float) -> Pixels:
    """Motion blur as in ImageMagick: half a Gaussian along a line.

    Args:
      degrees: `[N]`, the angle for each image.
      radius: pixels; the blur has 2 * radius + 1 taps.
      sigma: standard deviation of the Gaussian, in pixels.
    """
    taps = np.exp(-((np.arange(2 * radius + 1) / sigma) ** 2) / 2)
    rows, columns = grid(x)
    angle = np.deg2rad(degrees)[:, None, None]
    blurred = np.zeros_like(x)
    for i, tap in enumerate(taps / taps.sum()):
        down = np.ceil(i * np.cos(angle) - 0.5).astype(int)
        right = np.ceil(i * np.sin(angle) - 0.5).astype(int)
        blurred += tap * gather(
            x,
            np.clip(rows + down, 0, x.shape[1] - 1),
            np.clip(columns + right, 0, x.shape[2] - 1),
        )
    return blurred
