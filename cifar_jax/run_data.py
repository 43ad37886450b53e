"""The data of a run: its `data.json` says which they are, and no others ever take their place."""

from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from cifar_jax import workdir as files
from cifar_jax.checked import read_json
from cifar_jax.data import fingerprint, sources, splits
from cifar_jax.errors import UserError
from cifar_jax.experiment import Experiment
from cifar_jax.workdir_schema import DATA


class OtherData(UserError):
    """The data that were found are not those of the run."""


def load(config: ConfigDict, workdir: epath.Path) -> sources.Dataset:
    """The data set of the run in `workdir`, be it new.

    Raises:
      UserError: it cannot be had.
      OtherData: what was found is not what the run was trained on so far; the line says what
        differs.
    """
    dataset = sources.load(config.data)
    check(config, workdir, dataset)
    return dataset


def check(config: ConfigDict, workdir: epath.Path, dataset: sources.Dataset) -> None:
    """Raises OtherData unless `dataset` is that of the run in `workdir`, or the run is new.

    A run from before there were fingerprints is compared by what it has: the shape of the images,
    the names of the classes and, where it standardizes, the statistics.
    """
    known = _known(workdir)
    if not known:
        return
    texts = fingerprint.differences(known, dataset.description)
    if not texts and "fingerprint" not in known and known.get("mean") is not None:
        texts = _other_statistics(config, known, dataset)
    if texts:
        raise OtherData(
            f"the data of {dataset.source} are not those that the run in {workdir} was trained on:"
            f" {'; '.join(texts)}; bring those back, or train in another --workdir"
        )


def record(exp: Experiment, workdir: epath.Path) -> None:
    """Writes `data.json`, once.

    Raises:
      OtherData: it is there, of other data than the experiment's.
      UserError: it cannot be written.
    """
    check(exp.config, workdir, exp.dataset)
    if "fingerprint" not in _known(workdir):
        files.write_json(workdir / files.DATA, exp.describe_data())


def _known(workdir: epath.Path) -> dict[str, Any]:
    """The content of `data.json`; {} where there is none yet."""
    path = workdir / files.DATA
    return read_json(path, DATA) if path.exists() else {}


def _other_statistics(
    config: ConfigDict, known: dict[str, Any], dataset: sources.Dataset
) -> list[str]:
    train, _ = splits.split(
        dataset.train_labels,
        config.data.validation_fraction,
        config.seed,
        config.data.stratified,
    )
    found = splits.channel_statistics(dataset.train_images[train])
    same = np.allclose(found, [known["mean"], known["std"]], rtol=1e-5)
    return [] if same else ["other means and deviations of the training images' channels"]
