"""The pieces of the fast recipe that need more than one room: whitening, rates, lookahead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax import lax

from cifar_jax.models import initializers
from cifar_jax.optim import chain as optim
from cifar_jax.optim import lookahead
from cifar_jax.training import steps
from configs import base

LAYOUT = ("NHWC", "HWIO", "NHWC")


# ---------------------------------------------------------------------------- whitening
@pytest.mark.parametrize("standardized", [False, True])
def test_whitened_patches_are_uncorrelated_with_variance_one(standardized):
    images, _ = tiny.images_and_labels(200)
    mean, std = (np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.3, 0.1]))
    statistics = (mean, std) if standardized else (None, None)
    kernel = initializers.whitening(images, *statistics, epsilon=1e-9)
    assert kernel.shape == (2, 2, 3, initializers.stem_filters(3)) == (2, 2, 3, 24)
    pixels = jnp.asarray(images / np.float32(255))
    pixels = (pixels - mean) / std if standardized else pixels
    outputs = lax.conv_general_dilated(pixels, kernel, (1, 1), "VALID", dimension_numbers=LAYOUT)
    outputs = np.asarray(outputs, np.float64).reshape(-1, 24)
    second_moments = outputs.T @ outputs / len(outputs)
    expected = np.block([[np.eye(12), -np.eye(12)], [-np.eye(12), np.eye(12)]])
    np.testing.assert_allclose(second_moments, expected, atol=2e-3)


def test_epsilon_holds_back_what_hardly_varies():
    images = np.full((4, 8, 8, 3), 100, np.uint8)  # one direction varies, eleven not at all
    kernel = initializers.whitening(images, None, None, epsilon=0.25)
    norms = np.linalg.norm(kernel.reshape(12, 24), axis=0)
    value = 12 * (100 / 255) ** 2
    np.testing.assert_allclose(norms[0], 1 / np.sqrt(value + 0.25), rtol=1e-5)
    np.testing.assert_allclose(norms[1:12], 2, rtol=1e-5)


@pytest.mark.parametrize("value", [0, 59, 100, 255])
def test_directions_without_variance_leave_the_kernel_finite(value):
    images = np.full((64, 8, 8, 3), value, np.uint8)
    for epsilon in (1e-8, 1e-12, 1e-18):  # rounding makes eigenvalues of -1e-15
        assert np.isfinite(initializers.whitening(images, None, None, epsilon)).all()


WHITENING = {
    "model.whitening.enabled": True,
    "model.whitening.bias_rate": 0.0,
    "model.whitening.images": 7,
}
FAST = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.1, "optimizer.l2": 0.01}


def after(overrides, n, blocks=()):
    """The experiment and its state after `n` steps."""
    config = tiny.config(overrides)
    config.model.blocks = blocks
    exp = tiny.build(config)
    arguments = (config, exp.model, exp.optimizer, exp.l2, exp.statistics, exp.mesh)
    train_steps, state = steps.make_train_step(*arguments), exp.initial_state()
    for i in range(n):
        order = exp.epoch_order(i // exp.steps_per_epoch)
        state, _ = train_steps(state, exp.put(exp.train), order, 1)
    return exp, jax.device_get(state)


def test_a_whitening_stem_stays_while_the_rest_trains():
    exp, state = after(WHITENING | FAST, 2)
    images = exp.train[0][:: len(exp.train[0]) // 7][:7]
    np.testing.assert_array_equal(
        state.params["stem"]["kernel"], initializers.whitening(images, None, None, 5e-4)
    )
    assert not state.params["stem"]["bias"].any()
    start = jax.device_get(exp.initial_state())
    assert (state.params["head"]["kernel"] != start.params["head"]["kernel"]).all()


def test_the_stems_bias_trains_where_it_has_a_rate():
    _, state = after(WHITENING | FAST | {"model.whitening.bias_rate": 1.0}, 1)
    assert state.params["stem"]["bias"].any()


# ---------------------------------------------------------------------------- rates
def test_rates_multiply_what_would_be_done_and_l2_shrinks_all_at_one_pace():
    config = tiny.config(FAST | {"optimizer.norm_bias_rate": 64.0, "optimizer.momentum": 0.0})
    params = {
        "batch_normalization_0": {"bias": jnp.ones(2), "scale": jnp.ones(2)},
        "conv2d_0": {"kernel": jnp.ones((1, 1, 2, 2)), "bias": jnp.ones(2)},
    }
    l2 = optim.l2_weights(config, {"conv2d_0": 0.5}, params)
    assert l2["batch_normalization_0"] == {"bias": pytest.approx(0.01 / 64), "scale": 0.01}
    assert l2["conv2d_0"] == {"kernel": pytest.approx(0.51), "bias": 0.01}
    l2 = optim.l2_weights(config, {}, params)
    optimizer = optim.make_optimizer(config, lambda step: 0.1, l2)
    for gradient in (0.0, 1.0):
        gradients = jax.tree.map(lambda leaf, g=gradient: g * jnp.ones_like(leaf), params)
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        for path, leaf in jax.tree_util.tree_leaves_with_path(updates):
            rate = 64 if path[-1].key == "bias" and "norm" in path[0].key else 1
            expected = -0.1 * (gradient * rate + 2 * 0.01)
            np.testing.assert_allclose(leaf, expected, rtol=1e-5, err_msg=str(path))


def test_what_is_frozen_has_no_gradient_and_no_penalty():
    config = base.get_config()
    config.model.whitening.enabled = True
    config.optimizer.l2 = 0.1
    params = {"stem": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}, "head": {"kernel": jnp.ones(2)}}

    def loss(params):
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(optim.freeze(config, params)))

    gradients = jax.grad(loss)(params)
    assert not gradients["stem"]["kernel"].any() and gradients["stem"]["bias"].all()
    assert optim.l2_weights(config, {}, params)["stem"] == {"kernel": 0.0, "bias": 0.1}


# ---------------------------------------------------------------------------- lookahead
LOOKAHEAD = {"optimizer.lookahead_every": 5, "optimizer.lookahead_decay": 0.9}


def test_lookahead_meets_every_few_steps_with_a_rising_weight_and_ends_on_the_slow_copy():
    config = tiny.config(LOOKAHEAD)
    slow = fast = np.float64(1.0)
    ours = ({"w": jnp.float32(1.0)}, {"w": jnp.float32(1.0)})
    for step in range(1, 13):
        fast = fast + step  # whatever the optimizer does
        moved = {"w": ours[1]["w"] + step}
        if step % 5 == 0:
            decay = 0.9**5 * (step / 12) ** 3
            slow = decay * slow + (1 - decay) * fast
            fast = slow
        if step == 12:
            fast = slow
        ours = lookahead.update(config, jnp.int32(step), 12, ours[0], moved)
        np.testing.assert_allclose([ours[0]["w"], ours[1]["w"]], [slow, fast], rtol=1e-5)


@pytest.mark.slow
def test_lookahead_covers_parameters_and_statistics_and_is_state_of_the_run():
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


def test_without_lookahead_nothing_is_kept():
    exp, _ = after({}, 0)
    assert exp.initial_state().lookahead is None


# ---------------------------------------------------------------------------- muon
def test_muon_steps_are_orthogonal_and_keep_the_kernels_norm():
    config = base.get_config()
    config.optimizer.name = "muon"
    config.optimizer.l2 = 0.1
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "conv2d_0_1": {"kernel": 5 * jax.random.normal(keys[0], (3, 3, 8, 4))},
        "head": {"kernel": jax.random.normal(keys[1], (6, 2))},
    }
    gradients = {
        "conv2d_0_1": {"kernel": jax.random.normal(keys[2], (3, 3, 8, 4))},
        "head": {"kernel": jax.random.normal(keys[3], (6, 2))},
    }
    l2 = optim.l2_weights(config, {}, params)
    assert l2 == {"conv2d_0_1": {"kernel": 0.0}, "head": {"kernel": 0.1}}
    optimizer = optim.make_optimizer(config, lambda step: 0.01, l2)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    # The rest: plain SGD's first step with its L2.
    expected = -0.01 * (gradients["head"]["kernel"] + 0.2 * params["head"]["kernel"])
    np.testing.assert_allclose(updates["head"]["kernel"], expected, rtol=1e-5)
    kernel = np.asarray(params["conv2d_0_1"]["kernel"]).reshape(72, 4)
    kept = kernel * np.sqrt(4) / np.linalg.norm(kernel)
    step = (kernel + np.asarray(updates["conv2d_0_1"]["kernel"]).reshape(72, 4) - kept) / -0.01
    # Three iterations bring the singular values near 1, and step along the gradient's own.
    left, values, right = np.linalg.svd(step, full_matrices=False)
    assert values.min() > 0.6 and values.max() < 1.3
    gradient = np.asarray(gradients["conv2d_0_1"]["kernel"]).reshape(72, 4)
    polar = np.linalg.svd(gradient, full_matrices=False)
    np.testing.assert_allclose(left @ right, polar[0] @ polar[2], atol=0.02)


def test_muon_trains_in_the_step():
    overrides = {"optimizer.name": "muon", "optimizer.learning_rate": 0.05, "epochs": 8}
    exp, state = after(overrides, 6, (base.conv_block(4, pool=4),))
    kernel = state.params["conv2d_0"]["kernel"]
    assert np.isfinite(kernel).all() and kernel.any()
    start = jax.device_get(exp.initial_state()).params["conv2d_0"]["kernel"]
    assert (kernel != start).all()
    assert float(state.sums.loss / state.sums.steps) < 1.35  # of four classes: ln 4 = 1.386


def test_a_head_may_begin_with_a_deviation_of_its_own():
    kernel = initializers.uniform(1.0)(jax.random.key(0), (500, 40))
    assert float(kernel.std()) == pytest.approx(1, rel=0.01)
    assert float(abs(kernel).max()) == pytest.approx(3**0.5, rel=0.01)
