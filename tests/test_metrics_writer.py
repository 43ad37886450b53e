"""Rows are never partial or repeated, and TensorBoard gets the same numbers."""

import errno
import io
import json
import logging
import pathlib
import struct
import sys
from unittest import mock

import numpy as np
import pytest
import tiny
from etils import epath
from PIL import Image
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

from cifar_jax.errors import UserError
from cifar_jax.runtime import metrics_writer, tensorboard, workdir_schema
from cifar_jax.runtime.metrics_writer import MetricsWriter, Progress

FIGURES: dict[str, float] = dict.fromkeys(
    ("train_accuracy", "train_objective", "images_per_second", "seconds"), 0.5
)
FIGURES["learning_rate"] = 1e-3


def row(epoch: int, loss: float = 0.5):
    figures = dict.fromkeys(workdir_schema.FIGURES) | FIGURES | {"train_loss": loss}
    return {"epoch": epoch, "step": 10 * epoch, **figures}


@pytest.fixture
def workdir(tmp_path: pathlib.Path):
    return epath.Path(tmp_path)


def write(workdir: epath.Path, step: int, rows: list[dict[str, float | None]]):
    with MetricsWriter(workdir, step) as writer:
        for one in rows:
            writer.append(one)


def lines(workdir: epath.Path):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def events(workdir: epath.Path):
    """All TensorBoard events and the directory of each, oldest first.

    In the file, each event has a length, its checksum, the message, and its checksum.
    """
    found = []
    for path in (workdir / "tensorboard").glob("*/*"):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack_from("<Q", data)
            found.append((path.parent.name, event_pb2.Event.FromString(data[12 : 12 + length])))
            data = data[16 + length :]
    return sorted(found, key=lambda item: item[1].wall_time)


def pictures(workdir: epath.Path) -> dict[tuple[str, int], Image.Image]:
    return {
        (value.tag, event.step): Image.open(io.BytesIO(value.image.encoded_image_string))
        for _, event in events(workdir)
        for value in event.summary.value
        if value.HasField("image")
    }


def scalars(workdir: epath.Path):
    return {
        (split, value.tag, event.step): value.simple_value
        for split, event in events(workdir)
        for value in event.summary.value
    }


def test_there_is_one_row_per_epoch_in_order(workdir: epath.Path):
    write(workdir, 0, [row(1), row(2), row(3)])
    assert lines(workdir) == [row(1), row(2), row(3)]
    assert metrics_writer.read_rows(workdir) == [row(1), row(2), row(3)]


def test_a_row_can_be_read_as_soon_as_it_is_written(workdir: epath.Path):
    with MetricsWriter(workdir, 0) as writer:
        writer.append(row(1))
        assert lines(workdir) == [row(1)]
        assert ("train", "loss", 10) in scalars(workdir)


def test_a_finished_run_shows_its_first_batch_and_its_confusion_matrix(compass: epath.Path):
    (row,) = metrics_writer.read_rows(compass)
    shown = pictures(compass)
    assert set(shown) == {
        ("first batch, augmented", row["step"]),
        ("confusion matrix, test images", row["step"]),
    }
    exp = tiny.build(tiny.compass())
    first = exp.train[0][np.asarray(exp.epoch_order(0)[0])]  # this config augments nothing
    assert len(first) == 16 and first.shape[1:] == (8, 8, 3)
    rows = [np.concatenate(list(images), axis=1) for images in (first[:8], first[8:])]
    np.testing.assert_array_equal(
        shown["first batch, augmented", row["step"]], np.concatenate(rows)
    )


def test_a_missing_file_has_no_rows(workdir: epath.Path):
    assert metrics_writer.read_rows(workdir) == []


def test_resuming_drops_the_rows_of_epochs_that_are_repeated(workdir: epath.Path):
    write(workdir, 0, [row(1), row(2), row(3)])
    with MetricsWriter(workdir, 20) as writer:
        assert lines(workdir) == [row(1), row(2)]  # at once: a kill now leaves no row of epoch 3
        writer.append(row(3, loss=0.25))
    assert lines(workdir) == [row(1), row(2), row(3, loss=0.25)]


def test_resuming_within_an_epoch_keeps_earlier_rows(workdir: epath.Path):
    write(workdir, 0, [row(1), row(2)])
    write(workdir, 15, [row(2, loss=0.25)])
    assert lines(workdir) == [row(1), row(2, loss=0.25)]


def test_a_truncated_last_line_is_left_out(workdir: epath.Path, caplog: pytest.LogCaptureFixture):
    write(workdir, 0, [row(1), row(2)])
    path = workdir / "metrics.jsonl"
    path.write_text(path.read_text() + json.dumps(row(3))[:20])
    with caplog.at_level(logging.WARNING):
        assert metrics_writer.read_rows(workdir) == [row(1), row(2)]
    assert "metrics.jsonl" in caplog.text
    write(workdir, 20, [row(3)])
    assert lines(workdir) == [row(1), row(2), row(3)]


