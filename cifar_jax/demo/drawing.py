"""Images `[H, W, C]` uint8, of one channel or three, as pictures to look at."""

import io

import matplotlib
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from scipy import ndimage

_SIDE = 256  # about; a whole number of times the image's
_OPACITY = 0.8  # of the overlay, at most

Pixels = UInt8[np.ndarray, "h w c"]


def picture(image: Pixels) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def enlarged(image: Pixels) -> Image.Image:
    """So large that each pixel can be seen."""
    small = picture(image)
    times = max(1, _SIDE // max(small.size))
    return small.resize((small.width * times, small.height * times), Image.Resampling.NEAREST)


def overlay(image: Pixels, mask: Float32[np.ndarray, "h w"]) -> Image.Image:
    """The picture enlarged and in grey, with `mask`, of values from 0, in colours over it.

    The warmer, the more. The mask is blurred by a pixel, since single pixels say little.
    """
    grey = enlarged(image).convert("L")
    blurred = ndimage.gaussian_filter(mask, 1)
    blurred /= max(blurred.max(), np.finfo(np.float32).tiny)
    smooth = Image.fromarray(blurred).resize(grey.size, Image.Resampling.BICUBIC)
    heat = np.clip(np.asarray(smooth), 0, 1)
    colours = matplotlib.colormaps["inferno"](heat, bytes=True)[..., :3]
    opacity = np.round(255 * _OPACITY * heat).astype(np.uint8)
    return Image.composite(Image.fromarray(colours), grey.convert("RGB"), Image.fromarray(opacity))


def png(image: Pixels) -> bytes:
    """The content of a PNG file."""
    buffer = io.BytesIO()
    picture(image).save(buffer, "PNG")
    return buffer.getvalue()
