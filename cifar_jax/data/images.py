"""Any picture a user has, as the pixels that a network takes."""

import os
import stat
import warnings
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from cifar_jax.data import image_formats
from cifar_jax.errors import UserError

FITS = ("crop", "whole")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
MAX_BYTES = 256 << 20  # of a file; an uncompressed one of the pixels allowed is about as large
_PART = 1 << 20  # bytes of a stream at a time
_MODES = {1: "L", 3: "RGB"}  # by the number of channels
# A JPEG is decoded at a half to an eighth, but at least so many times as large as wanted: Pillow
# calls what the resize then makes of it almost indistinguishable from that of the whole.
_GAP = 3
# By EXIF's orientation. ImageOps.exif_transpose writes the EXIF anew, and fails where that is odd.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
# Pillow only warns of an image of up to twice `Image.MAX_IMAGE_PIXELS`.
warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode(
    source: Any,
    image_shape: tuple[int, int, int],
    fit: str = "crop",
) -> UInt8[np.ndarray, "h w c"]:
    """The first frame of a PNG, JPEG, WebP, GIF or BMP, upright, of another size and on white.

    16-bit grey is scaled to 8, bicubic resizing is antialiased, and colours become grey by ITU-R
    601. Colour profiles are not applied.

    Args:
      source: a file: its path (`str` or `os.PathLike`), its content (`bytes`, `bytearray` or
        `memoryview`), or a stream of that (`read` returns bytes). No array and no `PIL.Image`.
      image_shape: height, width and channels (1 or 3) of the result.
      fit: "crop" takes the largest part in the middle that has the result's proportions,
        "whole" squashes all of the image into them.

    Raises:
      UserError: it cannot be read, is damaged, or is too large; the message is the reason alone.
        Or `source` or `fit` is something else.
    """
    if fit not in FITS:
        raise UserError(f"fit={fit!r} is none of {', '.join(FITS)}")
    height, width, channels = image_shape
    if channels not in _MODES:
        raise UserError(f"the network takes images of {channels} channels, not grey or RGB")
    data = _read(source)
    if not data:
        raise UserError("empty")
    if len(data) > MAX_BYTES:
        raise UserError(f"more than {MAX_BYTES >> 20} MiB: make it smaller")
    image = image_formats.open_image(data)
    least = _GAP * max(height, width)
    with image_formats.reading():
        drafted = image.draft(None, (least, least))
        image.load()
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    right, below = drafted[1][2:] if drafted else image.size  # fractions of pixels count
    image = _with_colours(image)
    # The small image is turned, since that is cheap and the middle remains the middle.
    size = (height, width) if orientation in _SIDEWAYS else (width, height)
    left, top = 0.0, 0.0
    if fit == "crop":
        scale = min(right / size[0], below / size[1])
        left, top = max(0, right - scale * size[0]) / 2, max(0, below - scale * size[1]) / 2
    box = (left, top, right - left, below - top)
    image = image.resize(size, Image.Resampling.BICUBIC, box)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert(_MODES[channels])).reshape(image_shape)


def _read(source: Any) -> bytes:
    """All of a file or stream, or enough of it to see that it is too large."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        return _read_file(source)
    if not hasattr(source, "read"):
        kind = type(source).__name__
        raise UserError(f"{kind} is no image file: give its path, its bytes or a binary stream")
    data = bytearray()
    try:
        # One byte more than is allowed tells that there are too many.
        while (left := MAX_BYTES + 1 - len(data)) and (part := source.read(min(left, _PART))):
            if not isinstance(part, bytes):
                raise UserError("a stream of text is no image file: open it in binary mode, 'rb'")
            data += part
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})") from error
    return bytes(data)


def _read_file(path: str | os.PathLike[str]) -> bytes:
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # reading it could wait for ever
            raise UserError("a pipe, socket or device: pass its content on standard input, as -")
        with open(path, "rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # a NUL
        raise UserError(f"no path of a file ({error})") from error


def _with_colours(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where anything can be seen through: modes that resize as pixels ought to."""
    if image.mode == "I;16":
        levels = np.asarray(image)
        transparent = image.info.get("transparency")  # a level
        image = Image.fromarray(((levels.astype(np.uint32) + 128) // 257).astype(np.uint8))
        if transparent is not None:
            image.putalpha(Image.fromarray(levels != transparent).convert("L"))
    with image_formats.reading():
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
