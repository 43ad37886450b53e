"""A complete run: what it writes, when it stops, what it refuses."""

import dataclasses
import itertools
import json
import pathlib
import shutil
from typing import Any

import command_line
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from etils import epath
from ml_collections import ConfigDict

from cifar_jax import metrics
from cifar_jax.data import sources
from cifar_jax.errors import UserError
from cifar_jax.evaluation import trained
from cifar_jax.runtime.checkpoint import Checkpoints
from cifar_jax.runtime.interrupt import Interrupted
from cifar_jax.runtime.metrics_writer import MetricsWriter
from cifar_jax.training import experiment, member
from cifar_jax.training import test as evaluate
from configs import model1

ROW_KEYS = {
    "epoch", "step", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy",
    "train_objective", "validation_objective", "learning_rate", "images_per_second", "seconds",
}  # fmt: skip
RESULT_KEYS = {
    "parameters", "epochs", "best_epoch", "stopped_early", "train_seconds", "validation_accuracy",
    "test_accuracy", "test_loss", "test_objective", "test_examples", "confusion_matrix",
    "classification_report", "expected_calibration_error", "train_accuracy_clean",
    "train_examples_clean", "temperature", "scaled_calibration_error",
}  # fmt: skip

# The results of a run are compared with what is computed from it, digit for digit.
pytestmark = pytest.mark.usefixtures("two_devices")


@pytest.fixture
def config():
    config = command_line.tiny_config()
    config.data.standardize = False  # so that the network sees pixels in [0, 1]
    return config


