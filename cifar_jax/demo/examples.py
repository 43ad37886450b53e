"""Images of a test set to begin with, with their true classes."""

import dataclasses
import logging

import numpy as np

from cifar_jax.data import sources
from cifar_jax.errors import UserError
from cifar_jax.trained import Trained

_MOST = 20

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Example:
    """An image uint8 `[H, W, C]` with the name of its class."""

    image: np.ndarray
    truth: str


def find(network: Trained) -> list[Example]:
    """The first test image of each class, of the first 20, that the network's run was tested on.

    Nothing is downloaded: without the data on this machine there are none, and a log line says so.
    """
    data = network.config.data.copy_and_resolve_references()
    data.download = False
    try:
        dataset = sources.load(data)
    except UserError as error:
        _log.warning("no examples of %s: %s", data.name, error)
        return []
    labels, first = np.unique(dataset.test_labels, return_index=True)
    return [
        Example(dataset.test_images[i], dataset.class_names[label])
        for label, i in zip(labels[:_MOST], first[:_MOST], strict=True)
    ]
