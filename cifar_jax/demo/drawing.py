"""Turns images `[H, W, C]` uint8, with C 1 or 3, into pictures for the page."""

import io

import matplotlib
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from scipy import ndimage

from cifar_jax.data import images

_SIDE = 256  # pixels, rounded down to a multiple of the image's side
_WHOLE = 512  # pixels of the longer side of a picture that is shown whole
_DARKER = 3  # how many times, where a picture is cut off
_OPACITY = 0.8  # of the overlay where the mask is highest

Pixels = UInt8[np.ndarray, "h w c"]


def picture(image: Pixels) -> Image.Image:
    """The image as a Pillow image, gray or RGB."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def enlarged(image: Pixels) -> Image.Image:
    """Enlarges the image to about 256 pixels, so that single pixels are visible."""
    small = picture(image)
    factor = max(1, _SIDE // max(small.size))
    return small.resize((small.width * factor, small.height * factor), Image.Resampling.NEAREST)


def overlay(image: Pixels, mask: Float32[np.ndarray, "h w"]) -> Image.Image:
    """Draws `mask` as a heat map over the enlarged image in gray; warmer means higher.

    Args:
      mask: not negative, in any unit. It is blurred by one pixel, because single pixels say little.
    """
    gray = enlarged(image).convert("L")
    blurred = ndimage.gaussian_filter(mask, 1)
    blurred /= max(blurred.max(), np.finfo(np.float32).tiny)
    smooth = Image.fromarray(blurred).resize(gray.size, Image.Resampling.BICUBIC)
    heat = np.clip(np.asarray(smooth), 0, 1)
    colors = matplotlib.colormaps["inferno"](heat, bytes=True)[..., :3]
    opacity = np.round(255 * _OPACITY * heat).astype(np.uint8)
    return Image.composite(Image.fromarray(colors), gray.convert("RGB"), Image.fromarray(opacity))


def framed(content: bytes, image_shape: tuple[int, int, int]) -> Image.Image:
    """A picture whole, upright, and dark where it is cut off to fit the shape of the network.

    Raises:
      UserError: the content of the file cannot be read as an image.
    """
    ratio = images.proportion(content)
    width, height = (max(1, round(_WHOLE * min(1, r))) for r in (ratio, 1 / ratio))
    whole = images.decode(content, (height, width, 3), "whole")
    scale = min(height / image_shape[0], width / image_shape[1])
    bands = []
    for length, side in zip((height, width), image_shape[:2], strict=True):
        cut = (length - scale * side) / 2
        middle = np.arange(length) + 0.5
        bands.append((middle > cut) & (middle < length - cut))
    seen = bands[0][:, None, None] & bands[1][None, :, None]
    return Image.fromarray(np.where(seen, whole, whole // _DARKER))


def png(shown: Image.Image) -> bytes:
    """The content of a PNG file."""
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    return buffer.getvalue()
