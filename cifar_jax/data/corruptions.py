"""The 15 common corruptions of CIFAR-10-C at 5 severities, reimplemented: "CIFAR-10-C style".

Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations". The parameters come from their code for CIFAR (github.com/hendrycks/robustness,
ImageNet-C/create_c/make_cifar_c.py, Apache 2.0). The images differ from the published files: they
use other random numbers, round pixels instead of truncating them, and draw a synthetic texture for
`frost` instead of cutting it from photographs. So compare these accuracies between networks, not
with published numbers.

Lengths are in pixels of a 32-pixel image unless a function says that they scale. Each function maps
pixels in [0, 1] to pixels that `corrupt` clips to [0, 1].
"""

import functools
import io
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy import ndimage

from cifar_jax.data import resampling
from cifar_jax.data.resampling import Pixels

SEVERITIES = (1, 2, 3, 4, 5)
_CHUNK = 500  # images at a time, so that a few float copies fit into a cache of some megabytes


def corrupt(
    images: UInt8[np.ndarray, "n h w c"], name: str, severity: int, seed: int = 0
) -> UInt8[np.ndarray, "n h w c"]:
    """Returns corrupted copies of `images`, which have 1 or 3 channels.

    The result depends on the arguments alone. All severities of one corruption use the same random
    numbers, so they differ in strength only.

    Args:
      name: one of `NAMES`.
      severity: 1 to 5.

    Raises:
      KeyError: the name is unknown.
    """
    function, parameters = _CORRUPTIONS[name]
    corrupted = np.empty_like(images)
    for start in range(0, len(images), _CHUNK):
        rng = np.random.default_rng((seed, NAMES.index(name), start))
        pixels = images[start : start + _CHUNK].astype(np.float32) / 255
        pixels = function(pixels, rng, *parameters[severity - 1])
        corrupted[start : start + _CHUNK] = np.rint(255 * np.clip(pixels, 0, 1))
    return corrupted


# ---------------------------------------------------------------------------- noise
def _gaussian_noise(x: Pixels, rng: np.random.Generator, deviation: float) -> Pixels:
    return x + deviation * rng.standard_normal(x.shape, np.float32)


def _shot_noise(x: Pixels, rng: np.random.Generator, photons: float) -> Pixels:
    """Poisson noise; a white pixel stands for `photons` photons."""
    return rng.poisson(photons * x) / photons


def _impulse_noise(x: Pixels, rng: np.random.Generator, amount: float) -> Pixels:
    """Salt-and-pepper noise, independent in each channel; `amount` is the fraction it hits."""
    chance = rng.random(x.shape, np.float32)
    return np.where(chance < amount / 2, 0, np.where(chance > 1 - amount / 2, 1, x))


# ---------------------------------------------------------------------------- blur
def _defocus_blur(x: Pixels, rng: np.random.Generator, radius: float, softness: float) -> Pixels:
    """Convolves with a disk that a 3-tap Gaussian has softened."""
    offsets = np.arange(-2, 3)
    disk = (np.add.outer(offsets**2, offsets**2) <= radius**2).astype(np.float64)
    taps = np.exp(-((np.arange(-1, 2) / softness) ** 2) / 2)
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, taps / taps.sum(), axis, mode="constant")
    return ndimage.correlate(x, (disk / disk.sum())[None, :, :, None], mode="mirror")


def _glass_blur(x: Pixels, rng: np.random.Generator, sigma: float, iterations: int) -> Pixels:
    """Moves pixels at random between two Gaussian blurs.

    The published code means to swap two pixels but copies one onto the other, and so does this: a
    pixel keeps its value or takes that of its upper, left or upper left neighbor.
    """
    blur = functools.partial(ndimage.gaussian_filter, sigma=(0, sigma, sigma, 0), mode="nearest")
    x = blur(x)
    rows, columns = resampling.grid(x)
    for _ in range(iterations):
        up, left = rng.integers(0, 2, (2, *x.shape[:3]))
        # The first two rows and columns stay as they are.
        inner = (rows >= 2) & (columns >= 2)
        x = resampling.gather(x, rows - up * inner, columns - left * inner)
    return blur(x)


def _motion_blur(x: Pixels, rng: np.random.Generator, radius: int, sigma: float) -> Pixels:
    return resampling.streak(x, rng.uniform(-45, 45, len(x)), radius, sigma)


def _zoom_blur(x: Pixels, rng: np.random.Generator, steps: int) -> Pixels:
    """Averages the image, counted twice, with its magnifications by 1 %, 2 %, ..."""
    return (x + resampling.zoom(x, *(1 + i / 100 for i in range(steps)))) / (steps + 1)


# ---------------------------------------------------------------------------- weather
def _snow(
    x: Pixels,
    rng: np.random.Generator,
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    radius: int,
    sigma: float,
    dimming: float,
) -> Pixels:
    """Adds motion-blurred flakes from two opposite directions to a paler image."""
    flakes = rng.normal(mean, deviation, (*x.shape[:3], 1)).astype(np.float32)
    flakes = resampling.zoom(flakes, zoom)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    flakes = resampling.streak(flakes, rng.uniform(-135, -45, len(x)), radius, sigma)
    gray = x @ np.array([0.299, 0.587, 0.114], np.float32) if x.shape[-1] == 3 else x[..., 0]
    pale = np.maximum(x, 1.5 * gray[..., None] + 0.5)
    return dimming * x + (1 - dimming) * pale + flakes + flakes[:, ::-1, ::-1]


