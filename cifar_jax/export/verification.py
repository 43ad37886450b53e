"""Compares an export with the checkpoint it was made from."""

from collections.abc import Callable

import jax
import numpy as np
from etils import epath

from cifar_jax.errors import UserError
from cifar_jax.evaluation.trained import Trained

BATCH_SIZES = (1, 64)

# Largest accepted difference of a logit, relative to the largest logit. With bfloat16 (steps of
# 2^-8), results depend on where the compiler fuses operations and so skips rounding.
_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}

Batches = dict[str, np.ndarray]


def verify(network: Trained, exported: Callable[[Batches], Batches]) -> float:
    """Compares the export with `network` on images of noise.

    Args:
      exported: takes named batches of images `[B, H, W, C]` uint8, returns the logits `[B, K]`
        float32 of each under the same name.

    Returns:
      The largest difference of a logit, relative to the largest logit.

    Raises:
      UserError: the logits differ by more than rounding explains.
    """
    rng = np.random.default_rng(0)
    images = {
        str(size): rng.integers(0, 256, (size, *network.image_shape), np.uint8)
        for size in BATCH_SIZES
    }
    # By default an accelerator multiplies at a lower precision than the tolerance.
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
            f"nothing was written: the export's logits differ from those of {network.workdir} by "
            f"{largest:.1g} of the largest; try another --format, and please report it"
        )
    return largest


def describe(network: Trained, path: epath.Path, size: int, difference: float) -> str:
    """A line that says what was written: path, size in bytes, shapes and the largest difference."""
    shape = ", ".join(map(str, network.image_shape))
    return (
        f"{path}: {size / 1e6:.1f} MB, epoch {network.epoch}; uint8 images [batch, {shape}] -> "
        f"float32 logits [batch, {len(network.class_names)}], within {difference:.1g} of the "
        "checkpoint's, relative to the largest"
    )
