"""Writes the scalars and pictures of a run for TensorBoard.

TensorBoard draws two curves in one chart if they have one name in two directories. So training and
validation have one each, and what belongs to neither is with training.
"""

import contextlib
import io
import socket
import time
from collections.abc import Iterator
from typing import Any

from etils import epath
from PIL import Image
from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import RecordWriter

from cifar_jax.runtime import checked
from cifar_jax.runtime import workdir as files

_SPLITS = ("train", "validation")
_VERSION = "brain.Event:2"  # of the file format; the first event of each file
_POSITION = ("epoch", "step")  # keys of a row that say where it stands


def figures(row: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    """The split, name and value of each figure of a row: "train_loss" is "loss" of "train"."""
    for key, value in row.items():
        if key not in _POSITION and value is not None:
            split, _, name = key.partition("_")
            yield (split, name, value) if split in _SPLITS else (_SPLITS[0], key, value)


class TensorBoard:
    """The event files of one start of a run. Raises UserError if they cannot be written."""

    def __init__(self, directory: epath.Path, step: int):
        """Continues after `step`: readers ignore what earlier files hold of later steps."""
        self._directory = directory
        if directory.exists() and not directory.is_dir():
            checked.set_aside(directory)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._writers: dict[str, RecordWriter] = {}
        with files.writing(directory), contextlib.ExitStack() as unless_made:
            unless_made.callback(self.close)
            for split in _SPLITS:
                writer = self._writers[split] = _writer(directory / split, step)
                _write(writer, file_version=_VERSION)
                _write(writer, step=step + 1, session_log=start)
            unless_made.pop_all()

    def append(self, row: dict[str, Any]) -> None:
        """Adds the figures of a row of `metrics.jsonl`."""
        values: dict[str, list[summary_pb2.Summary.Value]] = {split: [] for split in _SPLITS}
        for split, name, value in figures(row):
            values[split].append(summary_pb2.Summary.Value(tag=name, simple_value=value))
        with files.writing(self._directory):
            for split, scalars in values.items():
                summary = summary_pb2.Summary(value=scalars)
                _write(self._writers[split], step=row["step"], summary=summary)
                self._writers[split].flush()

    def close(self) -> None:
        """Ends all files, even if one of them cannot be written."""
        with files.writing(self._directory), contextlib.ExitStack() as each:
            for writer in self._writers.values():
                each.callback(writer.close)


def add_images(directory: epath.Path, step: int, images: dict[str, bytes]) -> None:
    """Adds pictures of a whole run: tag -> PNG.

    Raises:
      UserError: they cannot be written.
    """
    home = directory / _SPLITS[0]
    with files.writing(home), contextlib.closing(_writer(home, f"{step}.images")) as writer:
        _write(writer, file_version=_VERSION)
        for tag, png in images.items():
            picture = Image.open(io.BytesIO(png))
            image = summary_pb2.Summary.Image(
                height=picture.height,
                width=picture.width,
                colorspace=len(picture.getbands()),
                encoded_image_string=png,
            )
            value = summary_pb2.Summary.Value(tag=tag, image=image)
            _write(writer, step=step, summary=summary_pb2.Summary(value=[value]))


def _writer(directory: epath.Path, step: int | str) -> RecordWriter:
    # Not SummaryWriter: after its flush, events may still be in a queue, and a killed process would
    # lose them. Nor EventsWriter, which leaves a file open that it cannot flush. The step keeps
    # files apart that start in the same second: without it, the second would replace the first.
    directory.mkdir(parents=True, exist_ok=True)
    name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{step}"
    return RecordWriter(str(directory / name))


def _write(writer: RecordWriter, **event: Any) -> None:
    writer.write(event_pb2.Event(wall_time=time.time(), **event).SerializeToString())
