"""Properties that hold for all inputs, tried with Hypothesis; the examples are always the same."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn import metrics as sklearn_metrics

from cifar_jax import metrics, models
from cifar_jax.config import convert, migration
from cifar_jax.config.schema import Augment, Schedule
from cifar_jax.data import augment, batches, splits
from cifar_jax.errors import UserError
from cifar_jax.optim import schedules
from configs import base

pytestmark = pytest.mark.slow

# Few examples where each shape must be compiled or a test is slow.
FEW = settings(max_examples=6, derandomize=True, deadline=None, database=None)
SOME = settings(max_examples=40, derandomize=True, deadline=None, database=None)
MANY = settings(max_examples=100, derandomize=True, deadline=None, database=None)

SEEDS = st.integers(0, 2**32 - 1)
SHAPES = st.sampled_from([(1, 4, 4, 1), (3, 5, 5, 3), (4, 8, 8, 3)])


def pixels(shape: tuple[int, ...], seed: int):
    return np.random.default_rng(seed).uniform(0.01, 1, shape).astype(np.float32)


# ---------------------------------------------------------------------------- data
@MANY
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=200),
    fraction=st.floats(0, 0.99),
    seed=SEEDS,
    stratified=st.booleans(),
)
def test_a_split_is_a_partition_or_is_refused(
    labels: np.ndarray, fraction: float, seed: int, stratified: bool
):
    labels = np.array(labels, np.int32)
    try:
        train, validation = splits.split(labels, fraction, seed, stratified)
    except UserError as error:
        assert "config.data.validation_fraction" in str(error)
        return
    np.testing.assert_array_equal(np.union1d(train, validation), np.arange(len(labels)))
    assert len(train) + len(validation) == len(labels)
    assert len(validation) == np.ceil(fraction * len(labels))
    if stratified and fraction:
        for label, count in enumerate(np.bincount(labels)):
            expected = count * len(validation) / len(labels)
            assert abs(np.sum(labels[validation] == label) - expected) <= 1


@FEW
@given(data=st.data(), size=st.integers(1, 60), epoch=st.integers(0, 2**31 - 1), seed=SEEDS)
def test_an_epoch_has_each_image_at_most_once(
    data: st.DataObject, size: int, epoch: int, seed: int
):
    batch_size = data.draw(st.integers(1, size))
    order = np.asarray(batches.epoch_order(jax.random.key(seed), epoch, size, batch_size))
    assert order.shape == (size // batch_size, batch_size)
    assert len(np.unique(order)) == order.size and 0 <= order.min() and order.max() < size


@MANY
@given(size=st.integers(1, 1000), batch_size=st.integers(1, 1000))
def test_padded_batches_have_each_image_once(size: int, batch_size: int):
    plan = batches.padded_batches(size, batch_size)
    np.testing.assert_array_equal(plan.ravel()[:size], np.arange(size))
    assert not plan.ravel()[size:].any() and 0 <= plan.size - size < batch_size


# ---------------------------------------------------------------------------- augmentation
@FEW
@given(
    shape=SHAPES,
    seed=SEEDS,
    padding=st.integers(0, 3),
    fill=st.sampled_from(["zero", "reflect"]),
    cutout=st.integers(0, 4),
    mixup=st.sampled_from([0.0, 0.2, 1.0]),
    flip=st.booleans(),
)
def test_augmented_images_keep_shape_and_range(
    shape: tuple[int, ...],
    seed: int,
    padding: int,
    fill: str,
    cutout: int,
    mixup: float,
    flip: bool,
):
    options = Augment(flip=flip, crop_padding=padding, crop_fill=fill, cutout=cutout, mixup=mixup)
    images, targets = pixels(shape, seed), np.eye(5, dtype=np.float32)[np.arange(shape[0]) % 5]
    key = jax.random.key(seed)
    draw = augment.Draw(jnp.arange(shape[0]), 0, key, (None, None))
    found, mixed = augment.augment(options, key, draw, jnp.asarray(images), jnp.asarray(targets))
    assert found.shape == shape and found.dtype == jnp.float32
    assert 0 <= float(found.min()) and float(found.max()) <= images.max() * (1 + 1e-6)
    np.testing.assert_allclose(mixed.sum(1), 1, rtol=1e-6)
    assert float(mixed.min()) >= 0


@FEW
@given(
    shape=SHAPES, seed=SEEDS, padding=st.integers(1, 3), fill=st.sampled_from(["zero", "reflect"])
)
def test_a_crop_is_a_window_of_the_padded_image(
    shape: tuple[int, ...], seed: int, padding: int, fill: str
):
    images = pixels(shape, seed)
    found = augment.random_crop(jax.random.key(seed), jnp.asarray(images), padding, fill)
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(images, around, "constant" if fill == "zero" else fill)  # pyright: ignore[reportArgumentType, reportCallIssue]
    windows = np.lib.stride_tricks.sliding_window_view(padded, shape[1:3], (1, 2))
    same = windows.transpose(0, 1, 2, 4, 5, 3) == np.asarray(found)[:, None, None]
    assert same.all((3, 4, 5)).any((1, 2)).all()


@FEW
@given(
    index=st.lists(st.integers(0, 10**6), min_size=8, max_size=8),
    seed=SEEDS,
    epoch=st.integers(0, 10**6),
)
def test_alternating_flips_alternate(index: np.ndarray, seed: int, epoch: int):
    key, images = jax.random.key(seed), jnp.asarray(index, jnp.int32)
    this, following, after = (
        augment.alternating_flips(key, images, epoch + later) for later in range(3)
    )
    assert bool((this != following).all()) and bool((this == after).all())


# ---------------------------------------------------------------------------- metrics
@MANY
@given(size=st.integers(1, 50), classes=st.integers(2, 6), seed=SEEDS, scale=st.floats(0, 50))
def test_metrics_agree_with_scikit_learn(size: int, classes: int, seed: int, scale: float):
    rng = np.random.default_rng(seed)
    logits = (scale * rng.standard_normal((size, classes))).astype(np.float32)
    labels = rng.integers(0, classes, size).astype(np.int32)
    probabilities, predicted = softmax(logits.astype(np.float64), axis=1), logits.argmax(1)
    assert metrics.accuracy(logits, labels) == sklearn_metrics.accuracy_score(labels, predicted)
    expected = sklearn_metrics.log_loss(labels, probabilities, labels=range(classes))
    # scikit-learn clips probabilities at 2e-16, but `metrics.cross_entropy` does not.
    if probabilities.min() > 1e-15:
        assert metrics.cross_entropy(logits, labels) == pytest.approx(expected, rel=1e-9)
    figures = metrics.classification_figures(logits, labels, tuple("abcdef"[:classes]))
    confusion = np.array(figures["confusion_matrix"])
    np.testing.assert_array_equal(
        confusion, sklearn_metrics.confusion_matrix(labels, predicted, labels=range(classes))
    )
    assert confusion.sum() == size
    assert 0 <= figures["expected_calibration_error"] <= 1


# ---------------------------------------------------------------------------- configs
PLAIN = convert.plain(base.get_config())
KEYS = sorted([*flatten_dict(PLAIN, sep="."), "no.such.key"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([0, 1, 0.5, "adam", "sgd", "SAME", "cosine"]),
)
BLOCKS = st.dictionaries(st.sampled_from([*base.conv_block(1), "stride"]), SCALARS, max_size=8).map(
    lambda changes: {**base.conv_block(8).to_dict(), **changes}
)
VALUES = st.one_of(SCALARS, st.lists(st.one_of(SCALARS, BLOCKS), max_size=3), BLOCKS)


@SOME
@given(changes=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
def test_a_config_is_valid_or_refused_by_key(changes: Any):
    saved = convert.plain(base.get_config())
    for key, value in changes.items():
        *groups, last = key.split(".")
        inner = saved
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    try:
        config = tiny.typed(convert.to_config_dict(saved))
    except UserError as error:
        assert all(line.startswith("config.") for line in str(error).splitlines())
        return
    saved = json.loads(json.dumps(migration.to_json(config)))
    assert migration.from_json(saved, models) == config


# ---------------------------------------------------------------------------- schedules
@FEW
@given(
    name=st.sampled_from(["constant", "linear", "cosine", "one_cycle", "piecewise"]),
    epochs=st.integers(1, 30),
    per_epoch=st.integers(1, 50),
    warmup=st.floats(0, 1, exclude_max=True),
    first=st.floats(0, 1),
    last=st.floats(0, 1),
    factor=st.floats(0.01, 1),
)
@pytest.mark.parametrize("peak", [1e-3, 2.0])
def test_a_schedule_stays_between_zero_and_its_peak(
    peak: float,
    name: str,
    epochs: int,
    per_epoch: int,
    warmup: float,
    first: float,
    last: float,
    factor: float,
):
    options = Schedule(
        name=name,
        warmup_epochs=warmup * epochs,
        initial_fraction=first,
        boundaries=(0.5, 0.75),
        factor=factor,
        final_fraction=last,
    )
    schedule = schedules.make_schedule(options, peak, epochs, per_epoch)
    rates = np.asarray(jax.vmap(schedule)(jnp.arange(epochs * per_epoch)))
    assert np.isfinite(rates).all()
    assert rates.min() >= 0 and rates.max() <= peak * (1 + 1e-6)
