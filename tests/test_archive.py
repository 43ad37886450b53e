"""Reads both flavors of the official archive, packed or unpacked; refuses anything else."""

import gzip
import os
import pathlib
import pickle
import tarfile
from typing import Any

import numpy as np
import pytest
from fabricate import FOLDERS, assert_same, random_splits, write_folder, write_tar

from cifar_jax.data import archive
from cifar_jax.errors import UserError


@pytest.mark.parametrize("flavor", FOLDERS)
@pytest.mark.parametrize("form", ["tar.gz", "folder", "parent of folder"])
def test_packed_and_unpacked_archives_give_the_images_and_labels(
    tmp_path: pathlib.Path, flavor: str, form: str
):
    splits = random_splits()
    if form == "tar.gz":
        path = write_tar(tmp_path, flavor, splits)
    else:
        path = write_folder(tmp_path, flavor, splits)
        path = path.parent if form == "parent of folder" else path
    assert_same(archive.read(path), splits)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_batches_pickled_by_python_3_are_read(tmp_path: pathlib.Path, protocol: int):
    splits = random_splits()
    folder = write_folder(tmp_path, "python", splits)
    images, labels = splits["test"]
    batch = {b"data": images.transpose(0, 3, 1, 2).reshape(-1, 3072), b"labels": labels}
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol))
    assert_same(archive.read(folder), splits)


def test_a_pickle_cannot_run_code(tmp_path: pathlib.Path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was here"),)

    folder = write_folder(tmp_path, "python", random_splits())
    for content in (Evil(), {"data": Evil(), "labels": []}):
        (folder / "data_batch_3").write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=r"data_batch_3 .* refusing to load posix\.mkdir"):
            archive.read(folder)
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("flavor", FOLDERS)
@pytest.mark.parametrize("keep", [0, 10, 0.3, 0.999])
def test_a_truncated_archive_is_reported_with_the_published_checksum(
    tmp_path: pathlib.Path, flavor: str, keep: float
):
    path = write_tar(tmp_path, flavor, random_splits())
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    published = archive.OFFICIAL_MD5[path.name]
    with pytest.raises(UserError, match=f"truncated or damaged.*{published}.*found") as error:
        archive.read(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_flipped_byte_in_the_archive_is_noticed(tmp_path: pathlib.Path):
    path = write_tar(tmp_path, "binary", random_splits())
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="truncated or damaged"):
        archive.read(path)


def test_a_file_other_than_an_archive_is_refused(tmp_path: pathlib.Path):
    path = tmp_path / "cifar.tar.gz"
    path.write_text("<html>404</html>")
    with pytest.raises(UserError, match="truncated or damaged.*16 bytes"):
        archive.read(path)


@pytest.mark.parametrize("flavor", FOLDERS)
def test_a_missing_batch_is_reported_by_name(tmp_path: pathlib.Path, flavor: str):
    folder = write_folder(tmp_path, flavor, random_splits())
    next(folder.glob("data_batch_4*")).unlink()
    with pytest.raises(UserError, match="found no data_batch_4"):
        archive.read(folder)


def test_a_directory_without_batches_is_refused(tmp_path: pathlib.Path):
    with pytest.raises(UserError, match="expected data_batch_1.bin to data_batch_5.bin"):
        archive.read(tmp_path)


def test_a_truncated_binary_batch_is_refused(tmp_path: pathlib.Path):
    folder = write_folder(tmp_path, "binary", random_splits())
    batch = folder / "data_batch_2.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"data_batch_2\.bin.*multiple of 3073.*found 12,291"):
        archive.read(folder)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1, 2], "expected a dict, found list"),
        ({"labels": [1]}, "data"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "expected 2 labels"),
        ({"data": np.zeros((2, 100), np.uint8), "labels": [1, 2]}, "expected data"),
        ({"data": np.zeros((2, 3072)), "labels": [1, 2]}, "float64"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0.5, 2]}, "float64"),
    ],
)
def test_a_malformed_python_batch_is_refused(
    tmp_path: pathlib.Path, batch: dict[str, Any] | list[int], message: str
):
    folder = write_folder(tmp_path, "python", random_splits())
    (folder / "data_batch_2").write_bytes(pickle.dumps(batch))
    with pytest.raises(UserError, match=f"data_batch_2 .*damaged.*{message}"):
        archive.read(folder)


def test_a_truncated_pickle_is_refused_at_any_length(tmp_path: pathlib.Path):
    folder = write_folder(tmp_path, "python", random_splits(per_batch=1))
    batch = folder / "test_batch"
    whole = batch.read_bytes()
    for length in [*range(0, 400, 7), len(whole) - 1]:
        batch.write_bytes(whole[:length])
        with pytest.raises(UserError, match="test_batch .*damaged"):
            archive.read(folder)


def test_a_member_of_absurd_size_is_not_read_into_memory(tmp_path: pathlib.Path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    member = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    member.size = 2**40
    path.write_bytes(gzip.compress(member.tobuf() + bytes(2**20)))
    with pytest.raises(UserError, match="claims 1,099,511,627,776 bytes"):
        archive.read(path)
