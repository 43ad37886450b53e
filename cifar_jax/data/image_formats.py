"""Opens image files with Pillow and refuses those that Pillow does not decode correctly.

Pillow 12.3 does not check that libjpeg agrees with it on the size of a JPEG, and writes past its
buffer if they disagree: libjpeg never shrinks a lossless JPEG, whatever `Image.draft` expects. So
this file reads the JPEG header first, the way libjpeg does.
"""

import contextlib
import io
import re
import struct
from collections.abc import Iterator

from PIL import Image

from cifar_jax.errors import UserError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")

# JPEG markers, ITU-T T.81, table B.1. A marker is 0xFF and one more byte; other bytes before it are
# skipped. FF 00 is not a marker; FF 01 and the restarts FF D0 to FF D7 have no content.
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
_DCT = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # sequential and progressive, Huffman and arithmetic coding
_REFUSED = {
    **dict.fromkeys((0xC3, 0xCB), "a lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE), "a hierarchical JPEG"),
    0xF7: "a JPEG-LS",
}
_END, _SCAN = 0xD9, 0xDA
_MAX_SCANS = 100  # each scan is a pass over all pixels, and a small file can hold a million scans
_MAX_SEGMENTS = 10_000  # each has up to 64 KiB

_RUN_LENGTH = (1, 2)  # BMP compression methods: run-length encoding of 8-bit and 4-bit pixels
_BITS = {"1": 1, "L": 8}  # bits per pixel that Pillow assumes for a BMP that it opens in this mode

# What Pillow raises for damaged files. It turns those in the second line into a SyntaxError while
# opening a file, but not later; AssertionError means that the palette is missing.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError),
    *(IndexError, TypeError, KeyError, EOFError, struct.error),
    AssertionError,
)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Turns what Pillow raises for a bad file into a UserError. Wrap nothing else in it.

    Raises:
      UserError: the file is damaged, too large or no image; the message does not name the file.
    """
    try:
        yield
    except Image.UnidentifiedImageError as error:
        raise UserError("not a PNG, JPEG, WebP, GIF or BMP image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels: make it smaller") from error
    except _DAMAGE as error:
        raise UserError(f"damaged ({' '.join(str(error).split())})") from error


def open_image(data: bytes) -> Image.Image:
    """Opens the image in the bytes of a file without decoding it; calling its `draft` is safe.

    Raises:
      UserError: Pillow cannot decode the image correctly; the message does not name the file.
    """
    size = _jpeg_size(data) if data.startswith(b"\xff\xd8\xff") else None
    with reading():
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    if size not in (None, image.size):
        raise UserError("damaged (a JPEG with two sizes)")
    if image.format == "BMP":
        _check_bmp(image, data)
    return image


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height in the single frame header, which must come before the scans."""
    frame, scans = b"", 0
    for count, (kind, body) in enumerate(_segments(data)):
        if kind in _REFUSED:
            raise _unsupported(_REFUSED[kind])
        if kind in _DCT:
            if frame or len(body) < 6:
                raise UserError("damaged (a JPEG with two frames or a truncated one)")
            frame = body
        scans += kind == _SCAN
        if scans > _MAX_SCANS or count > _MAX_SEGMENTS:
            raise _unsupported("a JPEG with very many scans or segments")
        if scans and not frame:
            break
    if not frame:
        raise UserError("damaged (a JPEG without a frame)")
    bits, height, width, components = struct.unpack_from(">BHHB", frame)
    if bits != 8 or components not in (1, 3, 4):
        raise _unsupported(f"a JPEG with {components} x {bits} bits per pixel")
    if not height:
        raise _unsupported("a JPEG without a height in its header")
    return width, height


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the markers of a JPEG with their content, up to the end of the image."""
    at = 2
    while found := _MARKER.search(data, at):
        kind, at = data[found.end() - 1], found.end()
        if kind == _END:
            return
        length = max(2, int.from_bytes(data[at : at + 2]))
        yield kind, data[at + 2 : at + length]
        at += length


def _check_bmp(image: Image.Image, data: bytes) -> None:
    if image.info["compression"] in _RUN_LENGTH:
        raise _unsupported("a run-length-encoded BMP")
    core = int.from_bytes(data[14:18], "little") == 12  # the oldest header, with smaller fields
    (bits,) = struct.unpack_from("<H", data, 24 if core else 28)
    # Pillow picks mode 1 or L from the palette alone (black and white, or a ramp of grays) and then
    # ignores how many bits a pixel really has.
    if bits != _BITS.get(image.mode, bits):
        raise _unsupported(f"a BMP with a gray or two-color palette and {bits}-bit pixels")


def _unsupported(kind: str) -> UserError:
    return UserError(f"{kind}, which is not supported: save it as PNG")
