"""Prepares data sets with TensorFlow Datasets (TFDS), but without TensorFlow.

To prepare an image data set, TFDS uses TensorFlow only to open files and to encode PNGs. Here plain
Python opens the files and Pillow encodes the PNGs. The result is the standard data set (such as
`cifar10/3.0.2`) in the `array_record` format, which any TFDS can read.
"""

import contextlib
import fcntl
import http.client
import io
import logging
import os
import re
import sys
import types
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core.download import extractor
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.util import DownloadError

from cifar_jax.errors import UserError

PROBE_SECONDS = 5

_log = logging.getLogger(__name__)


def prepare(name: str, builder: tfds.core.DatasetBuilder) -> None:
    """Downloads the data set of `builder`, with TFDS' progress bars, and prepares it.

    Args:
      name: of the data set, for messages.
      builder: TFDS' builder of a data set that is not prepared yet.

    Raises:
      UserError: the host is unreachable, the download is damaged, the disk is full, or the data set
        needs TensorFlow.
    """
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        raise UserError(f"TFDS cannot download {name} for you: prepare it with `tfds build`")
    _probe(builder)
    generate, image_key = builder._generate_examples, builder.info.supervised_keys[0]

    def generate_with_png(*args: Any, **kwargs: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
        for key, example in generate(*args, **kwargs):
            if isinstance(example[image_key], np.ndarray):
                example = {**example, image_key: _png(example[image_key])}
            yield key, example

    builder._generate_examples = generate_with_png
    _log.info("downloading and preparing %s in %s", name, builder.data_path)
    try:
        with _without_tensorflow(builder):
            builder.download_and_prepare(
                file_format="array_record",
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
    except NonMatchingChecksumError as error:
        digests = ", found ".join(re.findall(r"checksum='(\w+)'", str(error)))
        raise UserError(
            f"the download of {name} is damaged: expected SHA-256 {digests}; try again, or"
            f" {alternatives(name)}"
        ) from error
    except (DownloadError, extractor.ExtractError, OSError, ValueError, AssertionError) as error:
        raise UserError(
            f"cannot prepare {name} in {builder.data_path}: {brief(error)}; if the disk is full,"
            f" set TFDS_DATA_DIR to a directory on another disk; otherwise {alternatives(name)}"
        ) from error
    except (_NeedsTensorFlow, ImportError) as error:
        raise UserError(
            f"{name} cannot be prepared without TensorFlow ({brief(error)}): prepare it where"
            f" TensorFlow is installed, with `tfds build {name} --file_format=array_record`"
        ) from error


def _png(image: np.ndarray) -> io.BytesIO:
    """Encodes an image `[H, W, C]` uint8, with C = 1, 3 or 4, as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format="PNG")
    file.seek(0)
    return file


class _NeedsTensorFlow(Exception):
    """The data set uses a part of TensorFlow that `_StandIn` lacks."""


class _StandIn(types.SimpleNamespace):
    """Stands in for a TensorFlow module; using anything that it lacks raises _NeedsTensorFlow."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python itself looks for optional special methods
            raise AttributeError(name)
        raise _NeedsTensorFlow(f"it uses {name} of TensorFlow")


@contextlib.contextmanager
def _without_tensorflow(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """Replaces TensorFlow, in the modules that prepare the data set, by plain file functions."""
    gfile = _StandIn(GFile=open, exists=os.path.exists, listdir=os.listdir, remove=os.remove)
    tensorflow = _StandIn(
        io=_StandIn(gfile=gfile),
        compat=_StandIn(as_text=os.fsdecode),
        errors=_StandIn(ResourceExhaustedError=()),  # plain files never raise it
    )
    core = "tensorflow_datasets.core."
    own = {sys.modules[cls.__module__] for cls in type(builder).__mro__}
    modules = {extractor, shuffle} | {m for m in own if not m.__name__.startswith(core)}
    saved = {module: module.tf for module in modules if hasattr(module, "tf")}
    try:
        for module in saved:
            vars(module)["tf"] = tensorflow
        yield
    finally:
        for module, original in saved.items():
            vars(module)["tf"] = original


def _probe(builder: tfds.core.DatasetBuilder) -> None:
    """Raises UserError within seconds if the download host is unreachable.

    TFDS itself would retry for minutes.
    """
    for url in {urlsplit(url).netloc: url for url in builder.url_infos or ()}.values():
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError as error:
            if error.code < 500:  # the host answers; TFDS reports what is wrong, if anything
                continue
            reason: object = error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
        else:
            continue
        raise UserError(
            f"cannot download {builder.name}: {urlsplit(url).netloc} is unreachable ({reason});"
            f" {alternatives(builder.name)}"
        )


def alternatives(name: str) -> str:
    """The end of a one-line error message: what to do if `name` cannot be downloaded."""
    archive = (
        "set config.data.archive to a local cifar-10-binary.tar.gz or cifar-10-python.tar.gz, "
        if name == "cifar10"
        else ""
    )
    return (
        f"set config.data.dir (or TFDS_DATA_DIR) to a TFDS directory that holds {name}, {archive}or"
        " leave config.data.dir empty and set config.data.download=True on a machine with network"
    )


@contextlib.contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Lets one process at a time prepare data in `directory`; the others wait.

    Raises:
      UserError: `directory` cannot be created.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise UserError(
            f"cannot prepare a data set in {directory} ({error.strerror}): set TFDS_DATA_DIR to a"
            " writable directory"
        ) from error
    try:
        # Some network file systems have no locks. Preparing twice is then wasteful but harmless:
        # TFDS prepares in a temporary directory and renames it.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def brief(error: Exception) -> str:
    """The message of `error` on one line, at most 300 characters."""
    return " ".join(str(error).split())[:300]
