"""Loads a data set from the cache, a TFDS directory, an archive, a download or a Python package.

Every source gives the same arrays in the same order (see `fingerprint.canonical`), so a run depends
on its config only and not on where its data came from.
"""

import dataclasses
import functools
import json
import logging
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from cifar_jax import places
from cifar_jax.config.schema import Data
from cifar_jax.data import archive, cache, digits, fingerprint, folder
from cifar_jax.data.archive import Splits
from cifar_jax.data.fingerprint import canonical as _canonical
from cifar_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set in memory, each split in canonical order."""

    name: str
    train_images: UInt8[np.ndarray, "train h w c"]
    train_labels: Int32[np.ndarray, " train"]  # in [0, len(class_names))
    test_images: UInt8[np.ndarray, "test h w c"]
    test_labels: Int32[np.ndarray, " test"]  # in [0, len(class_names))
    class_names: tuple[str, ...]
    source: str  # where the arrays came from, for log and error messages

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """Identifies the content: see the top of `data/fingerprint.py`."""
        return fingerprint.of(self.splits, self.class_names)

    @property
    def splits(self) -> Splits:
        return {
            "train": (self.train_images, self.train_labels),
            "test": (self.test_images, self.test_labels),
        }


@dataclasses.dataclass(frozen=True)
class Known:
    """The official content of a data set; every source is checked against it."""

    counts: dict[str, int]  # split -> number of images
    fingerprints: dict[str, str]  # split -> SHA-256 of images and labels, see `_fingerprint`

    @property
    def description(self) -> dict[str, Any]:
        """Like `Dataset.description`, but without the hashes of the images alone."""
        return {
            "image_shape": [32, 32, 3],
            "class_names": list(archive.CLASS_NAMES),
            "fingerprint": {
                split: {"images": self.counts[split], "content": digest}
                for split, digest in self.fingerprints.items()
            },
        }


KNOWN = {
    "cifar10": Known(
        counts={"train": 50_000, "test": 10_000},
        fingerprints={
            "train": "1d19a08985d3153aed9477675a85d8e314ca428854a06ff97651207b5a9be093",
            "test": "edffc52d5cf2fb74a2a44b733a16b5bd92b42bb67f7be2355b8c068cabc1fd79",
        },
    )
}

_log = logging.getLogger(__name__)


def load(data: Data) -> Dataset:
    """Loads the data set `data.name`.

    CIFAR-10's official content is known, so its cache is tried first. The cache of any other TFDS
    data set is used only if no file in its TFDS directory has changed since the cache was written.

    Without a usable cache, the data comes from the source that the config names: `data.dir`, else
    `data.archive`. If that fails, no other source is tried. If the config names neither, the data
    comes from the TFDS directory (`$TFDS_DATA_DIR`, else `~/tensorflow_datasets`), where the data
    set is downloaded and prepared first if it is missing and `data.download` is True.

    Args:
      data: str fields `name` ("cifar10", "digits", "folder", or an image classification data set
        of TFDS), `dir`, `archive` and `cache_dir` ("" means not set), and bool field `download`.

    Raises:
      UserError: the source does not exist, cannot be read, or does not hold what it should.
    """
    if data.archive and data.name != "cifar10":
        raise UserError(
            f"config.data.archive can only hold cifar10, but config.data.name={data.name}"
        )
    if data.name == folder.NAME and not data.dir:
        raise UserError(
            "config.data.name=folder needs config.data.dir, a directory that holds one of image "
            "files for each class: see docs/data.md"
        )
    for key in ("dir", "archive", "cache_dir"):
        path = places.local(getattr(data, key), f"config.data.{key}")
        if getattr(data, key) and key != "cache_dir" and not path.exists():
            raise UserError(f"config.data.{key}={getattr(data, key)} does not exist")
    if data.name == "digits":
        train, test = digits.read().values()
        return Dataset("digits", *train, *test, digits.CLASS_NAMES, "scikit-learn's load_digits")

    known = KNOWN.get(data.name)
    state = None if known else _state(data)
    wanted, origin = known and known.description, ""
    if state:
        wanted = cache.recall(data.cache_dir, data.name, state)
        origin = f" of {directory(data)}"
    dataset = cached(data, wanted, origin) if wanted else None
    if dataset is None:
        dataset = _read(data)
        _check(dataset, known)
        arrays = {field: np.asarray(getattr(dataset, field)) for field in cache.FIELDS}
        cache.write(_cache_path(data, dataset.description), arrays)
        state = None if known else state or _state(data)  # `_read` may just have prepared it
        if state:
            cache.note(data.cache_dir, data.name, state, dataset.description)
    return dataset


def cached(data: Data, description: dict[str, Any], origin: str = "") -> Dataset | None:
    """Reads the data set with this description from the cache.

    Returns None if the cache is missing or damaged, or, after a warning, if it holds other data.
    """
    path = _cache_path(data, description)
    arrays = cache.read(path)
    if arrays is None:
        return None
    class_names = tuple(arrays.pop("class_names").tolist())
    source = f"cache {path}{origin}"
    dataset = Dataset(data.name, **arrays, class_names=class_names, source=source)
    texts = fingerprint.differences(description, dataset.description)
    if texts:
        _log.warning(
            "ignoring the cache %s: it holds other data (%s); it will be rebuilt",
            path,
            "; ".join(texts),
        )
        return None
    return dataset


def _cache_path(data: Data, description: dict[str, Any]) -> Path:
    content = json.dumps(description, sort_keys=True)
    if data.name in KNOWN:
        content = "".join(KNOWN[data.name].fingerprints.values())
    return cache.path_of(data.cache_dir, data.name, content)


def _state(data: Data) -> str | None:
    """A string that changes with the files of the data set and with what decodes them.

    None if its directory does not exist.
    """
    base = data.name.partition("/")[0].partition(":")[0]
    state = cache.state_of(directory(data) / ("" if data.name == folder.NAME else base))
    if data.name == folder.NAME:
        return state and f"{data.side} pixels, Pillow {version('pillow')}, {state}"
    return state and f"{data.name}, {version('tensorflow-datasets')}, {state}"


def _read(data: Data) -> Dataset:
    """Reads the data set from its source, in canonical order."""
    if data.archive and not data.dir:
        path = places.local(data.archive, "config.data.archive")
        splits, class_names, source = archive.read(path), archive.CLASS_NAMES, f"archive {path}"
    elif data.name == folder.NAME:
        splits, class_names = folder.read(directory(data), data.side)
        source = f"directory {directory(data)}"
    else:
        # Imported late: it takes half a second, which a start from the cache does not need.
        from cifar_jax.data import tfds_source

        splits, class_names, path = tfds_source.read(
            data.name, directory(data), prepare=data.download and not data.dir
        )
        source = f"TFDS {path}"
    if data.name == "cifar10":  # an old TFDS directory may lack the class names
        class_names = archive.CLASS_NAMES
    train, test = (_canonical(*splits[split]) for split in ("train", "test"))
    return Dataset(data.name, *train, *test, class_names, source)


def is_official(name: str) -> bool:
    """Whether every source of this data set is checked against its known official content."""
    return name in KNOWN


def directory(data: Data) -> Path:
    """`data.dir`, or else the TFDS directory: `$TFDS_DATA_DIR` or `~/tensorflow_datasets`."""
    root, name = data.dir, "config.data.dir"
    if not root:
        root, name = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets", "TFDS_DATA_DIR"
    return places.local(root, name).absolute()


def _fingerprint(images: UInt8[np.ndarray, "n ..."], labels: Int32[np.ndarray, " n"]) -> str:
    """SHA-256 of the image bytes of a split, followed by its labels as little-endian int32."""
    return fingerprint.of_split(images, labels)["content"]


def _check(dataset: Dataset, known: Known | None) -> None:
    """Raises UserError for an empty split, a label out of range, or unofficial content."""
    source, num_classes = dataset.source, len(dataset.class_names)
    for split, (images, labels) in dataset.splits.items():
        if not len(images):
            raise UserError(f"{source}: the {split} split is empty")
        if labels.min() < 0 or labels.max() >= num_classes:
            raise UserError(
                f"{source}: expected {split} labels in 0..{num_classes - 1}, found"
                f" {labels.min()}..{labels.max()}"
            )
        if known is None:
            continue
        if len(images) != known.counts[split]:
            raise UserError(
                f"{source}: expected {known.counts[split]:,} {split} images, found {len(images):,}"
            )
        found = _fingerprint(images, labels)
        if found != known.fingerprints[split]:
            raise UserError(
                f"{source} is not the official data set: expected SHA-256"
                f" {known.fingerprints[split]} for the {split} split, found {found}"
            )
