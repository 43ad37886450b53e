"""Rows are there or not, never half, never twice; TensorBoard has the same figures."""

import io
import json
import logging
import struct
import sys
import time

import numpy as np
import pytest
from etils import epath
from tensorboardX.proto import event_pb2

from cifar_jax.errors import UserError
from cifar_jax.runtime import metrics_writer, workdir_schema
from cifar_jax.runtime.metrics_writer import MetricsWriter, Progress

FIGURES = dict.fromkeys(("train_accuracy", "train_objective", "images_per_second", "seconds"), 0.5)
FIGURES["learning_rate"] = 1e-3


def row(epoch, loss=0.5):
    figures = dict.fromkeys(workdir_schema.FIGURES) | FIGURES | {"train_loss": loss}
    return {"epoch": epoch, "step": 10 * epoch, **figures}


@pytest.fixture
def workdir(tmp_path):
    return epath.Path(tmp_path)


def write(workdir, step, rows):
    with MetricsWriter(workdir, step) as writer:
        for one in rows:
            writer.append(one)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def events(workdir):
    """All TensorBoard events, oldest first.

    Each is its length, a checksum of that, the message, and a checksum of that.
    """
    found = []
    for path in (workdir / "tensorboard").iterdir():
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack_from("<Q", data)
            found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return sorted(found, key=lambda event: event.wall_time)


def scalars(workdir):
    return {
        (value.tag, event.step): value.simple_value
        for event in events(workdir)
        for value in event.summary.value
    }


def test_a_row_an_epoch_in_order(workdir):
    write(workdir, 0, [row(1), row(2), row(3)])
    assert lines(workdir) == [row(1), row(2), row(3)]
    assert metrics_writer.read_rows(workdir) == [row(1), row(2), row(3)]


def test_a_row_is_there_as_soon_as_it_is_written(workdir):
    with MetricsWriter(workdir, 0) as writer:
        writer.append(row(1))
        assert lines(workdir) == [row(1)]
        deadline = time.monotonic() + 5  # TensorBoard's may take a moment, but not minutes
        while ("train_loss", 10) not in scalars(workdir) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ("train_loss", 10) in scalars(workdir)


def test_no_file_is_no_row(workdir):
    assert metrics_writer.read_rows(workdir) == []


def test_resume_cuts_the_rows_that_will_be_redone(workdir):
    write(workdir, 0, [row(1), row(2), row(3)])
    with MetricsWriter(workdir, 20) as writer:
        assert lines(workdir) == [row(1), row(2)]  # at once: a kill now leaves no row of epoch 3
        writer.append(row(3, loss=0.25))
    assert lines(workdir) == [row(1), row(2), row(3, loss=0.25)]


def test_resume_within_an_epoch_keeps_those_before(workdir):
    write(workdir, 0, [row(1), row(2)])
    write(workdir, 15, [row(2, loss=0.25)])
    assert lines(workdir) == [row(1), row(2, loss=0.25)]


def test_half_a_line_at_the_end_is_left_out(workdir, caplog):
    write(workdir, 0, [row(1), row(2)])
    path = workdir / "metrics.jsonl"
    path.write_text(path.read_text() + json.dumps(row(3))[:20])
    with caplog.at_level(logging.WARNING):
        assert metrics_writer.read_rows(workdir) == [row(1), row(2)]
    assert "metrics.jsonl" in caplog.text
    write(workdir, 20, [row(3)])
    assert lines(workdir) == [row(1), row(2), row(3)]


def test_a_row_that_cannot_be_written_leaves_the_file_whole(workdir, monkeypatch):
    """Stops the world before the rename: the new content is beside the old one, not in it."""
    write(workdir, 0, [row(1)])
    beside = []

    def no_rename(self, target):
        beside.append((self.parent, self.read_text()))
        assert target == workdir / "metrics.jsonl"
        raise OSError("disk full")

    with MetricsWriter(workdir, 10) as writer:
        monkeypatch.setattr(type(workdir), "replace", no_rename)
        with pytest.raises(UserError, match="cannot write .*metrics.jsonl .disk full.: make room"):
            writer.append(row(2))
        assert lines(workdir) == [row(1)]
    ((folder, text),) = beside
    assert folder == workdir  # a rename between file systems would copy
    assert [json.loads(line) for line in text.splitlines()] == [row(1), row(2)]


def test_a_number_that_is_no_json_is_refused(workdir):
    with MetricsWriter(workdir, 0) as writer, pytest.raises(ValueError, match="JSON"):
        writer.append(row(1, loss=float("nan")))
    assert not (workdir / "metrics.jsonl").exists()


def test_no_temporary_file_stays(workdir):
    write(workdir, 0, [row(1), row(2)])
    assert sorted(path.name for path in workdir.iterdir()) == ["metrics.jsonl", "tensorboard"]


def test_tensorboard_has_the_scalars_of_every_row(workdir):
    write(workdir, 0, [row(1, loss=0.5), row(2, loss=0.25)])
    expected = {(key, step): np.float32(v) for key, v in FIGURES.items() for step in (10, 20)}
    expected |= {("train_loss", 10): 0.5, ("train_loss", 20): 0.25}
    assert scalars(workdir) == pytest.approx(expected)


def test_tensorboard_is_told_which_steps_are_redone(workdir):
    write(workdir, 0, [row(1), row(2)])
    write(workdir, 10, [row(2, loss=0.125)])
    starts = [e.step for e in events(workdir) if e.session_log.status == event_pb2.SessionLog.START]
    assert starts[-1] == 11  # a reader drops what an earlier file has from here on
    found = scalars(workdir)
    assert found["train_loss", 10] == 0.5  # of the first file, though both are of one second
    assert found["train_loss", 20] == 0.125


# ---------------------------------------------------------------------------- progress
def test_progress_is_plain_lines_where_nobody_watches(capsys):
    progress = Progress(epochs=3, steps_per_epoch=10, step=0, interval=0.0)
    progress.update(10, 0.5, 0.75, 1234.0)
    progress.update(15, 0.25, 0.875, 1234.0)
    progress.close()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1/3, step 10/30: loss 0.5000, accuracy 0.7500, 1,234 images/s")
    assert second.startswith("epoch 2/3, step 15/30: loss 0.2500, accuracy 0.8750")


def test_progress_says_nothing_before_its_interval(capsys):
    progress = Progress(epochs=3, steps_per_epoch=10, step=0, interval=60.0)
    progress.update(10, 0.5, 0.75, 1234.0)
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_time_left_is_at_the_pace_since_the_start(monkeypatch):
    now = 100.0
    monkeypatch.setattr(metrics_writer.time, "monotonic", lambda: now)
    progress = Progress(epochs=10, steps_per_epoch=100, step=400)
    assert progress.eta() == "?"  # no step of this process yet, whatever an earlier one did
    now += 30.0
    progress.update(500, 0.5, 0.5, 1.0)
    assert progress.eta() == "02:30"  # 500 steps at 100 in 30 s
    progress.close()


def test_progress_is_one_line_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(epochs=3, steps_per_epoch=10, step=0)
    progress.update(15, 0.25, 0.875, 1234.0)
    progress.close()
    text = terminal.getvalue()
    assert "epoch 2/3" in text and "15/30" in text and "loss 0.2500" in text
    assert text.count("\n") == 1  # at its end
