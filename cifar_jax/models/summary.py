"""The table that a run prints first: layers, shapes, parameters, multiply-adds."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Layer:
    """A row: `shape` is the output's without the batch axis; `parameters` counts batch statistics
    too, as Keras does; `multiply_adds` of the forward pass of one image, of kernels only."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def count(tree) -> int:
    """The number of scalars in a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def layers(model: nn.Module, image_shape: tuple[int, int, int]) -> list[Layer]:
    """The layers of `model` in the order of their calls, for one image `[H, W, C]`.

    Nothing is computed: the shapes come from tracing.
    """
    calls: list[tuple[nn.Module, tuple[int, ...]]] = []

    def record(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and len(context.module.path) == 1:
            calls.append((context.module, output.shape[1:]))
        return output

    with nn.intercept_methods(record):
        images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        variables = jax.eval_shape(
            lambda images: model.init(jax.random.key(0), images, train=False), images
        )
    rows = []
    for module, shape in calls:
        name = module.path[0]
        own = [collection[name] for collection in variables.values() if name in collection]
        kernel = variables["params"].get(name, {}).get("kernel")
        multiply_adds = 0 if kernel is None else count(kernel) * math.prod(shape[:-1])
        rows.append(Layer(name, type(module).__name__, shape, count(own), multiply_adds))
    return rows


def table(
    rows: list[Layer], variables: dict, opt_state, augmentations: list[str], image_shape
) -> str:
    """The summary as text.

    Keras shows an augmentation as a layer; here it belongs to the train step, so its rows come
    first and have no parameters. Keras' "total params" of a compiled model also counts the
    optimizer's state: the last line is that figure.
    """
    trainable = count(variables["params"])
    fixed = count(variables) - trainable
    optimizer = count(opt_state)
    cells = [("layer", "type", "output shape", "parameters", "multiply-adds")]
    cells += [(name, "augmentation", str((None, *image_shape)), "0", "0") for name in augmentations]
    for row in rows:
        shape = str((None, *row.shape))
        cells.append((row.name, row.kind, shape, f"{row.parameters:,}", f"{row.multiply_adds:,}"))
    total = (f"{trainable + fixed:,}", f"{sum(row.multiply_adds for row in rows):,}")
    cells.append(("total", "", "", *total))
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
        f"trainable {trainable:,}, not trainable (batch statistics) {fixed:,}, optimizer state "
        f"{optimizer:,}; with the optimizer's state {trainable + fixed + optimizer:,}"
    )
    return "\n".join(lines)
