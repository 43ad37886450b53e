"""Image files are decoded to the right pixels; anything else is refused with a reason."""

import io
import pathlib
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import jpegs
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from cifar_jax.data import images
from cifar_jax.errors import UserError

RGB = (4, 4, 3)


def encoded(image: Image.Image, format: str = "PNG", **options: Any):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def solid(mode: str, color: int | tuple[int, ...], size: tuple[int, int] = (40, 30)):
    return Image.new(mode, size, color)


def color_of(data: bytes, shape: tuple[int, int, int] = RGB):
    """Decodes an image that has a single color, and returns it."""
    pixels = images.decode(data, shape)
    assert pixels.dtype == np.uint8 and pixels.shape == shape
    assert (pixels == pixels[0, 0]).all()
    return tuple(int(value) for value in pixels[0, 0])


# ---------------------------------------------------------------------------- colors
@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (solid("RGB", (200, 100, 50)), (200, 100, 50)),
        (solid("L", 77), (77, 77, 77)),
        (solid("1", 1), (255, 255, 255)),
        (solid("1", 0), (0, 0, 0)),
        (solid("LA", (77, 255)), (77, 77, 77)),
        (solid("LA", (77, 0)), (255, 255, 255)),
        (solid("RGBA", (200, 100, 50, 255)), (200, 100, 50)),
        (solid("RGBA", (200, 100, 50, 0)), (255, 255, 255)),
        (solid("RGBA", (0, 0, 255, 51)), (204, 204, 255)),  # one fifth blue, four fifths white
        (solid("P", 0), (0, 0, 0)),
    ],
    ids=lambda value: f"{value.mode} {value.getpixel((0, 0))}" if hasattr(value, "mode") else "",
)
def test_a_solid_color_is_preserved(image: Image.Image, expected: tuple[int, int, int]):
    assert color_of(encoded(image)) == expected


@pytest.mark.parametrize("format", ["BMP", "GIF", "PNG", "WEBP"])
def test_every_lossless_format_gives_the_same_pixels(format: str):
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(solid("RGB", (200, 100, 50)), format, **options)
    assert color_of(data) == (200, 100, 50)


@pytest.mark.parametrize(("mode", "color", "expected"), [
    ("RGB", (200, 100, 50), (200, 100, 50)),
    ("L", 77, (77, 77, 77)),
    ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
    ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
])  # fmt: skip
def test_jpeg_is_decoded_in_every_mode_up_to_rounding(
    mode: str, color: int | tuple[int, ...], expected: tuple[int, int, int]
):
    found = color_of(encoded(solid(mode, color), "JPEG", quality=100))
    np.testing.assert_allclose(found, expected, atol=2)


def test_16_bit_gray_is_scaled_and_rounded():
    levels = np.array([[0, 128, 129, 257, 32767, 32768, 65406, 65535]], np.uint16)
    pixels = images.decode(encoded(Image.fromarray(levels)), (1, 8, 1))
    np.testing.assert_array_equal(pixels[0, :, 0], np.rint(levels[0] * 255.0 / 65535))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 127, 128, 254, 255]


def test_16_bit_color_is_scaled_too():
    def chunk(kind: bytes, body: bytes):
        end = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + end

    # One pixel of 16-bit RGB, which Pillow cannot write.
    row = b"\0" + struct.pack(">3H", 65535, 257 * 100, 0)
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row))
    assert color_of(data + chunk(b"IEND", b"")) == (255, 100, 0)


@pytest.mark.parametrize("level", [0, 1000, 65535])
def test_a_transparent_level_of_16_bit_gray_becomes_white(level: int):
    levels = np.array([[0, 1000, 2000, 65535]], np.uint16)
    data = encoded(Image.fromarray(levels), transparency=level)
    expected = [255 if value == level else round(value / 257) for value in levels[0].tolist()]
    assert images.decode(data, (1, 4, 1))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_transparent_palette_entry_becomes_white(format: str):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    pixels = images.decode(encoded(image, format, transparency=0), (1, 2, 3))
    assert pixels.tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_a_palette_with_partial_transparency_is_blended_with_white():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 255, 200, 100, 50])
    image.putpixel((1, 0), 1)
    pixels = images.decode(encoded(image, transparency=bytes([51, 255])), (1, 2, 3))
    assert pixels.tolist() == [[[204, 204, 255], [200, 100, 50]]]


