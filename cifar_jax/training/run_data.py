"""The data of a run: `data.json` identifies it, and a run never continues on other data.

The place of the data may change: `data.dir`, `archive` and `cache_dir` of the config say where it
was when the run started, but the same data from any other place works as well.
"""

import dataclasses
import hashlib
import json
import logging
import pathlib
from typing import Any

import numpy as np
from etils import epath

from cifar_jax import places
from cifar_jax.config.schema import Data
from cifar_jax.data import archive, fingerprint, sources, splits
from cifar_jax.errors import UserError
from cifar_jax.runtime import distributed
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checked import read_json
from cifar_jax.runtime.workdir_schema import DATA
from cifar_jax.training.experiment import Experiment, split

_log = logging.getLogger(__name__)


class OtherData(UserError):
    """The data that was found is not the data of the run."""


def load(data: Data, seed: int, workdir: epath.Path) -> sources.Dataset:
    """Loads the data set of the run in `workdir`, new or not.

    If the place named by the config does not have the data of a run that has started, other places
    are tried: the cache, and the default places.

    Raises:
      UserError: the data cannot be loaded.
      OtherData: it is not the data that the run was trained on so far, and the message says what
        differs; or the processes of the run have different data.
    """
    known = _known(workdir)
    dataset = _find(data, known) if known else sources.load(data)
    check(data, seed, workdir, dataset)
    if distributed.several():
        description = json.dumps(dataset.description).encode()
        if not distributed.all_same(hashlib.sha256(description).digest()):
            raise OtherData(
                f"the processes of the run in {workdir} have different data, this one from "
                f"{dataset.source}: copy the same data to all machines"
            )
    return dataset


def placed(data: Data, data_dir: str) -> Data:
    """`data` with another place of the data.

    Args:
      data_dir: a TFDS directory, or the CIFAR-10 archive; "": leave the place as it is.
    """
    if not data_dir:
        return data
    is_archive = archive.is_archive(places.local(data_dir, "--data_dir"))
    directory, file = ("", data_dir) if is_archive else (data_dir, "")
    return dataclasses.replace(data, dir=directory, archive=file)


def tfds_directory(data: Data, name: str) -> pathlib.Path:
    """The TFDS directory of the config if it has the data set `name`, else the default one."""
    directory = sources.directory(data)
    has_it = (directory / name.partition("/")[0]).is_dir()
    return directory if has_it else sources.directory(dataclasses.replace(data, dir=""))


def _find(data: Data, known: dict[str, Any]) -> sources.Dataset:
    try:
        places.local(data.cache_dir, "config.data.cache_dir")
    except UserError as error:
        _log.warning("%s; using the user's cache instead", error)
        data = dataclasses.replace(data, cache_dir="")
    try:
        return sources.load(dataclasses.replace(data, download=False))
    except UserError as error:
        dataset = _elsewhere(data, known)
        if dataset is None:
            raise
        if data.dir or data.archive:
            _log.warning("%s; using the same data from %s instead", error, dataset.source)
    return dataset


def _elsewhere(data: Data, known: dict[str, Any]) -> sources.Dataset | None:
    """The data of a run from a place that the config does not name; None if not found."""
    is_official, is_placed = sources.is_official(data.name), bool(data.dir or data.archive)
    if "fingerprint" in known and not is_official:
        description = {key: known[key] for key in fingerprint.KEYS}
        for cache_dir in dict.fromkeys((data.cache_dir, "")):
            dataset = sources.cached(dataclasses.replace(data, cache_dir=cache_dir), description)
            if dataset:
                return dataset
    if not is_placed:
        return sources.load(data) if data.download else None
    if "fingerprint" not in known and not is_official:
        return None  # nothing to compare the data with
    try:
        dataset = sources.load(
            dataclasses.replace(data, dir="", archive="", cache_dir="", download=False)
        )
    except UserError:
        return None
    return None if fingerprint.differences(known, dataset.description) else dataset


def check(data: Data, seed: int, workdir: epath.Path, dataset: sources.Dataset) -> None:
    """Raises OtherData if the run in `workdir` was trained on other data; a new run takes any.

    An old run without a fingerprint is compared by what it has: the shape of the images, the names
    of the classes and, if it standardizes, the statistics.
    """
    known = _known(workdir)
    if not known:
        return
    texts = fingerprint.differences(known, dataset.description)
    if not texts and "fingerprint" not in known and known.get("mean") is not None:
        texts = _other_statistics(data, seed, known, dataset)
    if texts:
        raise OtherData(
            f"{dataset.source} does not have the data that the run in {workdir} was trained on:"
            f" {'; '.join(texts)}; say where the right data is with --data_dir, or in training with"
            " --config.data.dir, or train in another --workdir"
        )


def record(exp: Experiment, workdir: epath.Path) -> None:
    """Writes `data.json` if it is missing.

    Raises:
      OtherData: it exists and describes other data.
      UserError: it cannot be written.
    """
    check(exp.config.data, exp.config.seed, workdir, exp.dataset)
    if "fingerprint" not in _known(workdir):
        files.write_json(workdir / files.DATA, exp.describe_data())


def _known(workdir: epath.Path) -> dict[str, Any]:
    """The content of `data.json`; {} if there is none yet."""
    path = workdir / files.DATA
    return read_json(path, DATA) if path.exists() else {}


def _other_statistics(
    data: Data, seed: int, known: dict[str, Any], dataset: sources.Dataset
) -> list[str]:
    train, _ = split(data, seed, dataset.train_labels)
    found = splits.standardization(dataset.train_images[train])
    same = np.allclose(found, [known["mean"], known["std"]], rtol=1e-5)
    return [] if same else ["channel means and standard deviations of the training images differ"]
