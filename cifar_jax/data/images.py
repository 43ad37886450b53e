"""Decodes users' image files into the pixels that a network takes."""

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
MAX_BYTES = 256 << 20  # about the size of an uncompressed file with the most pixels allowed
DECODERS = 4  # threads; each holds one picture, within the limits of `decode`
_READ_BYTES = 1 << 20  # read from a stream at a time
_MODES = {1: "L", 3: "RGB"}  # number of channels -> Pillow's mode
# libjpeg may decode a JPEG at 1/2, 1/4 or 1/8 of its size, but at this many times the size of the
# result or more. Pillow's docs on `reducing_gap` call the resized image then almost
# indistinguishable from that of a full decode.
_REDUCING_GAP = 3
# EXIF orientation -> transpose. `ImageOps.exif_transpose` would do, but it also rewrites the EXIF
# data and fails if they are malformed.
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
# For up to twice `Image.MAX_IMAGE_PIXELS`, Pillow only warns.
warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode(
    source: Any,
    image_shape: tuple[int, int, int],
    fit: str = "crop",
) -> UInt8[np.ndarray, "h w c"]:
    """Decodes the first frame of a PNG, JPEG, WebP, GIF or BMP file and resizes it.

    The image is turned upright as its EXIF data say, transparent parts become white, 16-bit gray is
    scaled to 8 bits, and color becomes gray by the luma of ITU-R 601. Resizing is bicubic with
    antialiasing. Color profiles are ignored.

    Args:
      source: the path of a file (`str` or `os.PathLike`), its content (`bytes`, `bytearray` or
        `memoryview`), or a binary stream (`read` returns bytes). Not an array or a `PIL.Image`.
      image_shape: height, width and channels (1 or 3) of the result.
      fit: "crop" cuts out the largest central part with the aspect ratio of the result; "whole"
        squeezes the whole image into that aspect ratio.

    Returns:
      Pixels of `image_shape`, in [0, 255].

    Raises:
      UserError: the file is unreadable, damaged or too large (the message does not name the file),
        or `source`, `image_shape` or `fit` is not one of the above.
    """
    if fit not in FITS:
        raise UserError(f"fit={fit!r} is not one of {', '.join(FITS)}")
    height, width, channels = image_shape
    if channels not in _MODES:
        raise UserError(
            f"the network takes images with {channels} channels, not 1 (gray) or 3 (RGB)"
        )
    image, (right, below), orientation = _opened(source, _REDUCING_GAP * max(height, width))
    image = _to_color(image)
    # Turn the image after resizing: that is cheaper, and the center stays the center.
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


def proportion(source: Any) -> float:
    """Width divided by height of what `decode` shows of a file with `fit="whole"`.

    Raises:
      UserError: as `decode`.
    """
    _, (right, below), orientation = _opened(source, 1)
    return below / right if orientation in _SIDEWAYS else right / below


def _opened(source: Any, least: int) -> tuple[Image.Image, tuple[float, float], int | None]:
    """The first frame of a file, loaded; its size, which may be fractional; its EXIF orientation.

    Args:
      least: a JPEG may be loaded at a fraction of its size, but not smaller than this.
    """
    data = _read(source)
    if not data:
        raise UserError("empty")
    if len(data) > MAX_BYTES:
        raise UserError(f"more than {MAX_BYTES >> 20} MiB: make it smaller")
    image = image_formats.open_image(data)
    with image_formats.reading():
        drafted = image.draft(None, (least, least))
        image.load()
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    return image, drafted[1][2:] if drafted else image.size, orientation


def _read(source: Any) -> bytes:
    """Reads a whole file or stream, or one byte more than `MAX_BYTES` if it is too large."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        return _read_file(source)
    if not hasattr(source, "read"):
        kind = type(source).__name__
        raise UserError(f"{kind} is not an image file: pass a path, bytes or a binary stream")
    data = bytearray()
    try:
        while (left := MAX_BYTES + 1 - len(data)) and (part := source.read(min(left, _READ_BYTES))):
            if not isinstance(part, bytes):
                raise UserError("a text stream is not an image file: open it in binary mode, 'rb'")
            data += part
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})") from error
    return bytes(data)


def _read_file(path: str | os.PathLike[str]) -> bytes:
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # reading it could block forever
            raise UserError("a pipe, socket or device: pass its content on standard input, as -")
        with open(path, "rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # the path contains a NUL character
        raise UserError(f"not a valid path ({error})") from error


def _to_color(image: Image.Image) -> Image.Image:
    """Converts to RGB, or to RGBA if there is any transparency: Pillow resizes these correctly."""
    if image.mode == "I;16":
        levels = np.asarray(image)
        transparent = image.info.get("transparency")  # the gray level that is transparent
        image = Image.fromarray(((levels.astype(np.uint32) + 128) // 257).astype(np.uint8))
        if transparent is not None:
            image.putalpha(Image.fromarray(levels != transparent).convert("L"))
    with image_formats.reading():
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
