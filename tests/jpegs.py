"""JPEGs that Pillow cannot write: rare sub-formats, and files assembled by hand."""

import pathlib
import struct
from collections.abc import Sequence

import numpy as np

SOF0, SOF1, SOF3, SOF5, DHT, SOS, DQT, DHP = 0xC0, 0xC1, 0xC3, 0xC5, 0xC4, 0xDA, 0xDB, 0xDE

# One image, 24 pixels wide and 20 high, written by libjpeg-turbo's `cjpeg -quality 95 -sample 1x1`:
# original.jpg as it is, arithmetic.jpg with -arithmetic, arithmetic-progressive.jpg with
# -progressive as well, multiscan.jpg with -scans (a scan for each component), restarts.jpg with
# -restart 1B.
FILES = pathlib.Path(__file__).parent / "pictures"
FROM_TOOLS = ("arithmetic", "arithmetic-progressive", "multiscan", "restarts")


def from_tool(name: str) -> bytes:
    return (FILES / f"{name}.jpg").read_bytes()


def segment(kind: int, body: bytes) -> bytes:
    return bytes([0xFF, kind]) + struct.pack(">H", len(body) + 2) + body


def frame(kind: int, size: tuple[int, int], bits: int, components: int) -> bytes:
    """A frame segment; `size` is (width, height)."""
    each = b"".join(bytes([1 + i, 0x11, 0]) for i in range(components))
    return segment(kind, struct.pack(">BHHB", bits, size[1], size[0], components) + each)


def scan(components: int, code: str, selection: bytes) -> bytes:
    """A scan segment and its entropy-coded data; `code` is a string of 0 and 1."""
    each = b"".join(bytes([1 + i, 0]) for i in range(components))
    code += "1" * (-len(code) % 8)
    content = bytes(int(code[i : i + 8], 2) for i in range(0, len(code), 8))
    head = segment(SOS, bytes([components]) + each + selection)
    return head + content.replace(b"\xff", b"\xff\0")


def table(kind: int, symbols: Sequence[int]) -> bytes:
    """A Huffman table segment; the code of each symbol is its index, in 5 bits."""
    return segment(DHT, bytes([kind, 0, 0, 0, 0, len(symbols), *[0] * 11, *symbols]))


def _difference(value: int) -> str:
    """Encodes a difference: its category in 5 bits, then its value bits."""
    category = abs(value).bit_length()
    bits = value if value >= 0 else value + (1 << category) - 1
    return f"{category:05b}" + (f"{bits:0{category}b}" if category else "")


def lossless(pixels: np.ndarray) -> bytes:
    """`[H, W, C]` uint8 as a lossless JPEG (SOF3, predictor 1), which libjpeg-turbo 3 decodes."""
    height, width, components = pixels.shape
    values = pixels.astype(int)
    predicted = np.empty_like(values)
    predicted[:, 1:], predicted[1:, 0], predicted[0, 0] = values[:, :-1], values[:-1, 0], 128
    code = "".join(map(_difference, (values - predicted).ravel().tolist()))
    return b"".join([
        b"\xff\xd8",
        frame(SOF3, (width, height), 8, components),
        table(0, range(17)),
        scan(components, code, b"\1\0\0"),
        b"\xff\xd9",
    ])  # fmt: skip


def gray_blocks(size: tuple[int, int], kind: int = SOF0, bits: int = 8) -> bytes:
    """A uniformly gray JPEG; `kind` and `bits` of its header may be wrong on purpose."""
    blocks = (size[0] + 7) // 8 * ((size[1] + 7) // 8)
    code = (_difference(0) + "00000") * blocks
    return b"".join([
        b"\xff\xd8",
        segment(DQT, bytes([0, *[1] * 64])),
        frame(kind, size, bits, 1),
        table(0, range(16)),
        table(0x10, [0]),
        scan(1, code, b"\0\x3f\0"),
        b"\xff\xd9",
    ])  # fmt: skip
