"""Which files the pinned Pillow decodes right, of the formats that are taken; it opens no others.

Pillow 12.3 hands a JPEG to libjpeg without asking whether both mean a picture of the same size, and
writes past its memory where they do not: a lossless one is never shrunk, whatever `Image.draft`
expects. So its header is read here first, as libjpeg reads it.
"""

import contextlib
import io
import re
import struct
from collections.abc import Iterator

from PIL import Image

from cifar_jax.errors import UserError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")

# Of JPEG, by ITU-T T.81, table B.1. A marker is a byte behind 0xFF; what stands before it is passed
# over. 00 is none, and 01 and the restarts D0 to D7 have no content.
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
_DCT = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # sequential or progressive, by Huffman or arithmetic codes
_REFUSED = {
    **dict.fromkeys((0xC3, 0xCB), "a lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE), "a hierarchical JPEG"),
    0xF7: "a JPEG-LS",
}
_END, _SCAN = 0xD9, 0xDA
_MOST_SCANS = 100  # each is a pass over all pixels, and a small file can hold a million
_MOST_SEGMENTS = 10_000  # of up to 64 KiB

_RUN_LENGTH = (1, 2)  # compressions of BMP, by 8 bits and by 4
_BITS = {"1": 1, "L": 8}  # of a pixel, as Pillow reads a BMP that it takes for black and white


# What Pillow raises on damaged files. Those of the second line it makes a SyntaxError while it
# opens a file, but lets through afterwards; the last is for a palette that is missing.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError),
    *(IndexError, TypeError, KeyError, EOFError, struct.error),
    AssertionError,
)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Around what Pillow reads of a file, and nothing else: what it raises there is damage.

    Raises:
      UserError: the message is the reason alone.
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
    """The image in a file's content, not loaded yet; its `draft` is safe.

    Raises:
      UserError: Pillow does not decode it, or decodes it wrongly; the message is the reason alone.
    """
    size = _jpeg_size(data) if data.startswith(b"\xff\xd8\xff") else None
    with reading():
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    if size not in (None, image.size):
        raise UserError("damaged (a JPEG of two sizes)")
    if image.format == "BMP":
        _check_bmp(image, data)
    return image


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height, of the one frame that comes before the scans."""
    frame, scans = b"", 0
    for count, (kind, body) in enumerate(_segments(data)):
        if kind in _REFUSED:
            raise _unsupported(_REFUSED[kind])
        if kind in _DCT:
            if frame or len(body) < 6:
                raise UserError("damaged (a JPEG of two frames, or of half a one)")
            frame = body
        scans += kind == _SCAN
        if scans > _MOST_SCANS or count > _MOST_SEGMENTS:
            raise _unsupported("a JPEG of very many scans or segments")
        if scans and not frame:
            break
    if not frame:
        raise UserError("damaged (a JPEG without a frame)")
    bits, height, width, components = struct.unpack_from(">BHHB", frame)
    if bits != 8 or components not in (1, 3, 4):
        raise _unsupported(f"a JPEG of {components} x {bits} bits a pixel")
    if not height:
        raise _unsupported("a JPEG that does not say its height")
    return width, height


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The markers of a JPEG with their contents, up to the end of its image."""
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
        raise _unsupported("a run-length-coded BMP")
    core = int.from_bytes(data[14:18], "little") == 12  # the oldest header, of smaller fields
    (bits,) = struct.unpack_from("<H", data, 24 if core else 28)
    # By the palette alone, of two colours or a ramp of greys, however many bits a pixel has.
    if bits != _BITS.get(image.mode, bits):
        raise _unsupported(f"a BMP of {bits} bits a pixel with grey or two colors")


def _unsupported(kind: str) -> UserError:
    return UserError(f"{kind}, which is not supported: save it as PNG")
