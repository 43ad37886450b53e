"""Every source gives the same arrays in the same order; a bad source is an error, never skipped."""

import errno
import hashlib
import logging
import pathlib
from typing import Any

import numpy as np
import pytest
from fabricate import FOLDERS, Splits, prepare_cifar10, random_splits, write_folder, write_tar

from cifar_jax.config import schema
from cifar_jax.data import archive, cache, fingerprint, sources
from cifar_jax.errors import UserError


@pytest.fixture(autouse=True)
def isolated(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


def config(name: str = "cifar10", **changes: Any):
    return schema.Data(**{"name": name, "download": False, **changes})


def in_canonical_order(images: np.ndarray, labels: np.ndarray):
    def key(i: int):
        return hashlib.blake2b(images[i].tobytes(), digest_size=16).digest(), labels[i]

    order = sorted(range(len(images)), key=key)
    return images[order], labels[order]


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch):
    """Small random splits, registered as the official content of CIFAR-10."""
    splits = random_splits(per_batch=8)
    fingerprints = {}
    for split, arrays in splits.items():
        images, labels = in_canonical_order(*arrays)
        content = images.tobytes() + labels.astype("<i4").tobytes()
        fingerprints[split] = hashlib.sha256(content).hexdigest()
    known = sources.Known(counts={"train": 40, "test": 8}, fingerprints=fingerprints)
    monkeypatch.setitem(sources.KNOWN, "cifar10", known)
    return splits


def assert_is(dataset: sources.Dataset, splits: Splits):
    for split, arrays in splits.items():
        images, labels = in_canonical_order(*arrays)
        found_images = getattr(dataset, f"{split}_images")
        found_labels = getattr(dataset, f"{split}_labels")
        assert found_images.dtype == np.uint8 and found_labels.dtype == np.int32
        np.testing.assert_array_equal(found_images, images)
        np.testing.assert_array_equal(found_labels, labels)


@pytest.mark.parametrize("source", ["dir", "TFDS_DATA_DIR", "binary", "python", "cache"])
def test_every_source_gives_the_same_arrays_in_the_same_order(
    tmp_path: pathlib.Path, official: Splits, source: str
):
    if source == "dir":
        path = prepare_cifar10(tmp_path / "elsewhere", official)
        data = config(dir=str(tmp_path / "elsewhere"))
    elif source == "TFDS_DATA_DIR":
        path, data = prepare_cifar10(tmp_path / "tfds", official), config()
    elif source == "cache":
        path = write_tar(tmp_path, "binary", official)
        sources.load(config(archive=str(path)))
        path.unlink()
        (path,) = (tmp_path / "xdg" / "cifar_jax").iterdir()
        data = config()
    else:
        path = write_tar(tmp_path, source, official)
        data = config(archive=str(path))
    dataset = sources.load(data)
    assert_is(dataset, official)
    assert dataset.name == "cifar10" and dataset.class_names == archive.CLASS_NAMES
    kind = {"dir": "TFDS", "TFDS_DATA_DIR": "TFDS", "cache": "cache"}.get(source, "archive")
    assert dataset.source == f"{kind} {path}"


def test_the_canonical_order_does_not_depend_on_the_order_of_the_source():
    images, labels = random_splits()["train"]
    images[3] = images[4]  # the same image with two labels: sorted by label
    labels[3:5] = 7, 2
    first = fingerprint.canonical(images, labels)
    second = fingerprint.canonical(images[::-1], labels[::-1])
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], images)
    assert sorted(zip(map(bytes, first[0]), first[1], strict=True)) == sorted(
        zip(map(bytes, images), labels, strict=True)
    )


def test_a_directory_under_the_home_directory_is_found(tmp_path: pathlib.Path, official: Splits):
    prepare_cifar10(tmp_path / "home" / "data", official)
    write_folder(tmp_path / "home", "binary", official)
    assert_is(sources.load(config(dir="~/data", cache_dir="~/a")), official)
    assert_is(sources.load(config(archive=f"~/{FOLDERS['binary']}", cache_dir="~/b")), official)
    assert len(list((tmp_path / "home" / "a").iterdir())) == 1


def test_a_damaged_cache_is_rebuilt_with_one_warning(
    tmp_path: pathlib.Path,
    official: Splits,
    caplog: pytest.LogCaptureFixture,
):
    data = config(archive=str(write_tar(tmp_path, "binary", official)))
    sources.load(data)
    (path,) = (tmp_path / "xdg" / "cifar_jax").iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    dataset = sources.load(data)
    assert dataset.source.startswith("archive")
    assert_is(dataset, official)
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1
    assert sources.load(data).source == f"cache {path}"


@pytest.mark.parametrize("key", ["dir", "archive"])
def test_a_missing_source_is_an_error_even_if_another_exists(
    tmp_path: pathlib.Path, official: Splits, key: str
):
    prepare_cifar10(tmp_path / "tfds", official)
    sources.load(config())  # now $TFDS_DATA_DIR and the cache hold the data
    with pytest.raises(UserError, match=f"config.data.{key}=.*nowhere does not exist"):
        sources.load(config(**{key: str(tmp_path / "nowhere")}))


def test_a_directory_without_the_data_set_is_an_error_even_if_another_has_it(
    tmp_path: pathlib.Path, official: Splits
):
    prepare_cifar10(tmp_path / "tfds", official)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="looked for .*empty/cifar10/3.0.2"):
        sources.load(config(dir=str(empty), download=True))
    assert not list(empty.iterdir())


