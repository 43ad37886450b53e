"""A damaged cache is never used, and a failed write leaves no partial file behind."""

import errno
import logging
import os
import pathlib
import threading
import zipfile
from typing import Any

import numpy as np
import pytest

from cifar_jax.data import cache
from cifar_jax.errors import UserError


def arrays(seed: int = 0):
    rng = np.random.default_rng(seed)
    return {
        "train_images": rng.integers(0, 256, (3, 4, 4, 1), np.uint8),
        "train_labels": rng.integers(0, 2, 3, np.int32),
        "test_images": rng.integers(0, 256, (2, 4, 4, 1), np.uint8),
        "test_labels": rng.integers(0, 2, 2, np.int32),
        "class_names": np.array(["cat", "dog"]),
    }


def assert_same(found: dict[str, np.ndarray] | None, expected: dict[str, np.ndarray]):
    assert found is not None
    assert set(found) == set(expected)
    for field, array in expected.items():
        assert found[field].dtype == array.dtype
        np.testing.assert_array_equal(found[field], array)


def test_read_returns_what_write_stored(tmp_path: pathlib.Path):
    path = tmp_path / "new" / "directory" / "set.npz"
    cache.write(path, arrays())
    assert_same(cache.read(path), arrays())
    assert [file.name for file in path.parent.iterdir()] == ["set.npz"]


def test_a_missing_cache_gives_no_warning(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture):
    assert cache.read(tmp_path / "set.npz") is None
    assert not caplog.records


def test_a_flipped_byte_is_never_read_as_data(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "set.npz"
    cache.write(path, arrays())
    whole = path.read_bytes()
    refused = 0
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 0xFF
        path.write_bytes(flipped)
        found = cache.read(path)
        if found is None:
            refused += 1
        else:  # a byte of zip's metadata, such as a date
            assert_same(found, arrays())
    assert refused > sum(array.nbytes for array in arrays().values())
    assert refused == len([r for r in caplog.records if r.levelno == logging.WARNING])


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_a_truncated_cache_is_not_used(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, length: int
):
    path = tmp_path / "set.npz"
    cache.write(path, arrays())
    path.write_bytes(path.read_bytes()[:length])
    assert cache.read(path) is None
    assert len(caplog.records) == 1 and str(path) in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"train_labels": np.zeros(2, np.int32)},
        {"train_labels": np.zeros(3, np.int64)},
        {"test_images": np.zeros((2, 4, 4, 1), np.float32)},
        {"test_images": np.zeros((2, 4, 4), np.uint8)},
    ],
)
def test_arrays_of_a_wrong_shape_or_dtype_are_not_used(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, change: dict[str, np.ndarray]
):
    path = tmp_path / "set.npz"
    cache.write(path, arrays() | change)
    assert cache.read(path) is None
    assert len(caplog.records) == 1


@pytest.mark.parametrize("shape", ["(10**15,)", "(9" + "9" * 30 + ",)", "[", "(3,-1)", "x", "\t("])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_file_with_an_absurd_header_is_not_used(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, method: int, shape: str
):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    length = len(header).to_bytes(2, "little")
    with zipfile.ZipFile(tmp_path / "set.npz", "w", method) as npz:
        for field in cache.FIELDS:
            npz.writestr(f"{field}.npy", b"\x93NUMPY\1\0" + length + header.encode() + b"abc")
    assert cache.read(tmp_path / "set.npz") is None
    assert len(caplog.records) == 1


def test_only_a_regular_file_is_read_as_a_cache(tmp_path: pathlib.Path):
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "directory.npz").mkdir()
    for name in ("pipe", "directory"):
        assert cache.read(tmp_path / f"{name}.npz") is None
        cache.write(tmp_path / f"{name}.npz", arrays())  # replaces the pipe, fails on the directory
    assert_same(cache.read(tmp_path / "pipe.npz"), arrays())


def test_pickled_objects_are_not_loaded(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "set.npz"
    np.savez(path, allow_pickle=True, **(arrays() | {"class_names": np.array(["cat", 1], object)}))
    assert cache.read(path) is None
    assert len(caplog.records) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_user_error_and_leaves_no_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, code: int
):
    def savez(file: Any, **_):
        file.write(b"half of it")
        raise OSError(code, "full")

    monkeypatch.setattr(np, "savez", savez)
    big = arrays() | {"train_images": np.zeros((2000, 32, 32, 3), np.uint8)}
    with pytest.raises(UserError, match=r"6 MB.*config\.data\.cache_dir"):
        cache.write(tmp_path / "set.npz", big)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_previous_cache(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "set.npz"
    cache.write(path, arrays(0))
    monkeypatch.setattr(np, "savez", lambda file, **_: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cache.write(path, arrays(1))
    assert_same(cache.read(path), arrays(0))
    assert [file.name for file in tmp_path.iterdir()] == ["set.npz"]


def test_an_unwritable_directory_only_gives_a_warning(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").write_text("not a directory")
    path = tmp_path / "file" / "set.npz"
    cache.write(path, arrays())
    assert cache.read(path) is None
    assert "cannot write" in caplog.text and str(path) in caplog.text


def test_readers_see_whole_caches_while_writers_race(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "set.npz"
    candidates = [arrays(0), arrays(1)]
    cache.write(path, candidates[0])

    def rewrite(candidate: dict[str, np.ndarray]):
        for _ in range(30):
            cache.write(path, candidate)

    writers = [threading.Thread(target=rewrite, args=[candidate]) for candidate in candidates]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        found = cache.read(path)
        assert found is not None
        sums = [candidate["train_images"].sum() for candidate in candidates]
        assert_same(found, candidates[sums.index(found["train_images"].sum())])
    for writer in writers:
        writer.join()
    assert not caplog.records
    assert [file.name for file in tmp_path.iterdir()] == ["set.npz"]


def test_the_config_decides_the_directory_then_the_environment(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.path_of("~/mine", "a/b:1", "x").parent == tmp_path / "home" / "mine"
    assert cache.path_of("", "cifar10", "x").parent == tmp_path / "xdg" / "cifar_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.path_of("", "cifar10", "x").parent == tmp_path / "home" / ".cache" / "cifar_jax"


def test_different_content_has_a_different_path():
    assert cache.path_of("", "cifar10", "x") != cache.path_of("", "cifar10", "y")