def test_the_color_of_transparent_pixels_does_not_bleed():
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[:, 0::2] = (0, 255, 0, 0)
    pixels[:, 1::2] = (255, 0, 0, 255)
    found = images.decode(encoded(Image.fromarray(pixels)), RGB).astype(int)
    np.testing.assert_allclose(found, np.broadcast_to((255, 127, 127), RGB), atol=10)


@pytest.mark.parametrize(("color", "gray"), [
    ((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29), ((77, 77, 77), 77),
])  # fmt: skip
def test_one_channel_gets_the_luma_of_itu_r_601(color: tuple[int, int, int], gray: int):
    assert color_of(encoded(solid("RGB", color)), (4, 4, 1)) == (gray,)


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(UserError, match="4 channels, not 1 \\(gray\\) or 3 \\(RGB\\)"):
        images.decode(encoded(solid("RGB", 0)), (4, 4, 4))


def test_an_animation_gives_its_first_frame():
    frames = [solid("RGB", (200, 100, 50)), solid("RGB", (0, 0, 255))]
    for format in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert color_of(data) == (200, 100, 50)


# ---------------------------------------------------------------------------- shape
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


@pytest.mark.parametrize("fit", images.FITS)
def test_an_image_of_the_right_size_is_unchanged(fit: str):
    found = images.decode(encoded(Image.fromarray(NOISE)), (32, 32, 3), fit)
    np.testing.assert_array_equal(found, NOISE)


@pytest.mark.parametrize(("orientation", "upright"), [
    (1, lambda stored: stored),
    (2, lambda stored: stored[:, ::-1]),
    (3, lambda stored: stored[::-1, ::-1]),
    (4, lambda stored: stored[::-1]),
    (5, lambda stored: stored.swapaxes(0, 1)),
    (6, lambda stored: np.rot90(stored, -1)),  # clockwise
    (7, lambda stored: stored[::-1, ::-1].swapaxes(0, 1)),
    (8, lambda stored: np.rot90(stored)),
    (9, lambda stored: stored),  # not a valid orientation
])  # fmt: skip
def test_images_are_turned_upright_by_exif_orientation(
    orientation: int, upright: Callable[..., Any]
):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = NOISE[:5, :7]
    expected = upright(stored)
    for format, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        data = encoded(Image.fromarray(stored), format, exif=exif, **options)
        np.testing.assert_array_equal(images.decode(data, expected.shape), expected)
    blocks = np.kron(stored[:2, :3], np.ones((16, 16, 1), np.uint8))
    data = encoded(Image.fromarray(blocks), "JPEG", exif=exif, quality=100, subsampling=0)
    expected = upright(blocks).astype(int)
    assert np.abs(images.decode(data, expected.shape) - expected).mean() < 2


def test_malformed_exif_fields_do_not_affect_the_orientation():
    # Two big-endian entries: a width that is a string, and the orientation.
    entries = struct.pack(">HHI4s", 256, 2, 2, b"7") + struct.pack(">HHIHH", 274, 3, 1, 2, 0)
    exif = b"MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(4)
    data = encoded(Image.fromarray(NOISE), exif=exif)
    with pytest.raises(struct.error):  # so Pillow's own function would not do
        ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(images.decode(data, (32, 32, 3)), NOISE[:, ::-1])


def test_crop_takes_the_center_and_whole_squeezes_everything():
    thirds = np.zeros((30, 90, 3), np.uint8)
    thirds[:, :30, 0] = thirds[:, 30:60, 1] = thirds[:, 60:, 2] = 255
    for wide in (thirds, thirds.swapaxes(0, 1)):
        data = encoded(Image.fromarray(wide))
        cropped = images.decode(data, (30, 30, 3))
        np.testing.assert_array_equal(cropped, np.full((30, 30, 3), (0, 255, 0)))
        whole = images.decode(data, (30, 30, 3), "whole")
        np.testing.assert_allclose(whole.mean((0, 1)), 85, atol=1)
        assert whole[0, 0].tolist() == [255, 0, 0] and whole[-1, -1].tolist() == [0, 0, 255]


def test_crop_also_fits_results_that_are_not_square():
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:30] = 255
    found = images.decode(encoded(Image.fromarray(image)), (20, 40, 3))
    np.testing.assert_array_equal(found, np.full((20, 40, 3), 255))


