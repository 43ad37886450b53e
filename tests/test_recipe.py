"""The parts of the speedrun recipe: whitening, lookahead, Muon and the initial head."""

from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax import lax
from ml_collections import ConfigDict

from cifar_jax.models import initializers
from cifar_jax.optim import lookahead, rules
from cifar_jax.training import lanes
from configs import base

LAYOUT = ("NHWC", "HWIO", "NHWC")


# ---------------------------------------------------------------------------- whitening
@pytest.mark.parametrize("standardized", [False, True])
def test_whitened_patches_are_uncorrelated_and_have_variance_1(standardized: bool):
    images, _ = tiny.images_and_labels(200)
    mean, std = (np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.3, 0.1]))  # pyright: ignore[reportArgumentType]
    statistics = (mean, std) if standardized else (None, None)
    kernel = initializers.whitening(images, *statistics, epsilon=1e-9)  # pyright: ignore[reportArgumentType]
    assert kernel.shape == (2, 2, 3, initializers.stem_filters(3)) == (2, 2, 3, 24)
    pixels = jnp.asarray(images / np.float32(255))
    pixels = (pixels - mean) / std if standardized else pixels
    outputs = lax.conv_general_dilated(pixels, kernel, (1, 1), "VALID", dimension_numbers=LAYOUT)  # pyright: ignore[reportArgumentType]
    outputs = np.asarray(outputs, np.float64).reshape(-1, 24)
    second_moments = outputs.T @ outputs / len(outputs)
    expected = np.block([[np.eye(12), -np.eye(12)], [-np.eye(12), np.eye(12)]])
    np.testing.assert_allclose(second_moments, expected, atol=2e-3)


def test_epsilon_limits_the_gain_of_directions_with_little_variance():
    images = np.full((4, 8, 8, 3), 100, np.uint8)  # one direction varies, eleven do not
    kernel = initializers.whitening(images, None, None, epsilon=0.25)
    norms = np.linalg.norm(kernel.reshape(12, 24), axis=0)
    value = 12 * (100 / 255) ** 2
    np.testing.assert_allclose(norms[0], 1 / np.sqrt(value + 0.25), rtol=1e-5)
    np.testing.assert_allclose(norms[1:12], 2, rtol=1e-5)


@pytest.mark.parametrize("value", [0, 59, 100, 255])
def test_the_kernel_is_finite_despite_directions_without_variance(value: int):
    images = np.full((64, 8, 8, 3), value, np.uint8)
    for epsilon in (1e-8, 1e-12, 1e-18):  # rounding gives eigenvalues of -1e-15
        assert np.isfinite(initializers.whitening(images, None, None, epsilon)).all()


WHITENING = {
    "model.whitening": True,
    "init.whitening_images": 7,
    "optimizer.rules": (base.rule("stem/bias", frozen=True),),
}
FAST = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.1, "optimizer.l2": 0.01}


def after(overrides: dict[str, Any], n: int, blocks: tuple[ConfigDict, ...] = ()):
    """The experiment and its state after `n` steps."""
    config = tiny.config(overrides)
    config.model.blocks = blocks
    exp = tiny.build(config)
    lane, state = lanes.make_lanes([exp]), exp.initial_state()
    for i in range(n):
        epoch = i // exp.steps_per_epoch
        state, _ = lane.dispatch(epoch)(state, lane.arrays, lane.order(epoch), 1)
    return exp, jax.device_get(state)


