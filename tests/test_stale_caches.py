"""A cache is used only for the data that it was made from."""

import logging
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fabricate import Splits, prepare_cifar10, random_splits, write_tar
from test_sources import config, isolated, official  # noqa: F401

from cifar_jax.data import archive, cache, fingerprint, sources, tfds_prepare

SET = "cifar10:3.0.2"  # not in `sources.KNOWN`, like most data sets


@pytest.fixture
def caches(tmp_path: pathlib.Path):
    """The directory that holds the caches."""
    return tmp_path / "xdg" / "cifar_jax"


@pytest.fixture
def prepared(tmp_path: pathlib.Path):
    """A data set in the TFDS directory that is also in the cache."""
    path = prepare_cifar10(tmp_path / "tfds", random_splits())
    assert sources.load(config(SET)).source == f"TFDS {path}"
    assert sources.load(config(SET)).source.startswith("cache ")
    return path


def replace(path: pathlib.Path, splits: Splits) -> None:
    """Replaces the records of the prepared directory, keeping each file's size and mtime."""
    other = prepare_cifar10(path.parent / "other", splits)
    for file in path.iterdir():
        stat = file.stat()
        new = (other / file.name).read_bytes().ljust(stat.st_size, b"\0")
        if "record" in file.name:
            file.write_bytes(new)
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    shutil.rmtree(path.parent / "other")


def relabel(path: pathlib.Path) -> None:
    splits = random_splits()
    splits["train"] = splits["train"][0], (splits["train"][1] + 1) % 10
    replace(path, splits)


def repaint(path: pathlib.Path) -> None:
    splits = random_splits()
    splits["test"][0][1, 2, 3] ^= 1
    replace(path, splits)


def rename(path: pathlib.Path) -> None:
    """Swaps two class names of the same length, keeping the file's size and mtime."""
    file = next(path.glob("*label.labels.txt"))
    stat, names = file.stat(), list(archive.CLASS_NAMES)
    names[4], names[6] = names[6], names[4]
    assert file.read_text().split() == list(archive.CLASS_NAMES)
    file.write_text("\n".join(names) + "\n")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def link(path: pathlib.Path) -> None:
    """Replaces the data set's directory with a link to another one."""
    other = prepare_cifar10(path.parents[2] / "elsewhere", random_splits(1)).parent
    path.parent.rename(path.parents[2] / "moved")
    path.parent.symlink_to(other)


def link_version(path: pathlib.Path) -> None:
    other = prepare_cifar10(path.parents[2] / "elsewhere", random_splits(1))
    path.rename(path.parents[2] / "moved")
    path.symlink_to(other)


def link_root(path: pathlib.Path) -> None:
    root = path.parents[1]
    prepare_cifar10(root.parent / "elsewhere", random_splits(1))
    root.rename(root.parent / "moved")
    root.symlink_to("elsewhere")


def link_records(path: pathlib.Path) -> None:
    other = prepare_cifar10(path.parents[2] / "elsewhere", random_splits(1))
    for file in path.iterdir():
        file.unlink()
        file.symlink_to(other / file.name)


@pytest.mark.parametrize(
    "change", [relabel, repaint, rename, link, link_version, link_root, link_records]
)
def test_a_changed_source_is_read_again(
    prepared: pathlib.Path, caches: pathlib.Path, change: Callable[..., Any]
):
    before = sources.load(config(SET))
    change(prepared)
    after = sources.load(config(SET))
    assert after.source.startswith("TFDS ")
    texts = fingerprint.differences(before.description, after.description)
    expected = {
        "relabel": "different labels of the train images",
        "repaint": "different pixels in the test images",
        "rename": "class 4 named 'frog' instead of 'deer' (the classes are in a different order)",
    }
    assert texts[0] == expected.get(change.__name__, "different pixels in the train images")
    again = sources.load(config(SET))
    assert again.source.startswith("cache ") and again.description == after.description
    shutil.rmtree(caches)
    assert sources.load(config(SET)).description == after.description


def test_restoring_a_source_finds_its_old_cache(prepared: pathlib.Path, tmp_path: pathlib.Path):
    before = sources.load(config(SET))
    link(prepared)
    sources.load(config(SET))
    prepared.parent.unlink()
    (tmp_path / "moved").rename(prepared.parent)
    assert sources.load(config(SET)).source == before.source


def test_link_loops_and_broken_links_are_tolerated(prepared: pathlib.Path):
    (prepared / "circle").symlink_to(prepared.parent)
    (prepared / "nowhere").symlink_to("no such file")
    (prepared.parent / "latest").symlink_to(prepared.name)
    first = sources.load(config(SET))
    assert first.source.startswith("TFDS ") and sources.load(config(SET)).source[:5] == "cache"


