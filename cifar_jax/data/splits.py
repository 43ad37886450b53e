"""Splits the training images by seed, and computes class counts and channel statistics."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int32, Integer, UInt8

from cifar_jax.errors import UserError


def split(
    labels: Integer[np.ndarray, " n"], fraction: float, seed: int, stratified: bool, limit: int = 0
) -> tuple[Int32[np.ndarray, " train"], Int32[np.ndarray, " validation"]]:
    """Splits the training images into training and validation.

    Args:
      fraction: share of the images that go to validation, in [0, 1).
      seed: decides which images these are.
      stratified: keep the class distribution in both parts.
      limit: how many images to train on, of those that are left; 0: all.

    Returns:
      The sorted indices of both parts, training first.

    Raises:
      UserError: with `fraction` > 0, a part would be empty or a class too small for both parts; or
        there are fewer than `limit` images.
    """
    train, validation = np.arange(len(labels), dtype=np.int32), np.zeros(0, np.int32)
    if fraction:
        key = f"config.data.validation_fraction={fraction}"
        train, validation = _parts(train, labels, fraction, seed, stratified, key)
    if limit and limit != len(train):
        key = f"config.data.train_images={limit}"
        _, train = _parts(train, labels, limit, seed, stratified, key)
    return train, validation


def _parts(
    indices: Int32[np.ndarray, " n"],
    labels: Integer[np.ndarray, " all"],
    size: float,
    seed: int,
    stratified: bool,
    key: str,
) -> tuple[Int32[np.ndarray, " first"], Int32[np.ndarray, " second"]]:
    """Splits indices at random; the second part has `size` of them, a share or a number."""
    # Imported late so that runs without a split start faster. NumPy guarantees that the RandomState
    # stream behind it never changes.
    from sklearn.model_selection import train_test_split

    try:
        first, second = train_test_split(
            indices,
            test_size=size,
            random_state=seed,
            stratify=labels[indices] if stratified else None,
        )
    except ValueError as error:
        raise UserError(
            f"cannot split {len(indices)} images with {key}: "
            f"{str(error).rstrip('.')}. Choose another value, or config.data.stratified=False"
        ) from error
    return np.sort(first), np.sort(second)


def class_counts(labels: Integer[np.ndarray, " n"], class_names: Sequence[str]) -> dict[str, int]:
    """The number of images of each class, by class name."""
    counts = np.bincount(labels, minlength=len(class_names))
    return dict(zip(class_names, counts.tolist(), strict=True))


def channel_statistics(
    images: UInt8[np.ndarray, "n h w c"],
) -> tuple[Float32[np.ndarray, " c"], Float32[np.ndarray, " c"]]:
    """Mean and standard deviation of each channel, for pixels scaled to [0, 1]."""
    # Histograms are exact and avoid a float copy of the images.
    values = np.arange(256) / 255
    histograms = np.stack(
        [np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(images, -1, 0)]
    )
    mean = histograms @ values / histograms.sum(1)
    squares = np.square(values - mean[:, None])
    variance = (histograms * squares).sum(1) / histograms.sum(1)
    constant = (histograms > 0).sum(1) == 1  # its variance would be a rounding error, not 0
    return mean.astype(np.float32), np.sqrt(np.where(constant, 0, variance)).astype(np.float32)


def standardization(
    images: UInt8[np.ndarray, "n h w c"],
) -> tuple[Float32[np.ndarray, " c"], Float32[np.ndarray, " c"]]:
    """What `augment.standardize` subtracts and divides by, for pixels scaled to [0, 1].

    These are mean and standard deviation of each channel, but 1 for a standard deviation of 0.
    """
    mean, std = channel_statistics(images)
    return mean, np.where(std == 0, np.float32(1), std)
