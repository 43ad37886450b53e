"""Small random data sets in the official file formats, for tests of the data sources."""

import io
import pathlib
import pickle
import struct
import tarfile
from typing import Any
from unittest import mock

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import mnist

from cifar_jax.data import archive, tfds_source

TRAIN = [f"data_batch_{i}" for i in range(1, 6)]
Splits = dict[str, tuple[np.ndarray, np.ndarray]]  # images and labels of each split
FOLDERS = {"binary": "cifar-10-batches-bin", "python": "cifar-10-batches-py"}


_Pickler: Any = pickle._Pickler  # in Python, so that `dispatch` counts; nothing declares its types


class Python2Pickler(_Pickler):
    """Writes text and bytes as Python 2's `str`, as in the official batches."""

    dispatch = dict(_Pickler.dispatch)

    def save_str(self, text: str | bytes) -> None:
        data = text if isinstance(text, bytes) else text.encode("ascii")
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch[bytes] = dispatch[str] = save_str


def random_splits(seed: int = 0, per_batch: int = 4):
    rng = np.random.default_rng(seed)

    def split(count: int):
        images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        return images, rng.integers(0, 10, count, np.int32)

    return {"train": split(5 * per_batch), "test": split(per_batch)}


def encode(flavor: str, images: np.ndarray, labels: np.ndarray):
    """The bytes of one batch."""
    pixels = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
    if flavor == "binary":
        return np.concatenate([labels[:, None].astype(np.uint8), pixels], 1).tobytes()
    batch = {"batch_label": "a batch", "labels": labels.tolist(), "data": pixels}
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(batch)
    return file.getvalue().replace(b"numpy._core.", b"numpy.core.")


def write_folder(root: pathlib.Path, flavor: str, splits: Splits):
    """Writes an unpacked archive below `root` and returns its folder."""
    folder = root / FOLDERS[flavor]
    folder.mkdir(parents=True)
    images, labels = splits["train"]
    batches = list(zip(TRAIN, np.split(images, 5), np.split(labels, 5), strict=True))
    for name, *batch in [*batches, ("test_batch", *splits["test"])]:
        suffix = ".bin" if flavor == "binary" else ""
        (folder / (name + suffix)).write_bytes(encode(flavor, *batch))
    (folder / "readme.html").write_text("not a batch")
    return folder


def write_tar(root: pathlib.Path, flavor: str, splits: Splits):
    folder = write_folder(root / "unpacked", flavor, splits)
    path = root / f"cifar-10-{flavor}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    return path


def assert_same(found: Splits, expected: Splits):
    assert set(found) == {"train", "test"}
    for split, (images, labels) in expected.items():
        assert found[split][0].dtype == np.uint8 and found[split][1].dtype == np.int32
        np.testing.assert_array_equal(found[split][0], images)
        np.testing.assert_array_equal(found[split][1], labels)


def every_host_answers():
    """A context manager in which the project finds that any download host is up."""
    return mock.patch("urllib.request.urlopen")


def prepare_cifar10(root: pathlib.Path, splits: Splits):
    """Prepares `splits` as `root/cifar10/3.0.2` with the project's own code."""
    raw = write_folder(root / "raw", "binary", splits)
    (raw / "batches.meta.txt").write_text("\n".join(archive.CLASS_NAMES))
    with (
        every_host_answers(),
        mock.patch.object(
            tfds.download.DownloadManager, "download_and_extract", return_value=raw.parent
        ),
    ):
        tfds_source.read("cifar10", root, prepare=True)
    return root / "cifar10" / "3.0.2"


def download_of(name: str, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """Writes the files that a download of `name` would give.

    Returns:
      What TFDS' download manager would return, the splits, the class names.
    """
    splits = random_splits()
    if name == "cifar10":
        raw = write_folder(root, "binary", splits)
        (raw / "batches.meta.txt").write_text("\n".join(archive.CLASS_NAMES) + "\n")
        return root, splits, archive.CLASS_NAMES
    if name == "cifar100":
        raw = root / "cifar-100-binary"
        raw.mkdir(parents=True)
        for split, (images, labels) in splits.items():
            pixels = images.transpose(0, 3, 1, 2).reshape(-1, 3072)
            coarse_and_fine = np.stack([labels % 3, labels], 1).astype(np.uint8)
            record = np.concatenate([coarse_and_fine, pixels], 1)
            (raw / f"{split}.bin").write_bytes(record.tobytes())
        names = tuple(f"fine {i}" for i in range(100))
        (raw / "fine_label_names.txt").write_text("\n".join(names))
        (raw / "coarse_label_names.txt").write_text("\n".join(f"coarse {i}" for i in range(20)))
        return root, splits, names
    if name == "svhn_cropped":
        root.mkdir(parents=True)
        files = {split: root / f"{split}.mat" for split in ("train", "test", "extra")}
        for split, file in files.items():
            images, labels = splits.get(split, splits["test"])
            y = np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)
            scipy.io.savemat(file, {"X": images.transpose(1, 2, 3, 0), "y": y})
        return files, splits, tuple(map(str, range(10)))
    assert name == "fashion_mnist"
    root.mkdir(parents=True)
    files = {}
    for split, (images, labels) in splits.items():
        images = np.ascontiguousarray(images[:, :28, :28, :1])
        splits[split] = images, labels
        monkeypatch.setattr(mnist, f"_{split.upper()}_EXAMPLES", len(images))
        files |= {f"{split}_data": root / f"{split}_data", f"{split}_labels": root / f"{split}_y"}
        files[f"{split}_data"].write_bytes(bytes(16) + images.tobytes())
        files[f"{split}_labels"].write_bytes(bytes(8) + labels.astype(np.uint8).tobytes())
    names = tuple(tfds.builder(name).info.features["label"].names)
    assert names[0] == "T-shirt/top"
    return files, splits, names
