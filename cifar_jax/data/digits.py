"""A small data set that comes with scikit-learn and needs no download."""

import numpy as np
from PIL import Image

from cifar_jax.data.archive import Splits
from cifar_jax.data.fingerprint import canonical

CLASS_NAMES = tuple("0123456789")

_TEST_PER_CLASS = 36


def read() -> Splits:
    """scikit-learn's 1,797 handwritten digits as `[N, 32, 32, 3]` uint8 images.

    The 8x8 images with values 0..16 are scaled to 0..255, enlarged with Pillow's bicubic filter and
    repeated over the channels. The first 36 images of each class in canonical order form the test
    split, so the split is stratified and depends on the content alone.
    """
    # Imported late because the import is slow and no other data set needs it.
    from sklearn.datasets import load_digits

    small, labels = load_digits(return_X_y=True)
    small = np.round(small * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    small, labels = canonical(small, labels.astype(np.int32))
    bicubic = Image.Resampling.BICUBIC
    images = np.stack([np.asarray(Image.fromarray(x).resize((32, 32), bicubic)) for x in small])
    images = np.repeat(images[..., np.newaxis], 3, axis=-1)
    is_test = np.zeros(len(labels), bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[:_TEST_PER_CLASS]] = True
    # Stay in the canonical order of the 8x8 images, which does not depend on Pillow's rounding.
    return {
        "train": (images[~is_test], labels[~is_test]),
        "test": (images[is_test], labels[is_test]),
    }
