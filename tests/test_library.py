"""`load`, `images.decode` and `Trained.predict` accept what their docstrings say, nothing else."""

import contextlib
import gzip
import io
import pathlib
import tempfile
import zipfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from etils import epath
from PIL import Image

import cifar_jax
from cifar_jax.data import images
from cifar_jax.errors import UserError
from cifar_jax.evaluation import trained

PIXELS, _ = tiny.images_and_labels(3, seed=5)
SHAPE = PIXELS.shape[1:]


@pytest.fixture(scope="module")
def model(compass: epath.Path):
    return cifar_jax.load(str(compass))


def one_line(caught: Any) -> str:
    text = str(caught.value)
    assert text and "\n" not in text
    return text


# ---------------------------------------------------------------------------- decode
@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("files") / "picture.png"
    Image.fromarray(PIXELS[0]).save(path)
    with gzip.open(path.with_suffix(".gz"), "wb") as packed:
        packed.write(path.read_bytes())
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        archive.write(path, "picture.png")
    return path


class SlowStream:
    """A stream outside `io` that returns fewer bytes than requested, as a socket does."""

    def __init__(self, data: bytes):
        self.data = data

    def read(self, _):
        part, self.data = self.data[:7], self.data[7:]
        return part


def temporary(path: pathlib.Path):
    stream = tempfile.NamedTemporaryFile()
    stream.write(path.read_bytes())
    stream.seek(0)
    return stream


SOURCES = {
    "str": str,
    "Path": pathlib.Path,
    "epath": epath.Path,
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "slice of a memoryview": lambda path: memoryview(b"x" + path.read_bytes())[1:],
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "open": lambda path: open(path, "rb"),
    "unbuffered": lambda path: open(path, "rb", buffering=0),
    "gzip": lambda path: gzip.open(path.with_suffix(".gz")),
    "zip": lambda path: zipfile.ZipFile(path.with_suffix(".zip")).open("picture.png"),
    "temporary": temporary,
    "slow": lambda path: SlowStream(path.read_bytes()),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_decode_accepts_a_path_the_content_or_a_stream(file: pathlib.Path, kind: str):
    with contextlib.ExitStack() as stack:
        source = SOURCES[kind](file)
        if hasattr(source, "close"):
            stack.callback(source.close)
        np.testing.assert_array_equal(images.decode(source, SHAPE), PIXELS[0])


@pytest.mark.parametrize(("source", "reason"), [
    (lambda: Image.fromarray(PIXELS[0]), "Image is not an image file: pass a path, bytes or a"),
    (lambda: PIXELS[0], "ndarray is not an image file"),
    (lambda: None, "NoneType is not an image file"),
    (lambda: 3, "int is not an image file"),
    (lambda: [b"x"], "list is not an image file"),
    (lambda: io.StringIO("x"), "a text stream is not an image file: open it in binary mode"),
    (lambda: io.BytesIO(), "empty"),
    (lambda: bytearray(), "empty"),
    (lambda: "", "cannot be read"),
    (lambda: "/", "cannot be read (Is a directory)"),
    (lambda: "nowhere.png", "cannot be read (No such file or directory)"),
    (lambda: "a\0b", "not a valid path"),
    (lambda: "/dev/zero", "a pipe, socket or device"),
])  # fmt: skip
def test_decode_refuses_anything_else(source: Callable[..., Any], reason: str):
    with pytest.raises(UserError) as caught:
        images.decode(source(), SHAPE)
    assert one_line(caught).startswith(reason)


def test_an_unknown_fit_is_refused(file: pathlib.Path):
    with pytest.raises(UserError, match="fit='stretch' is not one of crop, whole"):
        images.decode(file, SHAPE, "stretch")


# ---------------------------------------------------------------------------- predict
READ_ONLY = PIXELS.copy()
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize("given", [
    list(PIXELS), tuple(PIXELS), jax.numpy.asarray(PIXELS), READ_ONLY,
    np.asfortranarray(PIXELS), np.repeat(PIXELS, 2, axis=2)[:, :, ::2], PIXELS[::-1][::-1],
], ids=["list", "tuple", "jax", "read-only", "fortran", "strided", "reversed"])  # fmt: skip
def test_predict_accepts_an_array_or_a_list_of_images(model: trained.Trained, given: object):
    np.testing.assert_allclose(model.predict(given), model.predict(PIXELS), atol=1e-6)


@pytest.mark.parametrize(("given", "reason"), [
    (PIXELS[0], "uint8 [8, 8, 3]; put a single image into a list"),
    (PIXELS / 255, "float64 [3, 8, 8, 3]; convert them to whole numbers from 0 to 255"),
    (PIXELS.astype(np.float32) * np.nan, "float32 [3, 8, 8, 3]; convert them"),
    (PIXELS.astype(np.int64), "int64 [3, 8, 8, 3]; convert them"),
    (PIXELS > 99, "bool [3, 8, 8, 3]; convert them"),
    (PIXELS.transpose(0, 3, 1, 2), "uint8 [3, 3, 8, 8]"),
    (PIXELS[..., :1], "uint8 [3, 8, 8, 1]"),
    (PIXELS[None], "uint8 [1, 3, 8, 8, 3]"),
    (PIXELS.tobytes(), "|S"),
    (["cat.png"], "<U7 [1]"),
    ([], "float64 [0]"),
    (3, "int64 []"),
    ([PIXELS[0], PIXELS[0, 1:]], "setting an array element with a sequence"),
])  # fmt: skip
def test_predict_refuses_anything_else(model: trained.Trained, given: object, reason: str):
    for call in (model.predict, model.logits):
        with pytest.raises(UserError) as caught:
            call(given)
        text = one_line(caught)
        assert "takes images uint8 [N, 8, 8, 3]: " in text and reason in text


def test_predict_accepts_zero_images(model: trained.Trained):
    assert model.predict(PIXELS[:0]).shape == (0, 4)


# ---------------------------------------------------------------------------- load
def test_load_accepts_any_kind_of_path(
    compass: epath.Path, model: trained.Trained, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(compass.parent))
    for path in (compass, epath.Path(compass), f"{compass}/", f"~/{compass.name}"):
        assert cifar_jax.load(path).epoch == model.epoch
    monkeypatch.chdir(compass)
    assert cifar_jax.load(".").class_names == model.class_names


def test_load_refuses_paths_without_a_run(
    compass: epath.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path, tmp_path / "nowhere", compass / "config.json", "", "~nobody-here/run"):
        with pytest.raises(UserError, match="no run in .* train one there first"):
            cifar_jax.load(path)
    assert list(tmp_path.iterdir()) == []