def test_shrinking_is_antialiased():
    checks = np.indices((256, 256)).sum(0) % 2 * np.uint8(255)
    for image in (Image.fromarray(checks.astype(np.uint8)), Image.fromarray(checks > 0)):
        pixels = images.decode(encoded(image), (32, 32, 3))
        np.testing.assert_allclose(pixels[2:-2, 2:-2].astype(int), 127, atol=2)


@pytest.mark.parametrize("size", [(1200, 900), (1203, 905), (817, 777)])
@pytest.mark.parametrize("fit", images.FITS)
def test_a_drafted_jpeg_looks_like_the_full_image_resized(size: tuple[int, int], fit: str):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
    photo = coarse.resize(size, Image.Resampling.BICUBIC)
    found = images.decode(encoded(photo, "JPEG", quality=95), (32, 32, 3), fit).astype(int)
    expected = images.decode(encoded(photo), (32, 32, 3), fit)
    assert np.abs(found - expected).max() <= 4


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (31, 33)])
def test_images_of_any_size_are_decoded(size: tuple[int, int]):
    assert color_of(encoded(solid("RGB", (200, 100, 50), size))) == (200, 100, 50)


# ---------------------------------------------------------------------------- sources and refusals
def test_bytes_paths_and_streams_give_the_same_pixels(tmp_path: pathlib.Path):
    data = encoded(Image.fromarray(NOISE))
    (tmp_path / "no suffix").write_bytes(data)
    for source in (data, tmp_path / "no suffix", str(tmp_path / "no suffix"), io.BytesIO(data)):
        np.testing.assert_array_equal(images.decode(source, (32, 32, 3)), NOISE)


@pytest.mark.parametrize(("source", "reason"), [
    (b"", "empty"),
    (b"no image at all", "not a PNG"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "not a PNG"),
    (encoded(solid("RGB", 0), "TIFF"), "not a PNG"),
    (encoded(Image.fromarray(NOISE))[:-200], "damaged"),
    (encoded(Image.fromarray(NOISE), "JPEG")[:-200], "damaged"),
    ("nowhere.png", "cannot be read .No such file"),
    ("tests", "cannot be read .Is a directory"),
])  # fmt: skip
def test_a_bad_source_is_refused_with_the_reason(source: bytes | str, reason: str):
    with pytest.raises(UserError, match=reason) as caught:
        images.decode(source, RGB)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("width", [10, 11, 21, 1000])  # Pillow warns from 101 pixels, raises at 201
