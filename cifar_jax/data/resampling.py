"""Images taken apart and put together again: gathered, interpolated, zoomed, streaked.

All of a batch at once, in numpy. Images are float `[N, H, W, C]`; rows count down, columns to the
right, from 0 at the middle of the first pixel.
"""

import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy import ndimage

Pixels = Float[np.ndarray, "n h w c"]


def grid(x: Pixels) -> tuple[np.ndarray, np.ndarray]:
    """Row `[1, H, 1]` and column `[1, 1, W]` of each pixel."""
    rows, columns = np.ogrid[: x.shape[1], : x.shape[2]]
    return rows[None], columns[None]


def gather(x: Pixels, rows: np.ndarray, columns: np.ndarray) -> Pixels:
    """Of each image the pixels at whole rows and columns, which broadcast to `[N, H, W]`."""
    return x[np.arange(len(x))[:, None, None], rows, columns]


def interpolate(x: Pixels, rows: np.ndarray, columns: np.ndarray) -> Pixels:
    """Of each image the pixels at fractional places `[N, H, W]`, bilinearly; mirrored outside."""
    height, width = x.shape[1:3]
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = ((rows - top)[..., None], (columns - left)[..., None])

    def at(i: int, j: int) -> Pixels:
        return gather(x, _mirrored(top + i, height), _mirrored(left + j, width))

    upper = (1 - right) * at(0, 0) + right * at(0, 1)
    lower = (1 - right) * at(1, 0) + right * at(1, 1)
    return (1 - down) * upper + down * lower


def _mirrored(index: np.ndarray, size: int) -> np.ndarray:
    """Indices reflected at the middle of the border pixels until they are below `size`."""
    return size - 1 - np.abs(size - 1 - index % (2 * size - 2))


def boxes(x: Pixels, factor: float) -> Pixels:
    """Down to `factor` of the size and up again, each by Pillow's averages over boxes."""

    def matrix(size: int) -> np.ndarray:
        box, small = Image.Resampling.BOX, int(factor * size)
        # What it makes of the unit vectors.
        down = Image.fromarray(np.eye(size, dtype=np.float32)).resize((size, small), box)
        return np.asarray(down.resize((size, size), box))

    rows, columns = map(matrix, x.shape[1:3])
    return np.einsum("ih,nhwc,jw->nijc", rows, x, columns, optimize=True)


def zoom(x: Pixels, *factors: float) -> Pixels:
    """The sum of magnifications of the middle, bilinear, at the size that it has."""

    def matrices(size: int) -> np.ndarray:
        return np.stack([_magnifier(size, factor) for factor in factors])

    # All magnifications in one linear map of the image, so that they are one matrix product.
    rows, columns = map(matrices, x.shape[1:3])
    kernel = np.einsum("zih,zjw->hwij", rows, columns, optimize=True)
    return np.moveaxis(np.tensordot(x, kernel, ([1, 2], [0, 1])), 1, -1)


def _magnifier(size: int, factor: float) -> np.ndarray:
    """`[size, size]`: a row or column of an image to one of its magnified middle."""
    crop = int(np.ceil(size / factor))
    start = (size - crop) // 2
    units = np.eye(size, dtype=np.float32)[start : start + crop]
    zoomed = ndimage.zoom(units, (factor, 1), order=1)
    first = (len(zoomed) - size) // 2
    return zoomed[first : first + size]


def streak(x: Pixels, degrees: np.ndarray, radius: int, sigma: float) -> Pixels:
    """Motion blur as ImageMagick's: half a Gaussian along a line, of an angle for each image."""
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