def _frost(x: Pixels, rng: np.random.Generator, image: float, frost: float) -> Pixels:
    """Adds bluish ice, bright where one of three plasma fractals is close to 1/2."""
    ridges = [1 - np.abs(2 * _plasma(x, rng, decay) - 1) for decay in (1.2, 1.5, 2)]
    ice = np.max(ridges, axis=0)[..., None] ** 3
    tint = np.array([0.8, 0.9, 1], np.float32) if x.shape[-1] == 3 else 0.9
    return image * x + frost * tint * ice


def _fog(x: Pixels, rng: np.random.Generator, amount: float, decay: float) -> Pixels:
    brightest = x.max((1, 2, 3), keepdims=True)
    foggy = x + amount * _plasma(x, rng, decay)[..., None]
    return foggy * brightest / (brightest + amount)


def _brightness(x: Pixels, rng: np.random.Generator, amount: float) -> Pixels:
    """Adds to the V of HSV, which scales all channels of a pixel by the same factor."""
    value = x.max(-1, keepdims=True)
    brighter = np.minimum(value + amount, 1)
    return np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter)


# ---------------------------------------------------------------------------- digital
def _contrast(x: Pixels, rng: np.random.Generator, factor: float) -> Pixels:
    mean = x.mean((1, 2), keepdims=True)
    return factor * (x - mean) + mean


def _elastic_transform(
    x: Pixels, rng: np.random.Generator, strength: float, sigma: float, shift: float
) -> Pixels:
    """Applies an affine map that moves three points by up to `shift`, then a smooth displacement.

    All lengths are fractions of the shorter side.
    """
    side = min(x.shape[1:3])
    center, arm = np.array(x.shape[1:3]) // 2, side // 3
    corners = center + arm * np.array([(1, 1), (-1, 1), (-1, -1)])
    moved = corners + side * rng.uniform(-shift, shift, (len(x), 3, 2))
    # The inverse map, from moved points to corners, says where each output pixel comes from.
    one = np.ones((len(x), 3, 1))
    inverse = np.linalg.solve(np.concatenate([moved, one], -1), corners.astype(np.float64))
    rows, columns = resampling.grid(x)
    ones = np.ones_like(rows)
    sources = np.stack(np.broadcast_arrays(rows, columns, ones), -1) @ inverse[:, None]
    x = resampling.interpolate(x, sources[..., 0], sources[..., 1])
    noise = rng.uniform(-1, 1, (2, *x.shape[:3]))
    scale = (0, 0, side * sigma, side * sigma)
    down, right = side * strength * ndimage.gaussian_filter(noise, scale, truncate=3)
    return resampling.interpolate(x, rows + down, columns + right)


def _pixelate(x: Pixels, rng: np.random.Generator, factor: float) -> Pixels:
    """Shrinks to `factor` of the size and enlarges again, both by box averages."""
    return resampling.boxes(x, factor)


def _jpeg_compression(x: Pixels, rng: np.random.Generator, quality: int) -> Pixels:
    compressed = np.empty_like(x)
    for i, image in enumerate(np.rint(255 * x).astype(np.uint8)):
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
            file, "JPEG", quality=quality
        )
        with Image.open(file) as opened:
            compressed[i] = np.asarray(opened, np.float32).reshape(image.shape) / 255
    return compressed


def _plasma(x: Pixels, rng: np.random.Generator, decay: float) -> Float[np.ndarray, "n h w"]:
    """A plasma fractal with values in [0, 1] for each image.

    Diamond-square algorithm (Fournier, Fussell and Carpenter 1982) with wrap-around borders. A
    larger `decay` gives a smoother result.
    """
    side = 1 << (max(x.shape[1:3]) - 1).bit_length()
    heights = np.zeros((len(x), side, side), np.float32)
    step, amplitude = side, 1.0

    def midpoints(sums: np.ndarray) -> np.ndarray:
        """Means of four neighbors plus noise; `sums` are the sums of these neighbors."""
        return sums / 4 + rng.uniform(-amplitude, amplitude, sums.shape)

    while step > 1:
        half = step // 2
        corners = heights[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, 2)
        centers = midpoints(pairs + np.roll(pairs, -1, 1))
        heights[:, half::step, half::step] = centers
        heights[:, ::step, half::step] = midpoints(pairs + centers + np.roll(centers, 1, 1))
        pairs = corners + np.roll(corners, -1, 1)
        heights[:, half::step, ::step] = midpoints(pairs + centers + np.roll(centers, 1, 2))
        step, amplitude = half, amplitude / decay**2
    low, high = (f(heights, (1, 2), keepdims=True) for f in (np.min, np.max))
    return ((heights - low) / (high - low))[:, : x.shape[1], : x.shape[2]]


# Name -> function, its parameters at severities 1 to 5.
_CORRUPTIONS: dict[str, tuple[Callable[..., Pixels], tuple[tuple[float, ...], ...]]] = {
    "gaussian_noise": (_gaussian_noise, ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,))),
    "shot_noise": (_shot_noise, ((500,), (250,), (100,), (75,), (50,))),
    "impulse_noise": (_impulse_noise, ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,))),
    "defocus_blur": (_defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass_blur": (_glass_blur, ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))),
    "motion_blur": (_motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": (_zoom_blur, ((7,), (12,), (16,), (21,), (26,))),
    "snow": (
        _snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": (_frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": (_fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": (_brightness, ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,))),
    "contrast": (_contrast, ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,))),
    "elastic_transform": (
        _elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": (_pixelate, ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,))),
    "jpeg_compression": (_jpeg_compression, ((80,), (65,), (58,), (50,), (40,))),
}
NAMES = tuple(_CORRUPTIONS)
