"""Images of a test set to begin with, with their true classes."""

import dataclasses
import logging

import numpy as np

from cifar_jax.errors import UserError
from cifar_jax.evaluation.trained import Trained
from cifar_jax.training import run_data

_MOST = 20

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Example:
    """An image uint8 `[H, W, C]` with the name of its class."""

    image: np.ndarray
    truth: str


def find(network: Trained) -> list[Example]:
    """The first test image of each class, of the first 20, that the network's run was tested on.

    Nothing is downloaded: without the data of the run on this machine there are none, and a log
    line says so.
    """
    config = network.config.copy_and_resolve_references()
    config.data.download = False
    try:
        dataset = run_data.load(config, network.workdir)
    except UserError as error:
        _log.warning("no examples of %s: %s", config.data.name, error)
        return []
    labels, first = np.unique(dataset.test_labels, return_index=True)
    return [
        Example(dataset.test_images[i], dataset.class_names[label])
        for label, i in zip(labels[:_MOST], first[:_MOST], strict=True)
    ]
