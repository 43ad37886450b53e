"""Evaluation counts every image once, and its figures are those of the textbook."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from sklearn import metrics as sklearn_metrics

from cifar_jax import metrics
from cifar_jax.training import experiment, forward, steps
from cifar_jax.training import test as evaluate


def random_logits(size: int, classes: int = 10, seed: int = 0, scale: float = 3.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size).astype(np.int32)
    return (scale * rng.standard_normal((size, classes))).astype(np.float32), labels


def logits_of(probabilities: list[list[float]]):
    return np.log(np.array(probabilities)).astype(np.float32)


# ---------------------------------------------------------------------------- predict
@pytest.mark.parametrize("size", [1, 7, 10, 23])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 23, 30])
def test_predict_gives_each_image_its_logits_in_order(size: int, batch_size: int):
    images = np.random.default_rng(0).integers(0, 256, (size, 2, 2, 1), np.uint8)
    shapes = set()

    def eval_step(variables: dict[str, float], images: jax.Array, batch: np.ndarray):
        shapes.add(batch.shape)
        pixels = images[batch].reshape(len(batch), -1).astype(jnp.float32)
        return pixels * variables["scale"]

    found = forward.predict(eval_step, {"scale": 2.0}, jnp.asarray(images), batch_size)
    np.testing.assert_array_equal(found, 2.0 * images.reshape(size, -1))
    assert shapes == {(batch_size,)}  # one shape: one compilation


def test_few_batches_are_in_flight(monkeypatch: pytest.MonkeyPatch):
    """Each one holds memory for its activations."""
    made, waited = [], []
    wait = jax.block_until_ready

    def eval_step(variables: dict[str, float], images: jax.Array, batch: np.ndarray):
        made.append(batch)
        assert len(made) - len(waited) <= 3
        return jnp.zeros((len(batch), 1))

    monkeypatch.setattr(jax, "block_until_ready", lambda x: waited.extend(x) or wait(x))
    forward.predict(eval_step, {}, jnp.zeros((100, 2, 2, 1), jnp.uint8), 5)
    assert len(made) == 20


@pytest.fixture(scope="module")
def network():
    """A network with batch norm and dropout, spread out, with statistics that are not fresh."""
    config = tiny.config({"data.standardize": True, "model.dense_dropout": 0.5})
    config.model.blocks = (tiny.BATCH_NORM_BLOCK,)
    experiment = tiny.build(config, devices=min(8, jax.device_count()))
    variables = experiment.initial_state().variables()
    fill = jax.tree.map(lambda x: x + 0.5, variables["batch_stats"])
    return experiment, {**variables, "batch_stats": fill}


@pytest.mark.parametrize("size", [1, 7, 10, 23])
def test_the_real_step_on_padded_batches_is_the_network_applied(
    network: tuple[experiment.Experiment, dict[str, dict[str, Any]]], size: int
):
    experiment, variables = network
    images, _ = tiny.images_and_labels(23, seed=1)
    eval_step = steps.make_eval_step(experiment.model, experiment.statistics, experiment.mesh)
    found = forward.predict(eval_step, variables, experiment.put(images[:size]), 8)
    mean, std = experiment.statistics
    pixels = jnp.asarray((images[:size].astype(np.float32) / 255 - mean) / std)  # pyright: ignore[reportOperatorIssue]
    # One image at a time: no image may depend on those that share its batch.
    apply = jax.jit(lambda one: experiment.model.apply(variables, one[None], train=False)[0])
    expected = [apply(one) for one in pixels]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------- loss, accuracy
def test_cross_entropy_is_that_of_scikit_learn():
    logits, labels = random_logits(200)
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(1, keepdims=True)
    expected = sklearn_metrics.log_loss(labels, probabilities, labels=range(10))
    assert metrics.cross_entropy(logits, labels) == pytest.approx(expected, rel=1e-12)


def test_cross_entropy_of_large_logits_does_not_overflow():
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]], np.float32)
    assert metrics.cross_entropy(logits, np.array([1, 1])) == pytest.approx(500.0)


def test_accuracy_counts_the_largest_logit():
    logits = np.array([[1, 2, 0], [3, 2, 0], [0, 1, 5], [-3, -1, -2]], np.float32)
    assert metrics.accuracy(logits, np.array([1, 1, 2, 1])) == 0.75


# ---------------------------------------------------------------------------- calibration
def slow_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int):
    """Guo et al. 2017, equations 2 and 3, image by image."""
    total = 0.0
    for i in range(bins):
        members = []
        for row, label in zip(logits.astype(np.float64), labels, strict=True):
            probabilities = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            if i / bins < probabilities.max() <= (i + 1) / bins:
                members.append((probabilities.max(), probabilities.argmax() == label))
        if members:
            confidence, correct = np.mean(members, axis=0)
            total += len(members) / len(labels) * abs(correct - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 5, 15])
@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
def test_calibration_error_is_that_of_the_paper(bins: int, scale: float):
    logits, labels = random_logits(200, scale=scale)
    found = metrics.calibration(logits, labels, bins).expected_error
    assert found == pytest.approx(slow_calibration_error(logits, labels, bins), abs=1e-9)


def test_15_bins_unless_told():
    logits, labels = random_logits(200)
    expected = slow_calibration_error(logits, labels, 15)
    assert metrics.calibration(logits, labels).expected_error == pytest.approx(expected, abs=1e-9)


def test_perfectly_calibrated_is_zero():
    logits = logits_of([[0.75, 0.25]] * 4)
    labels = np.array([0, 0, 0, 1])  # three of four are right, as promised
    assert metrics.calibration(logits, labels).expected_error == pytest.approx(0, abs=1e-7)


def test_overconfident_by_a_quarter():
    logits = logits_of([[0.75, 0.25]] * 4)
    labels = np.array([0, 1, 0, 1])
    assert metrics.calibration(logits, labels).expected_error == pytest.approx(0.25, abs=1e-6)


def test_bins_do_not_make_up_for_each_other():
    logits = logits_of([[0.6, 0.4]] * 2 + [[0.9, 0.1]] * 2)
    labels = np.array([0, 0, 1, 1])  # right where unsure, wrong where sure
    expected = 0.5 * (1 - 0.6) + 0.5 * 0.9
    assert metrics.calibration(logits, labels).expected_error == pytest.approx(expected, abs=1e-6)


def test_certain_and_right_is_zero():
    logits = np.array([[100.0, 0.0], [0.0, 100.0]], np.float32)
    assert metrics.calibration(logits, np.array([0, 1])).expected_error == 0.0


@pytest.mark.parametrize("scale", [0.2, 1.0, 4.0])
def test_the_temperature_undoes_a_scale(scale: float):
    logits, _ = random_logits(20_000)
    calibrated = logits.astype(np.float64)
    probabilities = np.exp(calibrated) / np.exp(calibrated).sum(1, keepdims=True)
    drawn = np.random.default_rng(0).random((len(logits), 1))
    labels = (probabilities.cumsum(1) < drawn).sum(1).clip(max=logits.shape[1] - 1)
    found = metrics.temperature(scale * logits, labels)
    assert found == pytest.approx(scale, rel=0.05)
    loss = metrics.cross_entropy(scale * logits / found, labels)
    assert all(
        loss < metrics.cross_entropy(scale * logits / other, labels)
        for other in (0.9 * found, 1.1 * found)
    )


@pytest.mark.parametrize(("scale", "bound"), [(1.0, 1 / 20), (-1.0, 20)])
def test_the_temperature_stays_within_bounds_where_all_or_no_answers_are_right(
    scale: float, bound: float
):
    logits = scale * np.eye(3, dtype=np.float32)
    assert metrics.temperature(logits, np.arange(3)) == pytest.approx(bound, rel=0.01)


@pytest.mark.parametrize(
    ("share", "expected"), [(0, []), (0.1, [2]), (0.5, [0, 2]), (1, [0, 1, 2, 3])]
)
def test_the_least_confident_images_are_found(share: float, expected: list[int]):
    logits = np.array([[0, 2.0], [9, 5], [30, 30], [-7, 0]], np.float32)  # sure by 2, 4, 0 and 7
    assert metrics.least_confident(logits, share).tolist() == expected


# ---------------------------------------------------------------------------- per class
NAMES = ("cat", "dog", "owl")


def figures():
    """Three true cats, of which one is taken for a dog, and a dog; no owl anywhere."""
    logits = np.array([[2, 1, 0], [2, 0, 1], [0, 2, 1], [1, 2, 0]], np.float32)
    return metrics.classification_figures(logits, np.array([0, 0, 0, 1], np.int32), NAMES)


def test_confusion_matrix_has_the_true_classes_in_its_rows():
    assert figures()["confusion_matrix"] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_report_has_the_figures_of_each_class():
    report = figures()["classification_report"]
    assert list(report) == [*NAMES, "macro avg", "weighted avg"]
    assert report["cat"] == pytest.approx(
        {"precision": 1, "recall": 2 / 3, "f1-score": 0.8, "support": 3}
    )
    assert report["dog"] == pytest.approx(
        {"precision": 0.5, "recall": 1, "f1-score": 2 / 3, "support": 1}
    )
    assert report["owl"] == {"precision": 0, "recall": 0, "f1-score": 0, "support": 0}
    assert report["macro avg"]["recall"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert report["weighted avg"]["recall"] == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    "name", ["accuracy", "macro avg", "weighted avg", "micro avg", "samples avg"]
)
def test_a_class_may_be_called_like_a_row_of_scikit_learn(name: str):
    logits = np.array([[2, 1, 0], [2, 0, 1], [0, 2, 1], [1, 2, 0]], np.float32)
    labels = np.array([0, 0, 0, 1], np.int32)
    found = metrics.classification_figures(logits, labels, (name, "dog", "owl"))
    report, usual = found["classification_report"], figures()["classification_report"]
    assert list(report)[:3] == [name, "dog", "owl"] and report[name] == usual["cat"]
    assert list(report.values()) == list(usual.values())  # the averages are there as well


def test_the_averages_are_those_of_scikit_learn():
    logits, labels = random_logits(100, classes=4)
    report = metrics.classification_figures(logits, labels, tiny.CLASS_NAMES)
    expected = sklearn_metrics.classification_report(
        labels, logits.argmax(1), target_names=tiny.CLASS_NAMES, output_dict=True
    )
    for name, row in report["classification_report"].items():
        assert row == pytest.approx(expected[name])


def test_report_is_that_of_scikit_learn_with_a_class_absent():
    logits, labels = random_logits(100, classes=4)
    labels[labels == 2] = 3
    found = metrics.classification_figures(logits, labels, tiny.CLASS_NAMES)
    predicted = logits.argmax(1)
    expected = sklearn_metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(4), zero_division=0
    )
    for i, name in enumerate(tiny.CLASS_NAMES):
        row = [found["classification_report"][name][key] for key in
               ("precision", "recall", "f1-score", "support")]  # fmt: skip
        np.testing.assert_allclose(row, [column[i] for column in expected])
    assert np.sum(found["confusion_matrix"]) == 100
    assert found["confusion_matrix"][2] == [0, 0, 0, 0]
    for i, j in ((0, 1), (1, 0), (3, 2)):
        expected = np.sum((labels == i) & (predicted == j))
        assert found["confusion_matrix"][i][j] == expected


def test_figures_are_json():
    found = figures()
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_description_tells_the_result_to_a_person():
    result = {
        **figures(),
        "test_accuracy": 0.75,
        "test_loss": 0.51234,
        "test_objective": 0.6,
        "test_examples": 10_000,
        "best_epoch": 7,
        "epochs": 9,
        "stopped_early": True,
        "validation_accuracy": 0.8,
        "parameters": 122_570,
        "train_seconds": 12.3,
    }
    text = evaluate.describe(result)
    for part in ("cat ", "0.6667", "accuracy 0.7500", "loss 0.5123", "10,000 images",
                 "epoch 7 of 9, stopped early", "122,570 parameters"):  # fmt: skip
        assert part in text
    assert "stopped early" not in evaluate.describe({**result, "stopped_early": False})
