"""Reads image classification data sets from a TensorFlow Datasets directory, without TensorFlow."""

import difflib
import logging
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError
from google.protobuf.message import DecodeError

from cifar_jax.data import image_formats, tfds_prepare
from cifar_jax.data.archive import Images, Labels, Splits
from cifar_jax.data.tfds_prepare import brief
from cifar_jax.errors import UserError

MAX_SIZE = 64  # pixels; the devices hold the whole data set decoded, too much with larger images
_CHUNK = 1000

_log = logging.getLogger(__name__)


def read(name: str, directory: Path, *, prepare: bool) -> tuple[Splits, tuple[str, ...], str]:
    """Reads the data set `name` from the TFDS directory `directory`.

    Args:
      name: TFDS' name of the data set, such as `"cifar10"` or `"emnist/letters"`.
      directory: the root that holds `name/version`.
      prepare: download and prepare the data set if it is missing.

    Returns:
      Images `[N, H, W, C]` uint8 and labels `[N]` int32 of both splits, in the order of the files;
      the class names; the directory of the version that was read.

    Raises:
      UserError: the data set is unknown, missing, damaged or unsuitable, the download failed, or
        the disk is full.
    """
    builder = _open(name, directory)
    if not builder.data_path.exists():
        if not prepare:
            raise UserError(
                f"found no data set {name}: looked for {builder.data_path};"
                f" {tfds_prepare.alternatives(name)}"
            )
        _check_fitness(name, builder.info)
        with tfds_prepare.lock(directory):
            builder = _open(name, directory)  # another process may have prepared it meanwhile
            if not builder.data_path.exists():
                tfds_prepare.prepare(name, builder)
        builder = _open(name, directory)
    _check_readable(name, builder)
    _check_fitness(name, builder.info)
    counts = {split: builder.info.splits[split].num_examples for split in ("train", "test")}
    path = str(builder.data_path)
    _log.info(
        "decoding %s images of %s from %s (once; cached afterwards)",
        f"{sum(counts.values()):,}",
        name,
        path,
    )
    splits = {split: _decode(builder, split) for split in counts}
    label = builder.info.features[builder.info.supervised_keys[1]]
    return splits, tuple(label.names), path


def read_test(name: str, directory: Path) -> tuple[Images, Labels]:
    """Reads the test split of a prepared data set that may have no other, such as `cifar10_1/v6`.

    Returns:
      Images `[N, H, W, C]` uint8 and labels `[N]` int32, in the order of the files.

    Raises:
      UserError: the data set is unknown, missing or damaged.
    """
    builder = _open(name, directory)
    if not builder.data_path.exists():
        raise UserError(
            f"found no data set {name}: looked for {builder.data_path}; set TFDS_DATA_DIR to "
            "a directory that holds it, or prepare it where TensorFlow is installed, with "
            f"`tfds build {name} --file_format=array_record --data_dir={directory}`"
        )
    _check_readable(name, builder)
    return _decode(builder, "test")


def _open(name: str, directory: Path) -> tfds.core.DatasetBuilder:
    known = tfds.list_builders(with_community_datasets=False)
    base = name.partition("/")[0].partition(":")[0]
    if base not in known and not (base and (directory / base).is_dir()):
        close = difflib.get_close_matches(base, [*known, "digits"], n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "try cifar10, cifar100 or digits"
        raise UserError(f"config.data.name={name} is not a data set that TFDS knows; {hint}")
    try:
        builder = tfds.builder(name, data_dir=directory)
        builder.info  # noqa: B018 (reads the directory's metadata)
    # TFDS raises AssertionError for an unknown version.
    except (ParseError, ImportError, OSError, ValueError, KeyError, AssertionError) as error:
        raise UserError(
            f"cannot open config.data.name={name} in {directory}: {brief(error)}"
        ) from error
    return builder


def _check_readable(name: str, builder: tfds.core.DatasetBuilder) -> None:
    path = builder.data_path
    if not (path / "dataset_info.json").exists():
        raise UserError(f"{path} is not a prepared data set (no dataset_info.json): remove it")
    file_format = builder.info.file_format.value
    if file_format != "array_record":
        archive = ", or set config.data.archive" if name == "cifar10" else ""
        raise UserError(
            f"{path} is prepared as {file_format}, which only TensorFlow can read: remove it so"
            " that it is prepared again as array_record, or set TFDS_DATA_DIR to another"
            f" directory{archive}"
        )


def _check_fitness(name: str, info: tfds.core.DatasetInfo) -> None:
    """Raises UserError unless all images have one small size and exactly one class label."""
    fault = ""
    keys = info.supervised_keys
    if keys is None or len(keys) != 2 or not all(isinstance(key, str) for key in keys):
        fault = "it is not an image classification set (no pair of image and label)"
    else:
        image, label = (info.features[key] for key in keys)
        if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
            fault = "its input is not an image with 8 bits per channel"
        elif not isinstance(label, tfds.features.ClassLabel) or not label.num_classes:
            fault = "its target is not one class label"
        elif None in image.shape or max(image.shape[:2]) > MAX_SIZE:
            fault = f"its images are {image.shape}, not all one size of at most {MAX_SIZE} pixels"
        elif info.splits and not {"train", "test"} <= set(info.splits):
            fault = f"its splits are {', '.join(info.splits)}; train and test are needed"
    if fault:
        raise UserError(f"config.data.name={name} cannot be used: {fault}")


# TFDS and its readers raise these for damaged files; RuntimeError comes from array_record.
_UNREADABLE = (RuntimeError, OSError, ValueError, IndexError, KeyError, DecodeError)


def _decode(builder: tfds.core.DatasetBuilder, split: str) -> tuple[Images, Labels]:
    """Decodes a split, in the order of the files."""
    image_key, label_key = builder.info.supervised_keys
    shape = builder.info.features[image_key].shape

    def damaged(error: Exception) -> UserError:
        return UserError(
            f"the {split} split in {builder.data_path} is damaged ({brief(error)}): remove that"
            " directory so that it is prepared again"
        )

    try:
        # Skipping TFDS' own image decoding halves the time. Threads do not help: for such small
        # images Pillow does not release the interpreter lock.
        records = builder.as_data_source(
            split=split, decoders={image_key: tfds.decode.SkipDecoding()}
        )
        size = len(records)
    except _UNREADABLE as error:
        raise damaged(error) from error
    images = np.empty((size, *shape), np.uint8)
    labels = np.empty(size, np.int32)
    for start in range(0, size, _CHUNK):
        indices = range(start, min(start + _CHUNK, size))
        try:
            chunk = records.__getitems__(list(indices))
        except _UNREADABLE as error:
            raise damaged(error) from error
        for i, record in zip(indices, chunk, strict=True):
            try:
                image = image_formats.open_image(record[image_key])
                with image_formats.reading(), image:
                    pixels = np.asarray(image)
            except UserError as error:
                raise damaged(error) from error
            if pixels.size != images[i].size:
                raise damaged(ValueError(f"an image has shape {pixels.shape}, expected {shape}"))
            images[i], labels[i] = pixels.reshape(shape), record[label_key]
    return images, labels
