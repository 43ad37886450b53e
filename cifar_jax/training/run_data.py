"""The data of a run: its `data.json` says which they are, and no others ever take their place.

Where they lie is a matter of the machine: `data.dir`, `archive` and `cache_dir` of the config are
where they were when the run began, and any other place that holds the same data will do.
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
from cifar_jax.training.experiment import Experiment

_log = logging.getLogger(__name__)


class OtherData(UserError):
    """The data that were found are not those of the run."""


def load(data: Data, seed: int, workdir: epath.Path) -> sources.Dataset:
    """The data set of the run in `workdir`, be it new.

    The data of a run that has begun are looked for elsewhere, too, where they cannot be had from
    the place that the config names: in the cache, and where a config that names none has them.

    Raises:
      UserError: it cannot be had.
      OtherData: what was found is not what the run was trained on so far, and the line says what
        differs; or the processes of the run have found different data.
    """
    known = _known(workdir)
    dataset = _find(data, known) if known else sources.load(data)
    check(data, seed, workdir, dataset)
    if distributed.several():
        description = json.dumps(dataset.description).encode()
        if not distributed.all_same(hashlib.sha256(description).digest()):
            raise OtherData(
                f"the processes of the run in {workdir} have different data, this one from "
                f"{dataset.source}: bring the same to all of their machines"
            )
    return dataset


def placed(data: Data, data_dir: str) -> Data:
    """`data` with another place: a TFDS directory, or CIFAR-10's archive; "": as it is."""
    if not data_dir:
        return data
    is_archive = archive.is_archive(places.local(data_dir, "--data_dir"))
    directory, file = ("", data_dir) if is_archive else (data_dir, "")
    return dataclasses.replace(data, dir=directory, archive=file)


def tfds_directory(data: Data, name: str) -> pathlib.Path:
    """TFDS' directory that has the set `name`: the config's, or else that of the machine."""
    directory = sources.tfds_directory(data)
    has_it = (directory / name.partition("/")[0]).is_dir()
    return directory if has_it else sources.tfds_directory(dataclasses.replace(data, dir=""))


def _find(data: Data, known: dict[str, Any]) -> sources.Dataset:
    try:
        places.local(data.cache_dir, "config.data.cache_dir")
    except UserError as error:
        _log.warning("%s; going on with the user's cache", error)
        data = dataclasses.replace(data, cache_dir="")
    try:
        return sources.load(dataclasses.replace(data, download=False))
    except UserError as error:
        dataset = _elsewhere(data, known)
        if dataset is None:
            raise
        if data.dir or data.archive:
            _log.warning("%s; going on with the same data from %s", error, dataset.source)
    return dataset


def _elsewhere(data: Data, known: dict[str, Any]) -> sources.Dataset | None:
    """The data of a run from another place than the config names."""
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
        return None  # nothing would tell whether it is the same
    try:
        dataset = sources.load(
            dataclasses.replace(data, dir="", archive="", cache_dir="", download=False)
        )
    except UserError:
        return None
    return None if fingerprint.differences(known, dataset.description) else dataset


def check(data: Data, seed: int, workdir: epath.Path, dataset: sources.Dataset) -> None:
    """Raises OtherData unless `dataset` is that of the run in `workdir`, or the run is new.

    A run from before there were fingerprints is compared by what it has: the shape of the images,
    the names of the classes and, where it standardizes, the statistics.
    """
    known = _known(workdir)
    if not known:
        return
    texts = fingerprint.differences(known, dataset.description)
    if not texts and "fingerprint" not in known and known.get("mean") is not None:
        texts = _other_statistics(data, seed, known, dataset)
    if texts:
        raise OtherData(
            f"the data of {dataset.source} are not those that the run in {workdir} was trained on:"
            f" {'; '.join(texts)}; name the place of those by --data_dir, in training by"
            " --config.data.dir, or train in another --workdir"
        )


def record(exp: Experiment, workdir: epath.Path) -> None:
    """Writes `data.json`, once.

    Raises:
      OtherData: it is there, of other data than the experiment's.
      UserError: it cannot be written.
    """
    check(exp.config.data, exp.config.seed, workdir, exp.dataset)
    if "fingerprint" not in _known(workdir):
        files.write_json(workdir / files.DATA, exp.describe_data())


def _known(workdir: epath.Path) -> dict[str, Any]:
    """The content of `data.json`; {} where there is none yet."""
    path = workdir / files.DATA
    return read_json(path, DATA) if path.exists() else {}


def _other_statistics(
    data: Data, seed: int, known: dict[str, Any], dataset: sources.Dataset
) -> list[str]:
    train, _ = splits.split(
        dataset.train_labels,
        data.validation_fraction,
        seed,
        data.stratified,
    )
    found = splits.standardization(dataset.train_images[train])
    same = np.allclose(found, [known["mean"], known["std"]], rtol=1e-5)
    return [] if same else ["other means and deviations of the training images' channels"]
