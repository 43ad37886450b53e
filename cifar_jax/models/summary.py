"""The table that a run prints first: layers with their shapes, parameters and multiply-adds."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util


@dataclasses.dataclass(frozen=True)
class Layer:
    """A row: a module with parameters of its own, or one that calls no other module."""

    name: str  # its path, "stage_0/block_1/conv_0"
    kind: str  # its class
    shape: tuple[int, ...]  # shape of the output, without the batch axis
    parameters: int  # including batch statistics, as Keras counts
    multiply_adds: int  # by kernels, in the forward pass of one image


def count(tree: Any) -> int:
    """The number of scalars in a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def layers(model: nn.Module, image_shape: tuple[int, int, int]) -> list[Layer]:
    """The layers of `model` in call order, for one image of shape `[H, W, C]`.

    Nothing is computed: the shapes come from tracing. A layer that is called twice has two rows;
    only the first counts its parameters.
    """
    calls: list[tuple[nn.Module, tuple[int, ...]]] = []

    def record(call, args, kwargs, context):  # pyright: ignore[reportMissingParameterType]
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(output, jax.Array):
            calls.append((context.module, output.shape[1:]))
        return output

    with nn.intercept_methods(record):
        images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        variables = jax.eval_shape(
            lambda images: model.init(jax.random.key(0), images, train=False), images
        )
    owned: dict[tuple[str, ...], dict[str, Any]] = {}
    for collection, tree in variables.items():
        for path, leaf in traverse_util.flatten_dict(tree).items():
            owned.setdefault(path[:-1], {})[f"{collection}/{path[-1]}"] = leaf
    parents = {module.path[:-1] for module, _ in calls}
    rows, counted = [], set()
    for module, shape in calls:
        own = owned.get(module.path, {})
        if not own and module.path in parents:
            continue
        kernel = own.get("params/kernel")
        parameters = 0 if module.path in counted else count(own)
        counted.add(module.path)
        rows.append(
            Layer(
                "/".join(module.path),
                type(module).__name__,
                shape,
                parameters,
                0 if kernel is None else _multiply_adds(module, kernel.shape, shape),
            )
        )
    return rows


def _multiply_adds(module: nn.Module, kernel: tuple[int, ...], output: tuple[int, ...]) -> int:
    """Uses of a kernel: each entry once at every position of the output, channels not counted."""
    features = getattr(module, "features", kernel[-1])
    positions = math.prod(output) // math.prod(np.atleast_1d(features).tolist())
    return math.prod(kernel) * positions


def table(
    rows: list[Layer],
    trained: Any,
    fixed: Mapping[str, Any],
    opt_state: Any,
    augmentations: list[str],
    image_shape: tuple[int, int, int],
) -> str:
    """Formats the summary as text.

    Args:
      trained: the tree of trained parameters.
      fixed: name -> tree of arrays that are not trained: frozen parameters, batch statistics.
      opt_state: the optimizer's state; its scalars are counted.
      augmentations: names of the augmentations that are on.
      image_shape: `[H, W, C]`.

    Keras shows augmentations as layers. Here they belong to the train step, so their rows come
    first and have no parameters. For a compiled model, Keras' "total params" include the state of
    the optimizer; the last line gives that figure.
    """
    trainable, optimizer = count(trained), count(opt_state)
    names = [name for name, tree in fixed.items() if count(tree)] or list(fixed)[-1:]
    total = trainable + count(fixed)
    cells = [("layer", "type", "output shape", "parameters", "multiply-adds")]
    cells += [(name, "augmentation", str((None, *image_shape)), "0", "0") for name in augmentations]
    for row in rows:
        shape = str((None, *row.shape))
        cells.append((row.name, row.kind, shape, f"{row.parameters:,}", f"{row.multiply_adds:,}"))
    multiply_adds = sum(row.multiply_adds for row in rows)
    cells.append(("total", "", "", f"{total:,}", f"{multiply_adds:,}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    rule = "-" * len(lines[0])
    lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
    lines.append(
        f"trainable {trainable:,}, not trainable ({' and '.join(names)}) {total - trainable:,}, "
        f"optimizer state {optimizer:,}; with the optimizer's state {total + optimizer:,}"
    )
    return "\n".join(lines)