@pytest.mark.slow
def test_a_run_keeps_the_workdir_contract(
    config: ConfigDict, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    config.profile = True
    result = tiny.train(config, tmp_path, report=True)
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {
        "config.json", "environment.json", "checkpoints", "metrics.jsonl", "result.json",
        "predictions.npz", "tensorboard", "profile", "report.html",
    }  # fmt: skip
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1

    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [38, 76, 114]
    assert all(set(row) == ROW_KEYS for row in rows)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert all(row["validation_objective"] > row["validation_loss"] for row in rows)

    assert json.loads((tmp_path / "result.json").read_text()) == result
    (start,) = json.loads((tmp_path / "environment.json").read_text())["starts"]
    assert start["seconds"] > result["train_seconds"]
    assert set(result) >= RESULT_KEYS
    accuracies = [row["validation_accuracy"] for row in rows]
    assert result["best_epoch"] == 1 + int(np.argmax(accuracies))
    assert result["validation_accuracy"] == max(accuracies)
    assert result["train_seconds"] == sum(row["seconds"] for row in rows)
    confusion = np.array(result["confusion_matrix"])
    assert confusion.sum() == result["test_examples"] == 360
    assert np.trace(confusion) / 360 == result["test_accuracy"] > 0.5
    assert set(result["classification_report"]) == {*"0123456789", "macro avg", "weighted avg"}
    assert set(result["class_counts"]) == {"train", "validation", "test"}
    assert sum(result["class_counts"]["train"].values()) == 1221

    with np.load(tmp_path / "predictions.npz") as file:
        logits, labels = file["logits"], file["labels"]
    assert logits.shape == (360, 10) and logits.dtype == np.float32
    assert metrics.accuracy(logits, labels) == result["test_accuracy"]
    assert metrics.cross_entropy(logits, labels) == pytest.approx(result["test_loss"])
    assert result["test_objective"] > result["test_loss"]

    # Training images are scored like test images: no flip, no dropout, running statistics.
    images, labels = experiment.build(tiny.typed(config)).train
    correct = trained.load(tmp_path).logits(images).argmax(1) == labels
    assert result["train_examples_clean"] == len(labels) == 1221
    assert result["train_accuracy_clean"] == np.mean(correct)
    monkeypatch.setattr(evaluate, "TRAINING_IMAGES", 100)
    again = evaluate.run(epath.Path(tmp_path))
    assert again["train_examples_clean"] == 100
    assert again["train_accuracy_clean"] == np.mean(correct[:100])
    assert f"{again['train_accuracy_clean']:.4f} on 100 training" in evaluate.describe(again)

    environment = json.loads((tmp_path / "environment.json").read_text())
    assert {"python", "jax", "flax", "optax", "orbax-checkpoint", "backend", "device_kind",
            "device_count", "git_commit", "git_dirty", "starts"} <= set(environment)  # fmt: skip


@pytest.mark.slow
def test_early_stopping_ends_the_run(config: ConfigDict, tmp_path: pathlib.Path):
    config.epochs = 8
    config.optimizer.learning_rate = 1e-9  # no epoch improves by min_delta
    config.early_stopping.patience = 2
    config.early_stopping.min_delta = 0.5
    result = tiny.train(config, tmp_path)
    assert result["epochs"] == 3  # the first always counts as an improvement, then two without one
    assert result["stopped_early"]


@pytest.mark.slow
def test_the_plateau_lowers_the_learning_rate(config: ConfigDict, tmp_path: pathlib.Path):
    config.optimizer.learning_rate = 1e-9
    config.plateau.min_delta = 0.5
    tiny.train(config, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [row["learning_rate"] for row in rows]
    assert rates == pytest.approx([1e-9, 1e-9, 0.5e-9])


@pytest.mark.slow
def test_a_signal_stops_the_run_after_the_current_step(config: ConfigDict, tmp_path: pathlib.Path):
    config.checkpoint.every_steps = 0
    step = 42  # in the second epoch of 38 steps
    with tiny.stop_at(step), pytest.raises(Interrupted, match=f"saved step {step} in"):
        tiny.train(config, tmp_path)
    assert (tmp_path / "checkpoints" / str(step)).is_dir()


@pytest.mark.slow
def test_a_nan_stops_the_run_and_the_message_names_step_and_checkpoint(
    config: ConfigDict, tmp_path: pathlib.Path
):
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 1e-3
    config.schedule.name = "piecewise"  # makes the run diverge in the second epoch
    config.schedule.boundaries = (0.5,)
    config.schedule.factor = 1e30
    with pytest.raises(UserError, match=r"not finite at step (\d+); .* step 50 .*learning_rate"):
        tiny.train(config, tmp_path)
    # The rate explodes after step 57, and the loss right after it.
    assert not (tmp_path / "result.json").exists()
    like = experiment.build(tiny.typed(config)).abstract_state()
    with Checkpoints(epath.Path(tmp_path) / "checkpoints") as checkpoints:
        restored = checkpoints.restore_latest(like)
    assert restored is not None
    assert np.isfinite(restored.state.params["head"]["kernel"]).all()


@pytest.mark.slow
def test_a_workdir_with_another_config_is_refused_and_the_keys_are_named(
    config: ConfigDict, tmp_path: pathlib.Path
):
    config.epochs = 1
    tiny.train(config, tmp_path)
    config.optimizer.b1 = 0.8
    config.model.blocks[0].filters = 5
    with pytest.raises(UserError, match="optimizer.b1: 0.9 -> 0.8") as caught:
        tiny.train(config, tmp_path)
    assert "model.blocks" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_an_unfinished_run_is_not_evaluated(config: ConfigDict, tmp_path: pathlib.Path):
    with pytest.raises(UserError, match="no run in"):
        evaluate.run(epath.Path(tmp_path))
    tiny.train(config, tmp_path)
    (tmp_path / "result.json").unlink()
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"epochs": 3', '"epochs": 4'))
    with pytest.raises(UserError, match="has not finished"):
        evaluate.run(epath.Path(tmp_path))


@pytest.mark.slow
def test_the_best_epoch_with_a_readable_checkpoint_is_tested_and_named(
    config: ConfigDict, tmp_path: pathlib.Path
):
    """If the checkpoint of the best epoch is gone, another epoch is used and both are named."""
    config.optimizer.learning_rate = 1e-12  # all accuracies tie, so the first epoch is the best
    config.optimizer.ema_decay = 0.0
    workdir = epath.Path(tmp_path)
    best = tiny.train(config, workdir)["best_epoch"]
    assert best < 3
    (tmp_path / "checkpoints" / str(38 * best)).rename(tmp_path / "away")
    result = evaluate.run(workdir)
    assert (result["best_epoch"], result["lost_epoch"]) == (3, best)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert result["validation_accuracy"] == rows[2]["validation_accuracy"]
    assert f"epoch {best} was better, but its checkpoint cannot be read" in evaluate.describe(
        result
    )
    for path in (tmp_path / "checkpoints").iterdir():
        path.rename(tmp_path / f"gone-{path.name}")
    with pytest.raises(UserError, match="every checkpoint .* is missing or damaged"):
        evaluate.run(workdir)


def test_a_batch_larger_than_the_training_set_is_refused(config: ConfigDict):
    config.batch_size = 33  # 3 * 11: eight devices do not divide it
    assert experiment.build(tiny.typed(config)).steps_per_epoch == 1221 // 33
    config.batch_size = 2400
    with pytest.raises(UserError, match="exceeds the 1221 training images.* at most 1221"):
        experiment.build(tiny.typed(config))


@pytest.mark.slow
def test_model_1_learns_real_cifar10(
    real_cifar10_dir: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    """Trains on a small part of the real data for a minute; the accuracy is far above chance."""
    whole = sources.load(tiny.typed(model1.get_config()).data)
    part = dataclasses.replace(
        whole,
        train_images=whole.train_images[:6000],
        train_labels=whole.train_labels[:6000],
        test_images=whole.test_images[:1000],
        test_labels=whole.test_labels[:1000],
    )
    monkeypatch.setattr(sources, "load", lambda _: part)
    config = model1.get_config()
    config.epochs = 3
    config.eval.batch_size = 504
    result = tiny.train(config, tmp_path)
    assert result["test_examples"] == 1000
    assert result["test_accuracy"] > 0.33


@pytest.mark.slow
@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_run_on_all_images_tests_its_last_epoch_also_with_test_time_augmentation(
    config: ConfigDict, tmp_path: pathlib.Path, share: float
):
    config.data.validation_fraction = 0.0
    config.early_stopping.enabled = config.plateau.enabled = False
    config.epochs = 2
    config.eval.tta, config.eval.tta_share = "flip", share
    workdir = epath.Path(tmp_path)
    result = tiny.train(config, workdir, report=True)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [set(row) == ROW_KEYS for row in rows] == [True, True]
    assert {row[f"validation_{name}"] for row in rows for name in ("loss", "accuracy")} == {None}
    assert sum(result["class_counts"]["train"].values()) == 1437
    assert result["best_epoch"] == 2 and result["validation_accuracy"] is None
    assert "validation_accuracy_tta" not in result
    # Compute it here: the mean of the logits of both views, where the network is least sure.
    exp = experiment.build(tiny.typed(config))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        restored = checkpoints.restore_latest(exp.abstract_state())
    assert restored is not None and restored.step == rows[-1]["step"]
    pixels = exp.test[0].astype(np.float32) / 255
    both = [
        np.asarray(exp.model.apply(restored.state.variables(), jnp.asarray(view), train=False))
        for view in (pixels, pixels[:, :, ::-1])
    ]
    confidence = np.asarray(jax.nn.softmax(both[0])).max(1)
    unsure = confidence <= np.sort(confidence)[round(360 * share) - 1]
    mixed = np.where(unsure[:, None], both[0] + both[1], both[0])
    accuracy = metrics.accuracy(mixed, exp.test[1])
    assert result["test_accuracy_tta"] == pytest.approx(accuracy, abs=1.5 / 360)
    assert result["test_accuracy_tta"] != result["test_accuracy"]  # flips mislead on digits
    text = (tmp_path / "report.html").read_text()
    assert "trains on all images" in text and "with flip test-time augmentation" in text
    assert ("with the least confident answers" in text) == (share < 1)
    assert evaluate.run(workdir) == result


@pytest.mark.slow
@pytest.mark.parametrize(("how", "when"), [("renamed", "save"), ("deleted", "row")])
def test_a_workdir_that_disappears_is_reported_and_intact(
    config: ConfigDict, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, how: str, when: str
):
    """It disappears before the row of an epoch is written, or between row and checkpoint."""
    config.epochs = 2
    workdir, place = epath.Path(tmp_path) / "run", epath.Path(tmp_path) / "moved"
    module, name = {"row": (member, "cross_entropy"), "save": (MetricsWriter, "append")}[when]
    called, calls = getattr(module, name), itertools.count()

    def go(*args: Any):
        result = called(*args)
        if next(calls) == 0:
            if how == "renamed":
                workdir.rename(place)
            else:  # a save in progress may create files during the deletion
                shutil.rmtree(workdir, ignore_errors=True)
        return result

    monkeypatch.setattr(module, name, go)
    with pytest.raises(UserError, match=r"run was renamed or deleted .* --workdir=PLACE"):
        tiny.train(config, workdir)
    assert not (workdir / "metrics.jsonl").exists()
    monkeypatch.undo()
    if how == "renamed":
        assert tiny.train(config, place)["epochs"] == 2
