"""Exports the parameters as safetensors, in a directory that `cifar_jax.load` reads like a workdir.

The directory also holds the run's config, the description of its data, and the metrics of the
exported epoch.
"""

import json

import jax
from etils import epath

from cifar_jax.errors import UserError
from cifar_jax.evaluation import trained
from cifar_jax.evaluation.trained import Trained
from cifar_jax.export import target
from cifar_jax.runtime import metrics_writer, weights
from cifar_jax.runtime import workdir as files


def check(path: epath.Path, workdir: epath.Path, force: bool) -> None:
    """See `target.check_directory`."""
    names = {files.CONFIG, files.DATA, files.METRICS, files.WEIGHTS}
    target.check_directory(path, names, force)


def write(network: Trained, path: epath.Path) -> str:
    """See `cifar_jax.export.run`; `path` is the directory."""
    source = network.workdir
    (row,) = [row for row in metrics_writer.read_rows(source) if row["epoch"] == network.epoch]
    contents = {
        files.CONFIG: (source / files.CONFIG).read_bytes(),
        files.DATA: (source / files.DATA).read_bytes(),
        files.METRICS: (json.dumps(row, allow_nan=False) + "\n").encode(),
        files.WEIGHTS: weights.to_bytes(network.variables),
    }
    temporary = files.beside(path)
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        for name, data in contents.items():
            files.write_bytes(temporary / name, data, "--output")
        _verify(network, trained.load(temporary))
        previous = files.beside(path)
        if path.exists():
            path.rename(previous)  # a kill from here on leaves both directories complete
        temporary.rename(path)
        files.sync(path.parent)
        if previous.exists():
            previous.rmtree()
    finally:
        if temporary.exists():
            temporary.rmtree()
    size = len(contents[files.WEIGHTS]) / 1e6
    return (
        f"{path}: {size:.1f} MB, epoch {network.epoch}, bit for bit the checkpoint; read it with "
        "cifar_jax.load"
    )


def _verify(network: Trained, loaded: Trained) -> None:
    """Raises UserError unless the parameters are equal bit for bit."""
    saved, found = (jax.device_get(each.variables) for each in (network, loaded))
    same = jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), saved, found)
    if not all(jax.tree.leaves(same)):
        raise UserError("nothing was written: the parameters changed on export; please report it")
