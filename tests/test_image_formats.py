"""Files that Pillow decodes wrongly are refused; all others are decoded correctly."""

import io
import pathlib
import struct
from typing import Any

import command_line
import jpegs
import numpy as np
import pytest
import tiny
from etils import epath
from PIL import Image

from cifar_jax.data import images
from cifar_jax.errors import UserError

SHAPE = (20, 24, 3)
PIXELS = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
COLORS = np.random.default_rng(1).integers(0, 256, (16, 3), np.uint8)
GRAYS = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
TWO = np.array([[0, 0, 0], [255, 255, 255]], np.uint8)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def bmp(
    size: tuple[int, int], bits: int, content: bytes, palette: np.ndarray, compression: int = 0
) -> bytes:
    """A BMP with a BITMAPINFOHEADER and a palette `[N, 3]`; `content` starts at the bottom row."""
    colors = np.pad(palette[:, ::-1], ((0, 0), (0, 1))).tobytes()
    start = 14 + 40 + len(colors)
    counts = (len(content), 0, 0, len(palette), 0)
    info = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, compression, *counts)
    return (
        struct.pack("<2sIHHI", b"BM", start + len(content), 0, 0, start) + info + colors + content
    )


def reason(data: bytes, shape: tuple[int, int, int] = (4, 4, 3)) -> str:
    """The one-line reason why `data` is refused."""
    with pytest.raises(UserError) as caught:
        images.decode(data, shape)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# ---------------------------------------------------------------------------- JPEG, refused
def hierarchical() -> bytes:
    """A small frame, followed by a differential frame that enlarges it."""
    small, end = jpegs.gray_blocks((12, 10))[2:-2], b"\xff\xd9"
    larger = jpegs.gray_blocks((24, 20), jpegs.SOF5)[2:-2]
    return b"\xff\xd8" + jpegs.frame(jpegs.DHP, (24, 20), 8, 1) + small + larger + end