def test_a_damaged_archive_is_an_error_even_if_another_source_exists(
    tmp_path: pathlib.Path, official: Splits
):
    prepare_cifar10(tmp_path / "tfds", official)
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_text("not an archive")
    with pytest.raises(UserError, match="truncated or damaged"):
        sources.load(config(archive=str(path), download=True))


def test_without_any_source_the_error_names_every_alternative(
    official: Splits,
):
    with pytest.raises(UserError) as error:
        sources.load(config())
    message = str(error.value)
    for alternative in ("TFDS_DATA_DIR", "config.data.archive", "config.data.download=True"):
        assert alternative in message
    assert "\n" not in message


def test_one_changed_pixel_is_noticed(tmp_path: pathlib.Path, official: Splits):
    official["test"][0][2, 3, 4, 1] ^= 1
    expected = sources.KNOWN["cifar10"].fingerprints["test"]
    found = fingerprint.of_split(*in_canonical_order(*official["test"]))["content"]
    data = config(archive=str(write_tar(tmp_path, "python", official)))
    with pytest.raises(UserError, match=f"expected SHA-256 {expected} .*test.* found {found}"):
        sources.load(data)
    assert not (tmp_path / "xdg").exists()


def test_one_changed_label_is_noticed_in_a_tfds_directory(tmp_path: pathlib.Path, official: Splits):
    labels = official["train"][1]
    labels[5] = (labels[5] + 1) % 10
    prepare_cifar10(tmp_path / "tfds", official)
    with pytest.raises(UserError, match="TFDS .* is not the official data set.*train"):
        sources.load(config())


def test_a_wrong_number_of_images_is_an_error(tmp_path: pathlib.Path, official: Splits):
    official["train"] = tuple(array[:35] for array in official["train"])  # pyright: ignore[reportArgumentType]
    data = config(archive=str(write_folder(tmp_path, "binary", official)))
    with pytest.raises(UserError, match="expected 40 train images, found 35"):
        sources.load(data)


@pytest.mark.parametrize("flavor", FOLDERS)
def test_a_label_out_of_range_is_an_error(tmp_path: pathlib.Path, official: Splits, flavor: str):
    official["test"][1][0] = 10
    data = config(archive=str(write_folder(tmp_path, flavor, official)))
    with pytest.raises(UserError, match=r"expected test labels in 0\.\.9, found \d\.\.10"):
        sources.load(data)


def test_an_archive_can_only_hold_cifar10(tmp_path: pathlib.Path, official: Splits):
    path = str(write_tar(tmp_path, "binary", official))
    with pytest.raises(UserError, match="config.data.archive.*config.data.name=cifar100"):
        sources.load(config("cifar100", archive=path))


def test_a_full_disk_is_a_user_error(
    tmp_path: pathlib.Path,
    official: Splits,
    monkeypatch: pytest.MonkeyPatch,
):
    def full(*args: Any, **kwargs: Any):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.np, "savez", full)
    with pytest.raises(UserError, match="config.data.cache_dir"):
        sources.load(config(archive=str(write_tar(tmp_path, "binary", official))))


def test_data_loads_even_if_the_cache_cannot_be_written(
    tmp_path: pathlib.Path,
    official: Splits,
    caplog: pytest.LogCaptureFixture,
):
    (tmp_path / "file").write_text("")
    path = write_tar(tmp_path, "binary", official)
    data = config(archive=str(path), cache_dir=str(tmp_path / "file" / "cache"))
    assert_is(sources.load(data), official)
    assert "going on without it" in caplog.text


def test_directories_of_an_unverified_data_set_do_not_share_a_cache(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delitem(sources.KNOWN, "cifar10")  # like any data set without a known fingerprint
    for seed in (0, 1):
        prepare_cifar10(tmp_path / str(seed), random_splits(seed))
    for _ in range(2):
        for seed in (0, 1):
            assert_is(sources.load(config(dir=str(tmp_path / str(seed)))), random_splits(seed))


@pytest.mark.slow
def test_real_cifar10_is_the_same_from_tfds_archive_and_cache(
    real_cifar10_dir: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(real_cifar10_dir))
    first = sources.load(config())
    assert first.source.startswith("TFDS")
    assert np.bincount(first.train_labels).tolist() == [5000] * 10
    assert np.bincount(first.test_labels).tolist() == [1000] * 10
    pixels = first.train_images.reshape(-1, 3) / 255
    np.testing.assert_allclose(pixels.mean(0), [0.4914, 0.4822, 0.4465], atol=5e-5)
    np.testing.assert_allclose(pixels.std(0), [0.2470, 0.2435, 0.2616], atol=5e-5)

    shuffled = np.random.default_rng(0).permutation(50_000)
    splits = {
        "train": (first.train_images[shuffled], first.train_labels[shuffled]),
        "test": (first.test_images[::-1], first.test_labels[::-1]),
    }
    folder = write_folder(tmp_path, "binary", splits)
    second = sources.load(config(archive=str(folder), cache_dir=str(tmp_path / "other")))
    assert second.source.startswith("archive")
    third = sources.load(config())
    assert third.source.startswith("cache")
    for field in ("train_images", "train_labels", "test_images", "test_labels"):
        np.testing.assert_array_equal(getattr(second, field), getattr(first, field))
        np.testing.assert_array_equal(getattr(third, field), getattr(first, field))
