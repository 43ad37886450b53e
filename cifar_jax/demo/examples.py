"""Test images that the page offers as examples, with their true classes."""

import dataclasses
import logging

import numpy as np

from cifar_jax.data import images
from cifar_jax.errors import UserError
from cifar_jax.evaluation.trained import Trained

DIRECTORY = "examples"
_MAX_CLASSES = 20

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Example:
    """An image `[H, W, C]` uint8 and the name of its true class."""

    image: np.ndarray
    truth: str


def find(network: Trained) -> list[Example]:
    """Images that came with the network; else the first test image of each of the first 20 classes.

    Nothing is downloaded. If this machine does not have the data, or an image is damaged, the list
    is empty and a warning is logged.
    """
    try:
        return _brought(network) or _of_data(network)
    except UserError as error:
        _log.warning("no examples of %s: %s", network.config.data.name, error)
        return []


def _brought(network: Trained) -> list[Example]:
    """The files CLASS.png in the network's own `DIRECTORY`."""
    named = {name: network.workdir / DIRECTORY / f"{name}.png" for name in network.class_names}
    return [
        Example(images.decode(path.read_bytes(), network.data_shape), name)
        for name, path in named.items()
        if path.exists()
    ]


def _of_data(network: Trained) -> list[Example]:
    dataset = network.dataset(download=False)
    labels, first = np.unique(dataset.test_labels, return_index=True)
    return [
        Example(dataset.test_images[i], dataset.class_names[label])
        for label, i in zip(labels[:_MAX_CLASSES], first[:_MAX_CLASSES], strict=True)
    ]