def test_a_whitening_stem_is_frozen_while_the_rest_trains():
    exp, state = after(WHITENING | FAST, 2)
    images = exp.train[0][:: len(exp.train[0]) // 7][:7]
    np.testing.assert_array_equal(
        state.params["stem"]["kernel"], initializers.whitening(images, None, None, 5e-4)
    )
    assert not state.params["stem"]["bias"].any()
    start = jax.device_get(exp.initial_state())
    assert (state.params["head"]["kernel"] != start.params["head"]["kernel"]).all()


def test_the_bias_of_the_stem_trains_unless_frozen():
    _, state = after(WHITENING | FAST | {"optimizer.rules": ()}, 1)
    assert state.params["stem"]["bias"].any()


# ---------------------------------------------------------------------------- stopped parameters
def test_what_has_stopped_takes_no_gradient_and_nothing_else_changes():
    stop = {"optimizer.rules": (base.rule("dense_0/.*", stop=1),)}
    exp, state = after(FAST | stop, 5)  # of 3 steps an epoch
    with mock.patch.object(rules.Table, "stopped", return_value=frozenset()):
        _, other = after(FAST | stop, 5)
    for ours, theirs in zip(*map(jax.tree.leaves, (state.params, other.params)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    lane, products = lanes.make_lanes([exp]), []
    for epoch in range(3):
        traced = lane.dispatch(epoch).trace(state, lane.arrays, lane.order(epoch), 1)  # pyright: ignore[reportFunctionMemberAccess]
        products.append(str(traced.jaxpr).count("dot_general"))
    # Two layers: the gradient of the first one's kernel is not computed.
    assert products == [5, 3, 3]


# ---------------------------------------------------------------------------- lookahead
LOOKAHEAD = {"optimizer.lookahead_every": 5, "optimizer.lookahead_decay": 0.9}


def test_lookahead_updates_with_a_rising_weight_and_ends_with_the_slow_copy():
    slow = fast = np.float64(1.0)
    ours = ({"w": jnp.float32(1.0)}, {"w": jnp.float32(1.0)})
    for step in range(1, 13):
        fast = fast + step  # any update will do
        moved = {"w": ours[1]["w"] + step}
        if step % 5 == 0:
            decay = 0.9**5 * (step / 12) ** 3
            slow = decay * slow + (1 - decay) * fast
            fast = slow
        if step == 12:
            fast = slow
        ours = lookahead.update(5, 0.9, jnp.int32(step), 12, ours[0], moved)
        np.testing.assert_allclose([ours[0]["w"], ours[1]["w"]], [slow, fast], rtol=1e-5)


@pytest.mark.slow
def test_lookahead_covers_parameters_and_batch_statistics():
    overrides = LOOKAHEAD | FAST | {"epochs": 2, "optimizer.lookahead_every": 2}
    exp, state = after(overrides, 5, (tiny.BATCH_NORM_BLOCK,))
    assert set(state.lookahead) == {"params", "batch_stats"}
    for name in ("params", "batch_stats"):
        pairs = zip(
            jax.tree.leaves(state.lookahead[name]), jax.tree.leaves(getattr(state, name)),
            strict=True,
        )  # fmt: skip
        assert any((slow != fast).any() for slow, fast in pairs)
    _, state = after(overrides, 6, (tiny.BATCH_NORM_BLOCK,))  # the last step of two epochs
    for name in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, state.lookahead[name], getattr(state, name))


def test_without_lookahead_there_is_no_slow_copy():
    exp, _ = after({}, 0)
    assert exp.initial_state().lookahead is None


# ---------------------------------------------------------------------------- muon
def test_muon_trains_in_the_train_step():
    overrides = {"optimizer.name": "muon", "optimizer.learning_rate": 0.05, "epochs": 8}
    exp, state = after(overrides, 6, (base.conv_block(4, pool=4),))
    kernel = state.params["conv2d_0"]["kernel"]
    assert np.isfinite(kernel).all() and kernel.any()
    start = jax.device_get(exp.initial_state()).params["conv2d_0"]["kernel"]
    assert (kernel != start).all()
    assert float(state.sums.loss / state.sums.steps) < 1.35  # of four classes: ln 4 = 1.386


def test_the_initial_head_has_the_given_standard_deviation():
    kernel = initializers.uniform(1.0)(jax.random.key(0), (500, 40))
    assert float(kernel.std()) == pytest.approx(1, rel=0.01)
    assert float(abs(kernel).max()) == pytest.approx(3**0.5, rel=0.01)