def test_a_failed_write_leaves_the_file_intact(
    workdir: epath.Path, monkeypatch: pytest.MonkeyPatch
):
    """Fails at the rename: the new content is then in another file next to the old one."""
    write(workdir, 0, [row(1)])
    beside = []

    def no_rename(self: epath.Path, target: epath.Path):
        beside.append((self.parent, self.read_text()))
        assert target == workdir / "metrics.jsonl"
        raise OSError("disk full")

    with MetricsWriter(workdir, 10) as writer:
        monkeypatch.setattr(type(workdir), "replace", no_rename)
        with pytest.raises(UserError, match="cannot write .*metrics.jsonl .disk full.: free some"):
            writer.append(row(2))
        assert lines(workdir) == [row(1)]
    ((folder, text),) = beside
    assert folder == workdir  # a rename across file systems would not be atomic
    assert [json.loads(line) for line in text.splitlines()] == [row(1), row(2)]


def test_a_number_that_json_lacks_is_refused(workdir: epath.Path):
    with MetricsWriter(workdir, 0) as writer, pytest.raises(ValueError, match="JSON"):
        writer.append(row(1, loss=float("nan")))
    assert not (workdir / "metrics.jsonl").exists()


def test_no_temporary_file_is_left(workdir: epath.Path):
    write(workdir, 0, [row(1), row(2)])
    assert sorted(path.name for path in workdir.iterdir()) == ["metrics.jsonl", "tensorboard"]


def test_tensorboard_has_training_and_validation_in_one_chart(workdir: epath.Path):
    validated = {"validation_loss": 0.75, "validation_accuracy": 0.125}
    write(workdir, 0, [row(1, loss=0.5), {**row(2, loss=0.25), **validated}])
    figures = {"accuracy": 0.5, "objective": 0.5, "learning_rate": 1e-3}
    figures |= {"images_per_second": 0.5, "seconds": 0.5}
    expected = {("train", tag, step): v for tag, v in figures.items() for step in (10, 20)}
    expected |= {("train", "loss", 10): 0.5, ("train", "loss", 20): 0.25}
    expected |= {("validation", "loss", 20): 0.75, ("validation", "accuracy", 20): 0.125}
    assert scalars(workdir) == pytest.approx(expected)


def test_tensorboard_is_told_which_steps_are_repeated(workdir: epath.Path):
    write(workdir, 0, [row(1), row(2)])
    write(workdir, 10, [row(2, loss=0.125)])
    for split in ("train", "validation"):
        of_split = [event for name, event in events(workdir) if name == split]
        began = event_pb2.SessionLog.START
        starts = [event.step for event in of_split if event.session_log.status == began]
        assert starts == [1, 11]  # readers ignore what earlier files hold from this step on
    found = scalars(workdir)
    # From the first file, though both have the same second in their name.
    assert found["train", "loss", 10] == 0.5
    assert found["train", "loss", 20] == 0.125


# ---------------------------------------------------------------------------- progress
def test_progress_prints_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]):
    progress = Progress([1, 1, 1], steps_per_epoch=10, step=0, interval=0.0)
    progress.update(10, 0.5, 0.75, 1234.0)
    progress.update(15, 0.25, 0.875, 1234.0)
    progress.close()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1/3, step 10/30: loss 0.5000, accuracy 0.7500, 1,234 images/s")
    assert second.startswith("epoch 2/3, step 15/30: loss 0.2500, accuracy 0.8750")


def test_progress_prints_nothing_before_its_interval(capsys: pytest.CaptureFixture[str]):
    progress = Progress([1, 1, 1], steps_per_epoch=10, step=0, interval=60.0)
    progress.update(10, 0.5, 0.75, 1234.0)
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_time_left_is_based_on_this_process_only(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(metrics_writer.time, "monotonic", lambda: now)
    progress = Progress([1] * 10, steps_per_epoch=100, step=400)
    assert progress.eta() == "?"  # no step yet in this process; those of earlier ones do not count
    now += 30.0
    progress.update(500, 0.5, 0.5, 1.0)
    assert progress.eta() == "02:30"  # 500 steps at 100 in 30 s
    progress.close()


def test_time_left_knows_that_later_epochs_take_longer(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(metrics_writer.time, "monotonic", lambda: now)
    progress = Progress([1, 1, 4, 9], steps_per_epoch=10, step=5)
    now += 10.0
    progress.update(15, 0.5, 0.5, 1.0)
    assert progress.eta() == "02:15"  # 5 steps that cost 1 of 1 s, 10 of 4 s, 10 of 9 s
    now += 25.0
    progress.update(25, 0.5, 0.5, 1.0)
    assert progress.eta() == "01:50"
    now += 110.0
    progress.update(40, 0.5, 0.5, 1.0)
    assert progress.eta() == "00:00"
    progress.close()


def test_progress_is_one_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress([1, 1, 1], steps_per_epoch=10, step=0)
    progress.update(15, 0.25, 0.875, 1234.0)
    progress.close()
    text = terminal.getvalue()
    assert "epoch 2/3" in text and "15/30" in text and "loss 0.2500" in text and " left" in text
    assert text.count("\n") == 1  # at the end


def test_all_files_of_tensorboard_are_closed_on_a_full_disk(workdir: epath.Path):
    """Else Python writes what is left in a buffer at its end, and complains once more."""
    board, close = tensorboard.TensorBoard(workdir / "full", 0), RecordWriter.close
    closed = []

    def full(writer: RecordWriter) -> None:
        closed.append(writer)
        close(writer)
        raise OSError(errno.ENOSPC, "No space left on device")

    with mock.patch.object(RecordWriter, "close", full):
        with pytest.raises(UserError, match="No space left"):
            board.close()
    assert len(closed) == 2
