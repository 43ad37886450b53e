"""Rules set learning rate, L2 and so on by path, for modules of any name and nesting."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cifar_jax.config.schema import Optimizer, Rule
from cifar_jax.errors import UserError
from cifar_jax.optim import chain, rules

PARAMS = {
    "backbone": {
        "block_0": {"conv": {"kernel": jnp.ones((3, 3, 2, 2))}, "norm": {"bias": jnp.ones(2)}},
        "block_1": {"conv": {"kernel": jnp.ones((3, 3, 2, 2))}, "norm": {"bias": jnp.ones(2)}},
    },
    "head": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
}


def settings(*own: Rule, **options: Any):
    return rules.table(PARAMS, own, Optimizer(**options)).settings


def test_by_default_kernels_decay_and_muon_trains_convolution_kernels():
    found = settings(name="muon")
    assert [path for path, setting in found.items() if setting.decay] == [
        "backbone/block_0/conv/kernel", "backbone/block_1/conv/kernel", "head/kernel",
    ]  # fmt: skip
    assert [path for path, setting in found.items() if setting.muon] == [
        "backbone/block_0/conv/kernel", "backbone/block_1/conv/kernel",
    ]  # fmt: skip
    assert not any(setting.muon for setting in settings(name="sgd").values())


def test_the_last_rule_with_a_setting_wins_and_config_rules_come_after_network_rules():
    found = settings(
        Rule("backbone/.*", rate=0.1, l2=0.5),
        rules=(Rule(".*/norm/.*", rate=64.0), Rule("backbone/block_1/.*", frozen=True)),
    )
    assert found["backbone/block_0/conv/kernel"].rate == 0.1
    assert found["backbone/block_0/norm/bias"].rate == 64.0
    assert found["backbone/block_0/norm/bias"].l2 == 0.5  # the later rule does not set it
    assert found["backbone/block_1/norm/bias"].frozen and not found["head/bias"].frozen
    assert found["backbone/block_1/norm/bias"].l2 == 0.0  # frozen parameters are not penalized
    found = settings(rules=(Rule(".*", frozen=True), Rule("head/.*", frozen=False)))
    assert [path for path, setting in found.items() if not setting.frozen] == [
        "head/kernel", "head/bias",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "pattern", ["backbone", "conv", "Head/kernel", "head/kernel/", "block_0/.*"]
)
def test_a_rule_that_matches_nothing_is_refused_by_name(pattern: str):
    with pytest.raises(UserError, match="matches no parameter: .*head/kernel") as caught:
        settings(rules=(Rule(pattern, rate=2.0),))
    assert repr(pattern) in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_with_nothing_to_train_is_refused():
    with pytest.raises(UserError, match="freeze every parameter"):
        settings(rules=(Rule(".*", frozen=True),))


def test_optimizer_l2_shrinks_all_parameters_at_the_same_pace():
    found = settings(Rule("head/kernel", l2=0.5), l2=0.01, rules=(Rule(".*/bias", rate=64.0),))
    assert found["head/kernel"].l2 == pytest.approx(0.51)
    assert found["head/bias"].l2 == pytest.approx(0.01 / 64)
    assert found["backbone/block_0/conv/kernel"].l2 == 0.01


def test_rates_multiply_the_updates():
    options = Optimizer(name="sgd", momentum=0.0, l2=0.01, rules=(Rule(".*/norm/bias", rate=64.0),))
    table = rules.table(PARAMS, (), options)
    optimizer = chain.make_optimizer(options, lambda step: 0.1, table)
    for gradient in (0.0, 1.0):
        gradients = jax.tree.map(lambda leaf, g=gradient: g * jnp.ones_like(leaf), PARAMS)
        updates, _ = optimizer.update(
            gradients, optimizer.init(PARAMS), PARAMS, plateau_scale=jnp.float32(1)
        )
        for path, leaf in rules.flatten(updates).items():
            rate = 64 if path.endswith("norm/bias") else 1
            expected = -0.1 * (gradient * rate + 2 * 0.01)
            np.testing.assert_allclose(leaf, expected, rtol=1e-5, err_msg=path)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "muon"])
def test_parameters_train_from_start_to_stop_only(name: str):
    options = Optimizer(
        name=name,
        rules=(
            Rule("backbone/.*", start=0.5),
            Rule("head/.*", stop=1.5),
            Rule("head/bias", stop=1),
        ),
    )
    table = rules.table(PARAMS, (), options)
    optimizer = chain.make_optimizer(options, lambda step: 0.1, table, steps_per_epoch=4)
    state, moved = optimizer.init(PARAMS), []
    for _ in range(8):
        updates, state = optimizer.update(PARAMS, state, PARAMS, plateau_scale=jnp.float32(1))
        moved.append({path for path, leaf in rules.flatten(updates).items() if leaf.any()})
    for group, steps in (
        ("backbone/", range(2, 8)),
        ("head/kernel", range(6)),
        ("head/bias", range(4)),
    ):
        for path in settings():
            if path.startswith(group):
                assert [i for i in range(8) if path in moved[i]] == list(steps), path


def test_rules_that_together_never_train_a_parameter_are_refused():
    one_after_another = (Rule("backbone/.*", start=2), Rule(".*/kernel", stop=1.5))
    with pytest.raises(UserError, match="backbone/.*kernel .* start after 2 .* stop after 1.5"):
        rules.table(PARAMS, (), Optimizer(rules=one_after_another))


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "muon"])
def test_the_optimizer_does_not_see_frozen_parameters(name: str):
    options = Optimizer(name=name, rules=(Rule("backbone/.*", frozen=True),))
    table = rules.table(PARAMS, (), options)
    trained, frozen = table.split(PARAMS)
    assert set(trained) == {"head"} and set(frozen) == {"backbone"}
    assert jax.tree.structure(table.merge(trained, frozen)) == jax.tree.structure(PARAMS)
    optimizer = chain.make_optimizer(options, lambda step: 0.1, table)
    state = optimizer.init(trained)
    assert all(leaf.size <= 6 for leaf in jax.tree.leaves(state))  # nothing of a 3x3 kernel
    updates, _ = optimizer.update(trained, state, trained, plateau_scale=jnp.float32(1))
    moved = table.merge(optax.apply_updates(trained, updates), frozen)
    assert moved["backbone"] is not PARAMS["backbone"]
    jax.tree.map(np.testing.assert_array_equal, moved["backbone"], PARAMS["backbone"])
    assert (moved["head"]["kernel"] != 1).all()


def test_rules_choose_where_weight_decay_applies():
    rule = (Rule("head/.*", decay=True), Rule("backbone/block_0/.*", decay=False))
    options = Optimizer(name="adamw", weight_decay=0.5, rules=rule)
    table = rules.table(PARAMS, (), options)
    optimizer = chain.make_optimizer(options, lambda step: 0.1, table)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(
        zeros, optimizer.init(PARAMS), PARAMS, plateau_scale=jnp.float32(1)
    )
    shrunk = {path for path, leaf in rules.flatten(updates).items() if leaf.any()}
    assert shrunk == {"head/kernel", "head/bias", "backbone/block_1/conv/kernel"}


def test_muon_steps_are_orthogonal_and_keep_the_norm_of_the_kernel():
    options = Optimizer(name="muon", l2=0.1)
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "stage": {"conv": {"kernel": 5 * jax.random.normal(keys[0], (3, 3, 8, 4))}},
        "head": {"kernel": jax.random.normal(keys[1], (6, 2))},
    }
    gradients = {
        "stage": {"conv": {"kernel": jax.random.normal(keys[2], (3, 3, 8, 4))}},
        "head": {"kernel": jax.random.normal(keys[3], (6, 2))},
    }
    table = rules.table(params, (), options)
    assert table.tree(lambda s: s.l2) == {
        "stage": {"conv": {"kernel": 0.0}},
        "head": {"kernel": 0.1},
    }
    optimizer = chain.make_optimizer(options, lambda step: 0.02, table)
    updates, _ = optimizer.update(
        gradients, optimizer.init(params), params, plateau_scale=jnp.float32(0.5)
    )
    # The other parameters: the first step of plain SGD, with L2.
    expected = -0.01 * (gradients["head"]["kernel"] + 0.2 * params["head"]["kernel"])
    np.testing.assert_allclose(updates["head"]["kernel"], expected, rtol=1e-5)
    kernel = np.asarray(params["stage"]["conv"]["kernel"]).reshape(72, 4)
    kept = kernel * np.sqrt(4) / np.linalg.norm(kernel)
    step = (kernel + np.asarray(updates["stage"]["conv"]["kernel"]).reshape(72, 4) - kept) / -0.01
    # Three iterations bring the singular values near 1, with the singular vectors of the gradient.
    left, values, right = np.linalg.svd(step, full_matrices=False)
    assert values.min() > 0.6 and values.max() < 1.3
    gradient = np.asarray(gradients["stage"]["conv"]["kernel"]).reshape(72, 4)
    polar = np.linalg.svd(gradient, full_matrices=False)
    np.testing.assert_allclose(left @ right, polar[0] @ polar[2], atol=0.02)
