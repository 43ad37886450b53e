"""The optimizer and the schedules agree with their formulas, computed in NumPy."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from cifar_jax.config.schema import Schedule
from cifar_jax.optim import chain, rules, schedules

LEARNING_RATE = 0.01
L2 = {"conv2d_0": {"kernel": 0.001, "bias": 0.0}, "dense_0": {"kernel": 0.05, "bias": 0.0}}
NO_L2 = jax.tree.map(lambda _: 0.0, L2)


def random_tree(seed: int, scale: float = 1.0):
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (3, 2), "bias": (2,)}
    return {
        layer: {
            name: scale * rng.standard_normal(shape).astype(np.float32)
            for name, shape in shapes.items()
        }
        for layer in L2
    }


def table_of(l2: dict[str, Any]):
    """A table with these L2 weights, given as a tree like the parameters."""
    settings = {
        path: rules.Setting(l2=weight, decay=rules.is_kernel(path))
        for path, weight in rules.flatten(l2).items()
    }
    return rules.Table(settings)


def run(
    overrides: dict[str, Any],
    l2: dict[str, dict[str, float]],
    params: dict[str, dict[str, np.ndarray]],
    gradients: list[dict[str, dict[str, np.ndarray]]],
    scale: float = 1.0,
):
    """The parameters after one step for each tree in `gradients`."""
    config = tiny.typed(tiny.config({"optimizer.learning_rate": LEARNING_RATE, **overrides}))
    schedule = optax.constant_schedule(LEARNING_RATE)
    optimizer = chain.make_optimizer(config.optimizer, schedule, table_of(l2))
    params = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(params)
    for gradient in gradients:
        gradient = jax.tree.map(jnp.asarray, gradient)
        updates, state = optimizer.update(gradient, state, params, plateau_scale=scale)
        params = optax.apply_updates(params, updates)
    return params


def keras_adam(
    params: dict[str, dict[str, np.ndarray]],
    gradients: list[dict[str, dict[str, np.ndarray]]],
    l2: dict[str, dict[str, float]],
    epsilon: float = 1e-7,
    weight_decay: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
):
    """Adam as in Keras' adam.py, in float64: L2 gradient first, weight decay last."""

    def one(name: str, w: np.ndarray, gradients: list[np.ndarray], l2: float):
        w, m, v = w.astype(np.float64), 0.0, 0.0
        for step, gradient in enumerate(gradients, 1):
            gradient = gradient + 2 * l2 * w
            m = b1 * m + (1 - b1) * gradient
            v = b2 * v + (1 - b2) * gradient**2
            alpha = LEARNING_RATE * np.sqrt(1 - b2**step) / (1 - b1**step)
            decay = LEARNING_RATE * weight_decay * w if name == "kernel" else 0.0
            w = w - alpha * m / (np.sqrt(v) + epsilon) - decay
        return w

    return {
        layer: {
            name: one(name, w, [g[layer][name] for g in gradients], l2[layer][name])
            for name, w in leaves.items()
        }
        for layer, leaves in params.items()
    }


def assert_close(
    found: Mapping[str, Mapping[str, Any]], expected: dict[str, Any], rtol: float = 1e-5
):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7, err_msg=name)


def test_the_l2_gradient_is_added_before_adam():
    params, gradients = random_tree(0), [random_tree(seed, 0.1) for seed in (1, 2, 3)]
    found = run({}, L2, params, gradients)
    assert_close(found, keras_adam(params, gradients, L2))


def test_adam_adds_epsilon_to_the_uncorrected_root():
    # With gradients as small as epsilon, the two variants of Adam differ a lot.
    params, gradients = random_tree(0), [random_tree(seed, 1e-6) for seed in (1, 2, 3)]
    found = run({"optimizer.epsilon": 1e-6}, NO_L2, params, gradients)
    moved = jax.tree.map(lambda new, old: new - old, found, params)
    expected = keras_adam(params, gradients, NO_L2, epsilon=1e-6)
    expected = jax.tree.map(lambda new, old: new - old, expected, params)
    assert_close(moved, expected, rtol=1e-3)


def test_adamw_decays_kernels_after_adam():
    params, gradients = random_tree(0), [random_tree(seed, 0.1) for seed in (1, 2, 3)]
    overrides = {"optimizer.name": "adamw", "optimizer.weight_decay": 0.1}
    found = run(overrides, NO_L2, params, gradients)
    assert_close(found, keras_adam(params, gradients, NO_L2, weight_decay=0.1))


def test_l2_is_twice_the_weight_times_the_parameter():
    overrides = {"optimizer.name": "sgd", "optimizer.momentum": 0.0}
    params, zeros = random_tree(0), random_tree(0, 0.0)
    found = run(overrides, L2, params, [zeros])
    expected = jax.tree.map(lambda w, l2: w - LEARNING_RATE * 2 * l2 * w, params, L2)
    assert_close(found, expected, rtol=1e-6)