# ---------------------------------------------------------------------------- caches of other data
def other_labels(arrays: dict[str, np.ndarray]):
    arrays["train_labels"][0] = (arrays["train_labels"][0] + 1) % 10


def other_pixels(arrays: dict[str, np.ndarray]):
    arrays["test_images"][0, 0, 0, 0] ^= 1


def other_names(arrays: dict[str, np.ndarray]):
    arrays["class_names"][:2] = arrays["class_names"][1::-1].copy()


def fewer(arrays: dict[str, np.ndarray]):
    for field in ("train_images", "train_labels"):
        arrays[field] = arrays[field][1:]


def reordered(arrays: dict[str, np.ndarray]):
    for field in ("train_images", "train_labels"):
        arrays[field] = arrays[field][::-1]


def reshaped(arrays: dict[str, np.ndarray]):
    for field in ("train_images", "test_images"):
        arrays[field] = arrays[field].reshape(-1, 16, 64, 3)


def from_another_seed(arrays: dict[str, np.ndarray]):
    for split, (images, labels) in random_splits(5, len(arrays["test_labels"])).items():
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}


@pytest.mark.parametrize("name", ["cifar10", SET])
@pytest.mark.parametrize(
    "change",
    [
        other_labels,
        other_pixels,
        other_names,
        fewer,
        reordered,
        reshaped,
        from_another_seed,
    ],
)
def test_a_valid_cache_of_other_content_is_rebuilt(
    tmp_path: pathlib.Path,
    official: Splits,  # noqa: F811
    caches: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    change: Callable[..., Any],
):
    prepare_cifar10(tmp_path / "tfds", official)
    expected = sources.load(config(name))
    (path,) = caches.glob("*.npz")
    arrays = cache.read(path)
    change(arrays)
    cache.write(path, arrays)  # pyright: ignore[reportArgumentType]

    found = sources.load(config(name))
    assert found.source == expected.source and found.description == expected.description
    (line,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert line.startswith(f"ignoring the cache {path}: it holds other data (") and "\n" not in line
    origin = "" if name == "cifar10" else f" of {tmp_path / 'tfds'}"
    assert sources.load(config(name)).source == f"cache {path}{origin}"


@pytest.mark.parametrize("names", [np.arange(10), np.array(["a"] * 10, "S"), np.array("abc")])
def test_class_names_of_a_wrong_shape_or_dtype_are_not_used(
    tmp_path: pathlib.Path,
    official: Splits,  # noqa: F811
    caches: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    names: np.ndarray,
):
    data = config(archive=str(write_tar(tmp_path, "binary", official)))
    sources.load(data)
    (path,) = caches.glob("*.npz")
    arrays = cache.read(path)
    cache.write(path, arrays | {"class_names": names})  # pyright: ignore[reportOptionalOperand]
    assert sources.load(data).source.startswith("archive")
    assert "unexpected shape or dtype of the class names" in caplog.text


@pytest.mark.parametrize(
    "note", [b"", b"null", b"[]", b"{", b"\xff", b'{"source": 3}', b"[" * 100_000]
)
def test_a_damaged_note_is_rebuilt(prepared: pathlib.Path, caches: pathlib.Path, note: bytes):
    (path,) = caches.glob("*.json")
    good = path.read_bytes()
    path.write_bytes(note)
    assert sources.load(config(SET)).source == f"TFDS {prepared}"
    assert path.read_bytes() == good and len(list(caches.glob("*.npz"))) == 1


def test_a_note_about_another_data_set_is_ignored(
    prepared: pathlib.Path, caches: pathlib.Path, tmp_path: pathlib.Path
):
    """As if the notes of two data sets had the same file name."""
    other = prepare_cifar10(tmp_path / "elsewhere", random_splits(1))
    (first,) = caches.glob("*.json")
    sources.load(config(SET, dir=str(other.parents[1])))
    (second,) = set(caches.glob("*.json")) - {first}
    shutil.copy(second, first)
    assert sources.load(config(SET)).source == f"TFDS {prepared}"


def test_a_data_set_is_cached_right_after_it_is_prepared(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    def prepare(name: str, builder: Any):
        shutil.copytree(path, builder.data_path)

    path = prepare_cifar10(tmp_path / "elsewhere", random_splits())

    monkeypatch.setattr(tfds_prepare, "prepare", prepare)
    data = config(SET, download=True)
    assert sources.load(data).source.startswith("TFDS")
    assert sources.load(data).source.startswith("cache")
