"""A train step is a pure function of config, state and step, on any number of devices."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from ml_collections import ConfigDict

from cifar_jax import metrics
from cifar_jax.models.network import Network
from cifar_jax.optim import chain, rules
from cifar_jax.training import lanes, state

EIGHT_DEVICES = pytest.mark.skipif(
    jax.device_count() < 8, reason="needs 8 devices: conftest.py asks XLA for them"
)

# Options that draw random numbers, to reveal draws that do not depend only on seed and step.
RANDOM = {"augment.flip": True, "model.dense_dropout": 0.2}
ALL_RANDOM = RANDOM | {"augment.crop_padding": 1, "augment.cutout": 2, "augment.mixup": 0.4}
# SGD, since Adam would scale rounding errors in small gradients up to the learning rate.
SGD = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.05}
# Leaves the parameters unchanged, to test the other parts of a step.
STILL = {"optimizer.name": "sgd", "optimizer.learning_rate": 1e-30}
# Shared by tests, since each further config takes seconds to compile.
PLAIN = {"optimizer.learning_rate": 0.02}
NO_MOMENTUM = {**SGD, "optimizer.momentum": 0.0, "model.dense_l2": 0.1}
DROPOUT = {"model.dense_dropout": 0.5, **STILL}
# The same batch at every step.
ONE_BATCH = np.tile(np.arange(tiny.BATCH_SIZE, dtype=np.int32), (tiny.STEPS_PER_EPOCH, 1))


class Run:
    """An experiment, its train step and its latest state."""

    def __init__(
        self, overrides: dict[str, Any], devices: int = 1, blocks: tuple[ConfigDict, ...] = ()
    ):
        config = tiny.config(overrides)
        config.model.blocks = blocks
        self.experiment = exp = tiny.build(config, devices)
        assert exp.steps_per_epoch == tiny.STEPS_PER_EPOCH
        lane = lanes.make_lanes([exp])
        self.train_steps, self.arrays = lane.dispatch(0), lane.arrays
        self.state = exp.initial_state()

    def step(self, n: int = 1, order: jax.Array | np.ndarray | None = None):
        """Trains `n` steps in one dispatch; returns the sums of the epoch after them."""
        if order is None:
            order = self.experiment.epoch_order(int(self.state.step) // tiny.STEPS_PER_EPOCH)
        self.state, sums = self.train_steps(self.state, self.arrays, order, n)
        return jax.device_get(sums)

    def restart(self):
        """Continues like a new process: with a new step function and a state from the host."""
        exp = self.experiment
        self.train_steps = lanes.make_lanes([exp]).dispatch(0)
        self.state = exp.put(jax.device_get(self.state))

    def batch(self, position: int):
        """Images in [0, 1] and labels of a batch of the first epoch, on the host."""
        images, labels = self.experiment.train
        indices = np.asarray(self.experiment.epoch_order(0))[position]
        return images[indices].astype(np.float32) / 255, labels[indices]

    def logits(self, pixels: np.ndarray):
        variables = self.state.variables()
        return np.asarray(self.experiment.model.apply(variables, jnp.asarray(pixels), train=False))


def assert_same(
    a: dict[str, dict[str, jax.Array]] | state.TrainState, b: dict[str, Any] | state.TrainState
):
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


def assert_close(
    a: dict[str, dict[str, jax.Array]] | state.EpochSums | state.TrainState,
    b: dict[str, Any] | state.EpochSums | state.TrainState,
    rtol: float,
    atol: float = 0.0,
):
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol, err_msg=name)


# ---------------------------------------------------------------------------- pure
@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit():
    everything = ALL_RANDOM | {"augment.alternate_flips": True, "optimizer.lookahead_every": 3}
    straight, resumed = Run(everything), Run(everything)
    for i in range(5):
        straight.step()
        resumed.step()
        if i in (1, 3):  # within an epoch, and one step into the next
            resumed.restart()
    assert int(straight.state.step) == 5
    assert_same(straight.state, resumed.state)


def test_alternating_flips_change_with_the_epoch():
    """With fixed parameters, the losses of two epochs are those of the two views of each image."""
    shown = {"augment.flip": True, "augment.alternate_flips": True, **STILL}
    run = Run(shown)
    losses = []
    for _ in range(2 * tiny.STEPS_PER_EPOCH):
        run.step(order=run.experiment.put(ONE_BATCH))
        losses.append(float(run.state.sums.loss / run.state.sums.steps))
    pixels, labels = run.experiment.train
    pixels, labels = pixels[ONE_BATCH[0]].astype(np.float32) / 255, labels[ONE_BATCH[0]]
    both = [
        metrics.cross_entropy(run.logits(view), labels) for view in (pixels, pixels[:, :, ::-1])
    ]
    assert losses[0] == pytest.approx(losses[tiny.STEPS_PER_EPOCH - 1])  # the same within an epoch
    assert losses[0] != pytest.approx(losses[-1], abs=1e-4)
    assert losses[0] + losses[-1] == pytest.approx(sum(both), rel=1e-5)


def test_the_seed_changes_the_draws():
    losses, start = [], None
    for seed in (0, 1):
        run = Run(DROPOUT | {"seed": seed})
        # Everything else that depends on the seed stays the same.
        start = start or jax.device_get(run.state)
        run.state = run.experiment.put(start)
        run.arrays = run.experiment.put(tiny.images_and_labels(tiny.BATCH_SIZE))
        losses.append(float(run.step(order=ONE_BATCH).loss))
    assert losses[0] != losses[1]


@pytest.mark.parametrize("overrides", [STILL | {"augment.flip": True}, DROPOUT])
def test_every_step_has_its_own_random_draws(overrides: dict[str, Any]):
    run = Run(overrides)
    # The fourth is at the first position of the next epoch: draws depend on the step.
    losses = [float(run.step(order=ONE_BATCH).loss) for _ in range(4)]
    of_steps = [losses[0], losses[1] - losses[0], losses[2] - losses[1], losses[3]]
    rounded = {round(loss, 5) for loss in of_steps}
    assert len(rounded) == 4


@pytest.mark.slow
def test_several_steps_in_one_dispatch_equal_single_steps():
    single, scanned = Run(RANDOM | SGD), Run(RANDOM | SGD)
    for _ in range(4):
        order = single.experiment.epoch_order(0)
        single_sums = single.step(order=order)
    scanned_sums = scanned.step(4, order=scanned.experiment.epoch_order(0))
    assert int(scanned.state.step) == 4
    assert_close(single.state, scanned.state, rtol=1e-6, atol=1e-7)
    assert_close(single_sums, scanned_sums, rtol=1e-6)  # pyright: ignore[reportPossiblyUnboundVariable]
    start = scanned.experiment.initial_state()
    moved = jax.tree.map(lambda a, b: jnp.any(a != b), start.params, scanned.state.params)
    assert all(jax.tree.leaves(moved))


@pytest.mark.slow
@EIGHT_DEVICES
@pytest.mark.parametrize(("batch_size", "devices"), [(16, 8), (17, 8), (18, 3), (15, 4)])
def test_several_devices_train_like_one(batch_size: int, devices: int):
    """This includes batch norm, which is over the whole batch: two images per device would differ.

    It also holds if the batch does not divide evenly among the devices.
    """
    overrides = RANDOM | SGD | {"batch_size": batch_size}
    one = Run(overrides, devices=1, blocks=(tiny.BATCH_NORM_BLOCK,))
    eight = Run(overrides, devices=devices, blocks=(tiny.BATCH_NORM_BLOCK,))
    assert len(eight.state.step.sharding.device_set) == devices
    before = jax.device_get(one.state.batch_stats)
    for _ in range(4):
        one_sums, eight_sums = one.step(), eight.step()
    assert_close(one.state, eight.state, rtol=1e-5, atol=1e-6)
    assert_close(one_sums, eight_sums, rtol=1e-5)  # pyright: ignore[reportPossiblyUnboundVariable]
    changed = jax.tree.map(
        lambda a, b: np.any(a != b), before, jax.device_get(one.state.batch_stats)
    )
    assert all(jax.tree.leaves(changed))


def test_the_state_is_donated_and_the_sums_remain():
    run = Run(PLAIN)
    order = run.experiment.epoch_order(0)
    first, sums = run.train_steps(run.state, run.arrays, order, 1)
    run.train_steps(first, run.arrays, order, 1)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first))
    assert int(sums.steps) == 1  # the loop reads them during the next dispatch


# ---------------------------------------------------------------------------- sums
def test_sums_add_up_and_restart_with_the_epoch():
    run = Run(STILL | {"model.dense_l2": 0.5})
    penalty = float(run.experiment.table.penalty(run.state.params))
    assert penalty > 0.1
    loss = correct = 0.0
    for position in range(tiny.STEPS_PER_EPOCH):
        pixels, labels = run.batch(position)
        logits = run.logits(pixels)
        loss += metrics.cross_entropy(logits, labels)
        correct += np.sum(logits.argmax(1) == labels)
        sums = run.step()
        assert sums.steps == position + 1
        assert sums.loss == pytest.approx(loss, rel=1e-5)
        assert sums.objective == pytest.approx(loss + (position + 1) * penalty, rel=1e-5)
        assert sums.correct == correct
    pixels, labels = run.batch(0)
    sums = run.step(order=run.experiment.epoch_order(0))
    assert sums.steps == 1
    assert sums.loss == pytest.approx(metrics.cross_entropy(run.logits(pixels), labels), rel=1e-5)
    assert sums.correct == np.sum(run.logits(pixels).argmax(1) == labels)
    assert sums.nonfinite_step == -1


def test_the_loss_includes_label_smoothing():
    run = Run(STILL | {"label_smoothing": 0.2})
    pixels, labels = run.batch(0)
    logits = run.logits(pixels).astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = 0.8 * np.eye(4)[labels] + 0.2 / 4
    expected = -(targets * log_probabilities).sum(1).mean()
    assert run.step().loss == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------------------- learning
def test_the_loss_falls_and_the_network_learns():
    run = Run(PLAIN)
    epochs = []
    for _ in range(12):
        for _ in range(tiny.STEPS_PER_EPOCH):
            sums = run.step()
        epochs.append(sums.loss / sums.steps)  # pyright: ignore[reportPossiblyUnboundVariable]
    assert epochs[-1] < 0.3 * epochs[0]
    images, labels = run.experiment.test
    logits = run.logits(images.astype(np.float32) / 255)
    assert metrics.accuracy(logits, labels) >= 0.9


def test_the_step_is_the_gradient_of_loss_and_l2():
    run = Run(NO_MOMENTUM)
    pixels, labels = run.batch(0)
    model, table = run.experiment.model, run.experiment.table

    def objective(params: dict[str, dict[str, jax.Array]]):
        logits = model.apply({"params": params}, jnp.asarray(pixels), train=False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean() + table.penalty(params)

    params = jax.device_get(run.state.params)
    expected = jax.tree.map(lambda w, g: w - 0.05 * g, params, jax.jit(jax.grad(objective))(params))
    run.step()
    assert_close(run.state.params, expected, rtol=1e-5, atol=1e-6)


def test_the_plateau_scales_the_update():
    run = Run(NO_MOMENTUM)
    before = jax.device_get(run.state)
    run.step()
    whole = jax.device_get(run.state.params)
    plateau = before.callbacks.plateau._replace(scale=np.float32(0.25))
    run.state = run.experiment.put(
        before.replace(callbacks=before.callbacks.replace(plateau=plateau))
    )
    run.step()
    expected = jax.tree.map(lambda w, new: w + 0.25 * (new - w), before.params, whole)
    assert_close(run.state.params, expected, rtol=1e-5, atol=1e-7)


def test_the_moving_average_follows_its_formula():
    # At steps 0 to 2 the ramp (1 + step) / (10 + step) is 0.1, 0.182 and 0.25.
    run = Run({**SGD, "optimizer.ema_decay": 0.2})
    average = jax.device_get(run.state.params)
    assert_same(run.state.ema_params, average)
    for decay in (1 / 10, 2 / 11, 0.2):
        run.step()
        params = jax.device_get(run.state.params)
        average = jax.tree.map(
            lambda a, w, decay=decay: decay * a + (1 - decay) * w, average, params
        )
        assert_close(run.state.ema_params, average, rtol=1e-5, atol=1e-6)
    assert_same(run.state.variables()["params"], run.state.ema_params)


def test_without_averaging_the_parameters_are_evaluated():
    run = Run(PLAIN)
    assert run.state.ema_params is None
    assert_same(run.state.variables()["params"], run.state.params)


# ---------------------------------------------------------------------------- not finite
def test_the_first_step_with_a_loss_that_is_not_finite_is_recorded():
    run = Run({**SGD, "optimizer.learning_rate": 1e30})
    recorded = [int(run.step().nonfinite_step) for _ in range(tiny.STEPS_PER_EPOCH + 2)]
    # The loss of the first step is finite; its update makes the second step fail.
    assert recorded == [-1, 2, 2, 2, 2]


class Kink(Network):
    """Logits that are finite but have an infinite derivative."""

    num_classes: int = 4

    @nn.compact
    def __call__(self, images: jax.Array, train: bool):
        weight = self.param("weight", nn.initializers.zeros, (self.num_classes,))
        return jnp.zeros((len(images), 1)) + jnp.sqrt(weight)


def test_a_gradient_that_is_not_finite_is_recorded_even_if_the_loss_is():
    exp, options = tiny.build(tiny.config(SGD)), tiny.typed(tiny.config(SGD)).optimizer
    table = rules.table({"weight": jnp.zeros(4)}, (), options)
    optimizer = chain.make_optimizer(options, exp.schedule, table)
    exp = dataclasses.replace(exp, model=Kink(), table=table, chain=optimizer)
    lane = lanes.make_lanes([exp])
    _, sums = lane.dispatch(0)(exp.initial_state(), lane.arrays, lane.order(0), 1)
    assert np.isfinite(float(sums.loss))
    assert int(sums.nonfinite_step) == 1