def test_clipping_includes_the_l2_gradient():
    overrides = {
        "optimizer.name": "sgd",
        "optimizer.momentum": 0.0,
        "optimizer.gradient_clip": 0.5,
    }
    params, gradient = random_tree(0, 100.0), random_tree(1)
    whole = jax.tree.map(lambda g, w, l2: g + 2 * l2 * w, gradient, params, L2)
    norm = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(whole)))
    assert norm > 0.5
    found = run(overrides, L2, params, [gradient])
    expected = jax.tree.map(lambda w, g: w - LEARNING_RATE * g * 0.5 / norm, params, whole)
    moved = jax.tree.map(lambda new, old: new - old, found, params)
    expected = jax.tree.map(lambda new, old: new - old, expected, params)
    assert_close(moved, expected, rtol=0.02)  # a difference of large numbers in float32


def test_a_gradient_below_the_limit_is_not_clipped():
    overrides = {"optimizer.name": "sgd", "optimizer.gradient_clip": 1e3}
    params, gradients = random_tree(0), [random_tree(1)]
    found = run(overrides, NO_L2, params, gradients)
    assert_close(found, run({"optimizer.name": "sgd"}, NO_L2, params, gradients), rtol=0)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_the_plateau_scales_the_updates_of_the_chain(name: str):
    params, gradients = random_tree(0), [random_tree(1)]
    whole = run({"optimizer.name": name}, NO_L2, params, gradients)
    half = run({"optimizer.name": name}, NO_L2, params, gradients, scale=0.5)
    expected = jax.tree.map(lambda w, new: w + (new - w) / 2, params, whole)
    assert_close(half, expected, rtol=1e-4)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_has_momentum(nesterov: bool):
    params, gradients = random_tree(0), [random_tree(seed) for seed in (1, 2, 3)]
    overrides = {
        "optimizer.name": "sgd",
        "optimizer.momentum": 0.8,
        "optimizer.nesterov": nesterov,
    }
    found = run(overrides, NO_L2, params, gradients)
    expected, velocity = params, jax.tree.map(np.zeros_like, params)
    for gradient in gradients:
        velocity = jax.tree.map(lambda g, v: g + 0.8 * v, gradient, velocity)
        ahead = jax.tree.map(lambda g, v: g + 0.8 * v if nesterov else v, gradient, velocity)
        expected = jax.tree.map(lambda w, d: w - LEARNING_RATE * d, expected, ahead)
    assert_close(found, expected)


def test_the_chain_reads_the_schedule_at_each_step():
    config = tiny.typed(tiny.config({"optimizer.name": "sgd", "optimizer.momentum": 0.0}))
    optimizer = chain.make_optimizer(config.optimizer, lambda step: 10.0**-step, table_of(NO_L2))
    params = random_tree(0)
    state = optimizer.init(params)
    ones = jax.tree.map(np.ones_like, params)
    for expected in (-1.0, -0.1, -0.01):
        updates, state = optimizer.update(ones, state, params, plateau_scale=1.0)
        np.testing.assert_allclose(updates["dense_0"]["bias"], expected, rtol=1e-6)


def test_l2_penalty_is_the_weighted_sum_of_squares():
    params = random_tree(0)
    expected = 0.001 * np.sum(np.square(params["conv2d_0"]["kernel"], dtype=np.float64))
    expected += 0.05 * np.sum(np.square(params["dense_0"]["kernel"], dtype=np.float64))
    found = table_of(L2).penalty(params)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert table_of(NO_L2).penalty(params) == 0.0


def test_the_gradient_of_the_l2_penalty_is_what_the_chain_adds():
    params = random_tree(0)
    gradient = jax.grad(lambda params: table_of(L2).penalty(params))(params)
    assert_close(gradient, jax.tree.map(lambda w, l2: 2 * l2 * w, params, L2))


# ---------------------------------------------------------------------------- schedules
EPOCHS, STEPS_PER_EPOCH, PEAK = 10, 20, 0.4
TOTAL = EPOCHS * STEPS_PER_EPOCH


def schedule(
    name: str, epochs: int = EPOCHS, steps_per_epoch: int = STEPS_PER_EPOCH, **options: Any
):
    return schedules.make_schedule(Schedule(name, **options), PEAK, epochs, steps_per_epoch)


def assert_values(schedule: Callable[..., Any], expected: dict[int, Any]):
    for step, value in expected.items():
        np.testing.assert_allclose(
            schedule(step), value, rtol=1e-5, atol=1e-8, err_msg=f"step {step}"
        )


