"""Progressive resizing: epochs with smaller images take less time (Tan and Le 2021, section 4)."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from cifar_jax.errors import UserError
from cifar_jax.models.network import Network
from cifar_jax.optim import rules
from cifar_jax.training import state


def side(sides: Sequence[int], epochs: int, epoch: int) -> int:
    """Side in pixels of the training images in an epoch, counted from 0.

    0: that of the images that are evaluated.

    Args:
      sides: `config.augment.sides`.
      epochs: of the run.
    """
    return sides[epoch * len(sides) // epochs] if sides else 0


def costs(sides: Sequence[int], epochs: int) -> list[int]:
    """How long a step of each epoch takes, up to a common factor: its images' number of pixels."""
    return [side(sides, epochs, epoch) ** 2 or 1 for epoch in range(epochs)]


def shapes(model: Network, image_shape: tuple[int, int, int]) -> Any:
    """The parameters of a network, as shapes and dtypes."""
    return jax.eval_shape(lambda: state.init_variables(model, 0, image_shape))["params"]


def check(
    sides: Sequence[int],
    resized: Callable[[int], Network],
    params: Any,
    image_shape: tuple[int, int, int],
) -> None:
    """Checks that a network with these parameters can train on images of all sizes.

    Args:
      sides: `config.augment.sides`.
      resized: gives the network for images of a side.
      params: a tree of arrays or shapes.

    Raises:
      UserError: it cannot.
    """
    known = rules.flatten(params)
    for side in sorted(set(sides)):
        for path, leaf in rules.flatten(shapes(resized(side), image_shape)).items():
            if leaf.shape != known[path].shape:
                raise UserError(
                    f"config.augment.sides has {side}, with which {path} has the shape "
                    f"{leaf.shape}: leave it out, or use a network whose parameters do not depend "
                    "on the size of the images, such as config.model.name=efficientnet_lite"
                )