def test_decompression_bombs_are_refused(width: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = encoded(solid("RGB", 0, (width, 10)))
    if width == 10:
        assert color_of(data) == (0, 0, 0)
    else:
        with pytest.raises(UserError, match="more than 100 pixels"):
            images.decode(data, RGB)


def test_a_header_that_claims_a_gigapixel_is_refused_at_once():
    data = bytearray(encoded(solid("RGB", 0)))
    data[16:24] = struct.pack(">II", 40_000, 40_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(UserError, match="more than 89,478,485 pixels"):
        images.decode(bytes(data), RGB)


def test_reading_stops_at_the_size_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path):
    data = encoded(Image.fromarray(NOISE))
    monkeypatch.setattr(images, "MAX_BYTES", len(data))
    images.decode(io.BytesIO(data), RGB)
    endless = io.BytesIO(data * 100)
    with pytest.raises(UserError, match="MiB: make it smaller"):
        images.decode(endless, RGB)
    assert endless.tell() == len(data) + 1
    with pytest.raises(UserError, match="MiB: make it smaller"):
        images.decode(data + b"0", RGB)


def seeds():
    """Small valid files in every format and many variants."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make], exif[ExifTags.Base.XResolution] = "maker", 1.5
    rgb = Image.fromarray(NOISE[:20, :24])
    other = rgb.rotate(180)
    gray16 = Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24) * 100)
    together = {"save_all": True, "append_images": [other]}
    files = [
        *(encoded(rgb, format, exif=exif) for format in ("PNG", "JPEG", "WEBP")),
        *(encoded(rgb, format, **together) for format in ("PNG", "WEBP", "GIF", "MPO")),
        *(encoded(rgb.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")),
        *(encoded(rgb.convert(mode)) for mode in ("1", "L", "LA", "P", "RGBA")),
        encoded(rgb.convert("P"), transparency=3),
        encoded(gray16),
        encoded(rgb.convert("CMYK"), "JPEG"),
        encoded(rgb.convert("L"), "JPEG", progressive=True),
        encoded(rgb.convert("RGBA"), "WEBP", lossless=True, exif=exif),
        encoded(rgb.convert("CMYK"), "JPEG", progressive=True),
        encoded(rgb.convert("CMYK"), "JPEG").replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2"),
        *map(jpegs.from_tool, jpegs.FROM_TOOLS),
        *(jpegs.lossless(NOISE[:20, :24, :channels]) for channels in (1, 3)),
        jpegs.gray_blocks((24, 20), jpegs.SOF1, bits=12),
        jpegs.gray_blocks((400, 300)),  # large enough to be drafted
    ]
    return files


def mutated(rng: random.Random, files: list[bytes]):
    """A file with changed bytes, truncated, or spliced with the end of another."""
    data = bytearray(rng.choice(files))
    kind = rng.choice(("flip", "flip", "truncate", "splice"))
    if kind == "flip":
        reach = rng.choice((64, 300, len(data)))  # most faults need a change in the header
        for _ in range(rng.choice((1, 2, 5, 20))):
            data[rng.randrange(min(len(data), reach))] = rng.randrange(256)
    elif kind == "truncate":
        data = data[: rng.randrange(len(data))]
    else:
        end = rng.choice(files)
        data = data[: rng.randrange(len(data))] + end[rng.randrange(len(end)) :]
    if data.startswith(b"\x89PNG") and rng.random() < 0.5:
        data = with_right_checksums(bytes(data))  # otherwise Pillow stops at the wrong checksum
    return bytes(data)


def with_right_checksums(png: bytes):
    whole, at = png[:8], 8
    while at + 12 <= len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        body = png[at + 4 : at + 8 + length]
        whole += png[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return whole


@pytest.mark.filterwarnings("ignore::UserWarning")  # from Pillow, about EXIF and animations
def test_500_mutated_files_are_decoded_or_refused():
    rng = random.Random(0)
    files = seeds()
    outcomes = []
    for _ in range(500):
        try:
            assert images.decode(mutated(rng, files), RGB).shape == RGB
            outcomes.append("decoded")
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            outcomes.append("refused")
    assert min(outcomes.count("decoded"), outcomes.count("refused")) > 50


@pytest.mark.parametrize(("kind", "body"), [
    (b"gAMA", b"1"), (b"tRNS", b"1"), (b"iCCP", b"p\0"),
])  # fmt: skip
def test_a_png_damaged_after_its_pixels_is_refused(kind: bytes, body: bytes):
    data = encoded(Image.fromarray(NOISE[..., 0]))
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    end = data.index(b"IEND") - 4
    with pytest.raises(UserError, match="damaged"):
        images.decode(data[:end] + chunk + data[end:], RGB)


def test_a_missing_palette_is_reported_as_damage():
    data = encoded(Image.fromarray(NOISE).convert("P"))
    at = data.index(b"PLTE") - 4
    (length,) = struct.unpack(">I", data[at : at + 4])
    with pytest.raises(UserError, match="damaged"):
        images.decode(data[:at] + data[at + 12 + length :], RGB)
