"""The seeded split of the training images, and the statistics that go with it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int32, Integer, UInt8

from cifar_jax.errors import UserError


def split(
    labels: Integer[np.ndarray, " n"], fraction: float, seed: int, stratified: bool
) -> tuple[Int32[np.ndarray, " train"], Int32[np.ndarray, " validation"]]:
    """Splits the training set in two.

    Args:
      fraction: of the images that validate, in [0, 1).
      seed: decides which.
      stratified: give both parts the class distribution of the whole.

    Returns:
      The sorted indices of the two parts, training first.

    Raises:
      UserError: a part would be empty that is not to be, or a class is too small to be in both.
    """
    if not fraction:
        return np.arange(len(labels), dtype=np.int32), np.zeros(0, np.int32)
    # Here, so that what needs no split starts without it. Its RandomState stream is frozen.
    from sklearn.model_selection import train_test_split

    try:
        train, validation = train_test_split(
            np.arange(len(labels), dtype=np.int32),
            test_size=fraction,
            random_state=seed,
            stratify=labels if stratified else None,
        )
    except ValueError as error:
        raise UserError(
            f"cannot split {len(labels)} images with config.data.validation_fraction={fraction}: "
            f"{str(error).rstrip('.')}. Choose another fraction, or config.data.stratified=False"
        ) from error
    return np.sort(train), np.sort(validation)


def class_counts(labels: Integer[np.ndarray, " n"], class_names: Sequence[str]) -> dict[str, int]:
    """Class name -> number of images with that label."""
    counts = np.bincount(labels, minlength=len(class_names))
    return dict(zip(class_names, counts.tolist(), strict=True))


def channel_statistics(
    images: UInt8[np.ndarray, "n h w c"],
) -> tuple[Float32[np.ndarray, " c"], Float32[np.ndarray, " c"]]:
    """Mean and standard deviation of each channel, in units of pixels / 255, from exact sums."""
    # A histogram is exact and needs no float copy of the images.
    values = np.arange(256) / 255
    histograms = np.stack(
        [np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(images, -1, 0)]
    )
    mean = histograms @ values / histograms.sum(1)
    squares = np.square(values - mean[:, None])
    variance = (histograms * squares).sum(1) / histograms.sum(1)
    constant = (histograms > 0).sum(1) == 1  # whose variance would be that of rounding
    return mean.astype(np.float32), np.sqrt(np.where(constant, 0, variance)).astype(np.float32)


def standardization(
    images: UInt8[np.ndarray, "n h w c"],
) -> tuple[Float32[np.ndarray, " c"], Float32[np.ndarray, " c"]]:
    """What to take from each channel and to divide it by then, in units of pixels / 255.

    Mean and standard deviation; of a constant channel 1 in place of the deviation, which is 0.
    """
    mean, std = channel_statistics(images)
    return mean, np.where(std == 0, np.float32(1), std)