REFUSED = {
    "a lossless JPEG": jpegs.lossless(PIXELS),
    "a lossless JPEG, which": jpegs.lossless(PIXELS[..., :1]),
    "a hierarchical JPEG": hierarchical(),
    "a JPEG-LS": jpegs.gray_blocks((24, 20), 0xF7),
    "a JPEG with 1 x 12 bits per pixel": jpegs.gray_blocks((24, 20), jpegs.SOF1, 12),
    "a JPEG without a height in its header": jpegs.gray_blocks((24, 0)),
    "a run-length-encoded BMP": bmp((4, 1), 4, b"\4\x12\0\1", COLORS, 2),
    "a run-length-encoded BMP, which": bmp((4, 1), 8, b"\4\1\0\1", COLORS, 1),
    "a BMP with a gray or two-color palette and 8-bit": bmp((4, 1), 8, b"\0\1\1\0", TWO),
    "a BMP with a gray or two-color palette and 4-bit": bmp(
        (8, 1), 4, b"\0\x12\x34\x56", GRAYS[:16]
    ),
    "a BMP with a gray or two-color palette and 4-bit pixels": bmp((8, 1), 4, b"\0\1\1\0", TWO),
    "a BMP with a gray or two-color palette and 1-bit pixels": bmp((32, 1), 1, bytes(4), TWO[:1]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_kinds_that_pillow_decodes_wrongly_are_refused(kind: str):
    found = reason(REFUSED[kind])
    assert found.startswith(kind) and found.endswith(", which is not supported: save it as PNG")


@pytest.mark.parametrize("marker", [m for m in range(0xC0, 0xD0) if m not in (0xC4, 0xC8, 0xCC)])
@pytest.mark.parametrize("size", [(400, 304), (24, 20)])
def test_a_frame_of_any_kind_is_decoded_or_refused(marker: int, size: tuple[int, int]):
    """The rest of the file is always a sequential JPEG; only the frame marker differs."""
    data = jpegs.gray_blocks(size, marker)
    if marker in (0xC0, 0xC1):
        np.testing.assert_array_equal(images.decode(data, (4, 4, 3)), np.full((4, 4, 3), 128))
    elif marker in (0xC2, 0xC9, 0xCA):  # libjpeg decodes this kind, but the scan is of another kind
        try:
            images.decode(data, (4, 4, 3))
        except UserError as error:
            assert str(error).startswith("damaged")
    else:
        assert "not supported: save it as PNG" in reason(data)


@pytest.mark.parametrize("between", [
    b"",
    b"\0\1\2",  # skipped
    b"\xff\xff\xff",  # fill bytes
    b"\xff\0",
    b"\xff\xd0",
    jpegs.segment(0xFE, jpegs.frame(jpegs.SOF0, (8, 8), 8, 1)),
    jpegs.segment(0xE1, b"Exif\0\0" + jpegs.gray_blocks((8, 8))),
])  # fmt: skip
def test_the_frame_is_found_whatever_comes_before_it(between: bytes):
    lossless = jpegs.lossless(PIXELS)
    assert reason(lossless[:2] + b"\xff\xfe\0\2" + between + lossless[2:]).startswith("a lossless")
    plain = jpegs.gray_blocks((24, 20))
    found = images.decode(plain[:2] + b"\xff\xfe\0\2" + between + plain[2:], (4, 4, 3))
    np.testing.assert_array_equal(found, np.full((4, 4, 3), 128))


def test_a_jpeg_with_two_sizes_is_damaged():
    """Pillow would allocate memory for one size and libjpeg write the other."""
    small, large = jpegs.gray_blocks((24, 20)), jpegs.gray_blocks((400, 300))
    first = jpegs.frame(jpegs.SOF0, (24, 20), 8, 1)
    tables = large.index(b"\xff\xc0")
    end = b"\xff\xd9"
    for data in (
        large[:tables] + first + large[tables:],
        large[:2] + first + end + large,
        large[:2] + end + first + large[2:],
        large.replace(b"\xff\xda", first + b"\xff\xda", 1),
        small[:-2] + large[2:],
        large[:2] + jpegs.segment(jpegs.SOF0, b"\x08\0\x08") + large[2:],
    ):
        assert reason(data).startswith("damaged (a JPEG ")


def test_a_jpeg_with_very_many_scans_or_segments_is_refused():
    progressive = encoded(Image.fromarray(PIXELS), "JPEG", progressive=True)
    last = progressive.rindex(b"\xff\xda")
    assert "very many scans" in reason(progressive[:-2] + 100 * progressive[last:-2])
    assert "very many" in reason(progressive[:2] + 10_001 * b"\xff\xfe\0\2" + progressive[2:])


# ---------------------------------------------------------------------------- JPEG, decoded
@pytest.mark.parametrize("name", jpegs.FROM_TOOLS)
@pytest.mark.parametrize("shape", [SHAPE, (5, 6, 3)])  # decoded at full size, and drafted
def test_other_encodings_of_the_same_image_give_the_same_pixels(
    name: str, shape: tuple[int, int, int]
):
    expected = images.decode(jpegs.from_tool("original"), shape)
    np.testing.assert_array_equal(images.decode(jpegs.from_tool(name), shape), expected)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("transform", [0, 2])
def test_adobes_cmyk_and_ycck_are_inverted(transform: int, progressive: bool):
    stored = np.broadcast_to(np.array([10, 200, 90, 60], np.uint8), (16, 16, 4))
    data = encoded(Image.fromarray(stored, "CMYK"), "JPEG", quality=100, progressive=progressive)
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    inverted = 255 - stored[0, 0].astype(float)  # as stored
    if transform == 2:  # the first three channels are YCbCr
        y, cb, cr = inverted[:3] - (0, 128, 128)
        rgb = y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb
        inverted[:3] = 255 - np.clip(rgb, 0, 255)
    cmy, black = inverted[:3], inverted[3]
    expected = cmy * black / 255
    found = images.decode(data[:at] + bytes([transform]) + data[at + 1 :], (16, 16, 3))
    np.testing.assert_allclose(found[0, 0], expected, atol=3)


# ---------------------------------------------------------------------------- BMP
@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("palette", ["colors", "grays", "two"])
def test_a_bmp_with_a_palette_is_decoded_correctly_or_refused(bits: int, palette: str):
    colors = {"colors": COLORS, "grays": GRAYS, "two": TWO}[palette][: 2**bits]
    indices = np.random.default_rng(2).integers(0, len(colors), (6, 32))
    digits = np.unpackbits(indices[::-1, :, None].astype(np.uint8), axis=2)[..., 8 - bits :]
    data = bmp((32, 6), bits, np.packbits(digits).tobytes(), colors)
    try:
        found = images.decode(data, (6, 32, 3))
    except UserError as error:
        assert str(error).startswith(
            f"a BMP with a gray or two-color palette and {bits}-bit pixels"
        )
        assert palette != "colors" and (bits, palette) not in {(1, "two"), (8, "grays")}
    else:
        np.testing.assert_array_equal(found, colors[indices])


# ---------------------------------------------------------------------------- predict
@pytest.mark.slow
def test_a_lossless_jpeg_does_not_affect_other_predictions(
    compass: epath.Path, tmp_path: pathlib.Path
):
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(tiny.images_and_labels(6)[0]):
        Image.fromarray(image).save(tmp_path / f"photos/{i}.png")

    def predicted():
        status, output = command_line.run(
            "--mode=predict",
            f"--workdir={compass}",
            "--format=csv",
            str(tmp_path / "photos"),
        )
        lines = output.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        return status, errors, [line for line in lines if line not in errors]

    status, errors, rows = predicted()
    assert (status, errors, len(rows)) == (0, [], 7)
    large = np.random.default_rng(3).integers(0, 256, (200, 300, 3), np.uint8)
    (tmp_path / "photos/3a.jpg").write_bytes(jpegs.lossless(large))
    status, (error,), again = predicted()
    assert status == 65 and again == rows
    assert error.endswith("3a.jpg: a lossless JPEG, which is not supported: save it as PNG")


@pytest.mark.parametrize("format", ["DIB", "ICO", "ICNS", "TIFF", "PPM", "JPEG2000", "TGA", "EPS"])
def test_no_other_format_is_opened(format: str):
    data = encoded(Image.fromarray(PIXELS).resize((32, 32)), format)
    assert reason(data) == "not a PNG, JPEG, WebP, GIF or BMP image"