def test_constant():
    assert_values(schedule("constant"), {0: PEAK, 1: PEAK, TOTAL // 2: PEAK, TOTAL: PEAK})


WARMUP = {0: 0.0, 1: PEAK / 40, 20: PEAK / 2, 39: PEAK * 39 / 40}  # two epochs long


def test_constant_after_warmup():
    expected = {**WARMUP, 40: PEAK, 41: PEAK, TOTAL: PEAK}
    assert_values(schedule("constant", warmup_epochs=2.0), expected)


def test_the_warmup_may_be_shorter_than_an_epoch():
    expected = {0: 0.0, 5: PEAK / 2, 10: PEAK, 11: PEAK}
    assert_values(schedule("constant", warmup_epochs=0.5), expected)


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine(final: float):
    def expected(step: int):
        return PEAK * (final + (1 - final) * (1 + np.cos(np.pi * step / TOTAL)) / 2)

    steps = (0, 1, 50, 100, 150, 199, TOTAL)
    assert expected(TOTAL) == pytest.approx(final * PEAK)
    assert_values(schedule("cosine", final_fraction=final), {s: expected(s) for s in steps})


def test_cosine_after_warmup_ends_with_the_run():
    found = schedule("cosine", warmup_epochs=2.0, final_fraction=0.1)
    half = PEAK * (0.1 + 0.9 / 2)
    assert_values(found, {**WARMUP, 40: PEAK, 120: half, TOTAL: 0.1 * PEAK, TOTAL + 9: 0.1 * PEAK})


def test_linear_rises_from_one_fraction_and_falls_to_another():
    found = schedule("linear", warmup_epochs=2.0, initial_fraction=0.2, final_fraction=0.07)
    rise = 2 * STEPS_PER_EPOCH
    middle = rise + (TOTAL - rise) // 2
    down = (middle - rise) / (TOTAL - rise)
    expected = {0: 0.2 * PEAK, rise // 2: 0.6 * PEAK, rise: PEAK, TOTAL: 0.07 * PEAK}
    assert_values(found, expected | {middle: (1 - 0.93 * down) * PEAK})


def test_one_cycle_rises_for_30_percent_of_the_run():
    found = schedule("one_cycle", final_fraction=0.05)
    low, rise = PEAK / 25, 60
    expected = {0: low, 30: (low + PEAK) / 2, 59: low + (PEAK - low) * 59 / 60, rise: PEAK}
    expected |= {130: (PEAK + 0.05 * PEAK) / 2, TOTAL: 0.05 * PEAK}
    assert_values(found, expected)


def test_one_cycle_rises_during_the_warmup_if_there_is_one():
    found = schedule("one_cycle", warmup_epochs=5.0)
    assert_values(found, {0: PEAK / 25, 99: PEAK * (1 - 0.96 / 100), 100: PEAK, TOTAL: 0.0})


def test_piecewise_drops_at_fractions_of_the_run():
    found = schedule("piecewise", boundaries=(0.5, 0.75), factor=0.1)
    expected = {0: PEAK, 99: PEAK, 100: 0.1 * PEAK, 149: 0.1 * PEAK, 150: 0.01 * PEAK}
    assert_values(found, {**expected, TOTAL: 0.01 * PEAK})


def test_warmup_does_not_move_the_boundaries():
    found = schedule("piecewise", boundaries=(0.5, 0.75), factor=0.1, warmup_epochs=2.0)
    expected = {40: PEAK, 99: PEAK, 100: 0.1 * PEAK, 149: 0.1 * PEAK, 150: 0.01 * PEAK}
    assert_values(found, {**WARMUP, **expected})


def test_two_boundaries_at_the_same_step_both_count():
    found = schedule("piecewise", epochs=1, steps_per_epoch=2, boundaries=(0.5, 0.6), factor=0.1)
    assert_values(found, {0: PEAK, 1: 0.01 * PEAK})


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "one_cycle", "piecewise"])
@pytest.mark.parametrize("steps_per_epoch", [1, 3])
def test_the_warmup_may_take_almost_the_whole_run(name: str, steps_per_epoch: int):
    found = schedule(name, epochs=1, steps_per_epoch=steps_per_epoch, warmup_epochs=0.9)
    values = np.array([found(step) for step in range(steps_per_epoch)])
    assert np.isfinite(values).all()
    assert values.max() <= PEAK


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "one_cycle", "piecewise"])
def test_schedules_can_be_traced(name: str):
    found = schedule(name, warmup_epochs=2.0)
    steps = jnp.arange(0, TOTAL, 17)
    traced = jax.jit(jax.vmap(found))(steps)
    np.testing.assert_allclose(traced, [found(int(step)) for step in steps], rtol=1e-5)
