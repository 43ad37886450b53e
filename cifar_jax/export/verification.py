"""An export beside the checkpoint it was made of."""

from collections.abc import Callable

import jax
import numpy as np
from etils import epath

from cifar_jax.errors import UserError
from cifar_jax.evaluation.trained import Trained

BATCH_SIZES = (1, 64)

# Largest difference of a logit, relative to the largest logit. In bfloat16, whose steps are 2^-8,
# values are rounded where a compiler happens not to fuse.
_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}

Batches = dict[str, np.ndarray]


def verify(network: Trained, exported: Callable[[Batches], Batches]) -> float:
    """The largest difference of the logits on noise, relative to the largest logit.

    Args:
      exported: uint8 images `[B, H, W, C]` to logits `[B, K]`, of several batches by name.

    Raises:
      UserError: the logits are others than those of `network`.
    """
    rng = np.random.default_rng(0)
    images = {
        str(size): rng.integers(0, 256, (size, *network.image_shape), np.uint8)
        for size in BATCH_SIZES
    }
    # An accelerator would round factors to fewer bits than the export is compared by.
    with jax.default_matmul_precision("highest"):
        wanted = {name: network.logits(batch) for name, batch in images.items()}
    found = exported(images)
    scale = max(np.abs(logits).max() for logits in wanted.values())
    differences = [
        np.abs(found[name] - logits).max() / scale if found[name].shape == logits.shape else np.inf
        for name, logits in wanted.items()
    ]
    largest = float(max(differences))
    if not largest <= _TOLERANCE[network.config.dtype]:
        raise UserError(
            f"nothing written: the export's logits differ from those of {network.workdir} by "
            f"{largest:.1g} of the largest; try another --format, and report it"
        )
    return largest


def describe(network: Trained, path: epath.Path, size: int, difference: float) -> str:
    """The file that was written, in a line for a person."""
    shape = ", ".join(map(str, network.image_shape))
    return (
        f"{path}: {size / 1e6:.1f} MB, epoch {network.epoch}; uint8 images [batch, {shape}] -> "
        f"float32 logits [batch, {len(network.class_names)}], the checkpoint's to "
        f"{difference:.1g} of the largest"
    )
