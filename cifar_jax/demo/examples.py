"""Test images that the page offers as examples, with their true classes."""

import dataclasses
import logging

import numpy as np

from cifar_jax.errors import UserError
from cifar_jax.evaluation.trained import Trained

_MAX_CLASSES = 20

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Example:
    """An image `[H, W, C]` uint8 and the name of its true class."""

    image: np.ndarray
    truth: str


def find(network: Trained) -> list[Example]:
    """The first test image of each of the first 20 classes in the data of the network's run.

    Nothing is downloaded. If this machine does not have the data, the list is empty and a warning
    is logged.
    """
    try:
        dataset = network.dataset(download=False)
    except UserError as error:
        _log.warning("no examples of %s: %s", network.config.data.name, error)
        return []
    labels, first = np.unique(dataset.test_labels, return_index=True)
    return [
        Example(dataset.test_images[i], dataset.class_names[label])
        for label, i in zip(labels[:_MAX_CLASSES], first[:_MAX_CLASSES], strict=True)
    ]
