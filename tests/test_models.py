"""The networks match the report: rows of its tables, parameter counts, Keras' conventions."""

import functools
import importlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict

from cifar_jax.data import augment
from cifar_jax.errors import UserError
from cifar_jax.models import summary
from cifar_jax.optim import chain, rules
from cifar_jax.training import state
from configs import base

CIFAR = (32, 32, 3)
NAMES = ("model1", "model2", "model3", "final")

# The report's tables, copied: layer type and output shape without the batch axis.
TABLES = {
    "model1": [
        ("Conv2D", (30, 30, 32)),
        ("MaxPooling2D", (15, 15, 32)),
        ("Conv2D", (13, 13, 64)),
        ("MaxPooling2D", (6, 6, 64)),
        ("Conv2D", (4, 4, 64)),
        ("Flatten", (1024,)),
        ("Dense", (64,)),
        ("Dense", (10,)),
    ],
    "model2": [
        ("RandomFlip", (32, 32, 3)),
        ("Conv2D", (30, 30, 32)),
        ("MaxPooling2D", (15, 15, 32)),
        ("Conv2D", (13, 13, 64)),
        ("MaxPooling2D", (6, 6, 64)),
        ("Conv2D", (4, 4, 64)),
        ("Flatten", (1024,)),
        ("Dense", (64,)),
        ("Dropout", (64,)),
        ("Dense", (10,)),
    ],
    "model3": [
        ("RandomFlip", (32, 32, 3)),
        ("Conv2D", (32, 32, 64)),
        ("MaxPooling2D", (16, 16, 64)),
        ("Conv2D", (16, 16, 128)),
        ("MaxPooling2D", (8, 8, 128)),
        ("Conv2D", (8, 8, 256)),
        ("MaxPooling2D", (4, 4, 256)),
        ("Conv2D", (4, 4, 256)),
        ("Flatten", (4096,)),
        ("Dense", (128,)),
        ("Dense", (64,)),
        ("Dense", (10,)),
    ],
    "final": [
        ("RandomFlip", (32, 32, 3)),
        ("Conv2D", (32, 32, 64)),
        ("BatchNormalization", (32, 32, 64)),
        ("MaxPooling2D", (16, 16, 64)),
        ("Dropout", (16, 16, 64)),
        ("Conv2D", (16, 16, 128)),
        ("BatchNormalization", (16, 16, 128)),
        ("MaxPooling2D", (8, 8, 128)),
        ("Dropout", (8, 8, 128)),
        ("Conv2D", (8, 8, 256)),
        ("BatchNormalization", (8, 8, 256)),
        ("MaxPooling2D", (4, 4, 256)),
        ("Dropout", (4, 4, 256)),
        ("Conv2D", (4, 4, 512)),
        ("BatchNormalization", (4, 4, 512)),
        ("MaxPooling2D", (2, 2, 512)),
        ("Dropout", (2, 2, 512)),
        ("Flatten", (2048,)),
        ("Dense", (128,)),
        ("Dense", (64,)),
        ("Dense", (10,)),
    ],
}
PARAMETERS = {"model1": 122_570, "model2": 122_570, "model3": 1_494_218, "final": 1_825_994}

KERAS_KINDS = {
    "Conv": "Conv2D",
    "MaxPool": "MaxPooling2D",
    "BatchNorm": "BatchNormalization",
    "Dropout": "Dropout",
    "Flatten": "Flatten",
    "Dense": "Dense",
}


def load(name: str):
    return importlib.import_module(f"configs.{name}").get_config()


def abstract_variables(model: nn.Module, image_shape: tuple[int, int, int] = CIFAR):
    return jax.eval_shape(functools.partial(state.init_variables, model, 0, image_shape))


def concrete_variables(model: nn.Module, image_shape: tuple[int, int, int] = CIFAR):
    # Compiling one program is faster than compiling dozens of single operations.
    return jax.jit(functools.partial(state.init_variables, model, 0, image_shape))()


def summary_lines(name: str):
    """The printed summary of a config, including the state of its optimizer."""
    config = tiny.typed(load(name))
    model = tiny.network(load(name), CIFAR, 10)
    variables = abstract_variables(model)
    table = rules.table(variables["params"], model.rules(), config.optimizer)
    optimizer = chain.make_optimizer(config.optimizer, lambda step: 0.1, table)
    opt_state = jax.eval_shape(optimizer.init, variables["params"])
    rows, augmentations = summary.layers(model, CIFAR), augment.names(config.augment)
    fixed = {"batch statistics": variables["batch_stats"]}
    shown = summary.table(rows, variables["params"], fixed, opt_state, augmentations, CIFAR)
    return shown.splitlines()


def l2_by_path(model: nn.Module, variables: Any):
    """Path -> L2 weight, for the parameters that have one."""
    table = rules.table(variables["params"], model.rules(), tiny.typed(base.get_config()).optimizer)
    return {path: setting.l2 for path, setting in table.settings.items() if setting.l2}


def small_config(*blocks: ConfigDict, **model: Any):
    """A config with a network that is small enough to compile quickly."""
    config = base.get_config()
    config.model.blocks = blocks
    config.model.dense = (8,)
    config.model.update(model)
    return config


def build_small(
    *blocks: ConfigDict, dtype: str = "float32", **model: Any
) -> tuple[Any, dict[str, Any]]:
    """A network for images of shape `[8, 8, 3]` and three classes, and its variables."""
    config = small_config(*blocks, **model)
    config.dtype = dtype
    network = tiny.network(config, (8, 8, 3), 3)
    return network, concrete_variables(network, (8, 8, 3))


def random_images(shape: tuple[int, int, int, int] = (4, 8, 8, 3), seed: int = 0):
    return jax.random.uniform(jax.random.key(seed), shape)


@pytest.mark.parametrize("name", NAMES)
def test_layers_match_the_table_of_the_report(name: str):
    config = load(name)
    augmentations = augment.names(tiny.typed(config).augment)
    assert augmentations == (["random_flip"] if name != "model1" else [])
    found = [("RandomFlip", CIFAR) for _ in augmentations] + [
        (KERAS_KINDS[row.kind], row.shape)
        for row in summary.layers(tiny.network(config, CIFAR, 10), CIFAR)
    ]
    assert found == TABLES[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_printed_summary_shows_the_table_of_the_report(name: str):
    header, _, *lines = summary_lines(name)
    assert header.split() == "layer type output shape parameters multiply-adds".split()
    kinds = {**KERAS_KINDS, "augmentation": "RandomFlip"}
    rows = [line.split(maxsplit=2) for line in lines[: len(TABLES[name])]]
    shapes = [row[2][: row[2].index(")") + 1] for row in rows]
    expected = [(kind, str((None, *shape))) for kind, shape in TABLES[name]]
    assert [(kinds[row[1]], shape) for row, shape in zip(rows, shapes, strict=True)] == expected
    assert set(lines[len(rows)]) == {"-"}


@pytest.mark.parametrize("name", NAMES)
def test_the_parameter_count_matches_the_report(name: str):
    model = tiny.network(load(name), CIFAR, 10)
    assert summary.count(abstract_variables(model)) == PARAMETERS[name]
    assert sum(row.parameters for row in summary.layers(model, CIFAR)) == PARAMETERS[name]
    total = next(line for line in summary_lines(name) if line.startswith("total"))
    assert total.split()[1] == f"{PARAMETERS[name]:,}"


def test_the_parameter_count_includes_batch_statistics():
    variables = abstract_variables(tiny.network(load("final"), CIFAR, 10))
    # A mean and a variance for each filter.
    assert summary.count(variables["batch_stats"]) == 2 * (64 + 128 + 256 + 512)
    assert summary.count(variables["params"]) == 1_825_994 - 1_920
    assert (
        "trainable 1,824,074, not trainable (batch statistics) 1,920," in summary_lines("final")[-1]
    )


def test_model_2_with_the_state_of_adam_has_the_367712_parameters_of_the_report():
    last = summary_lines("model2")[-1]
    assert "optimizer state 245,142" in last
    assert last.endswith("with the optimizer's state 367,712")


@pytest.mark.parametrize(
    "name, layer, multiply_adds",
    [
        ("model1", "conv2d_0", 777_600),  # 30 * 30 positions * 3 * 3 * 3 inputs * 32 filters
        ("model1", "max_pooling2d_0", 0),
        ("model1", "dense_0", 65_536),  # 1024 inputs * 64 units
        ("final", "conv2d_3", 18_874_368),  # 4 * 4 * (3 * 3 * 256) * 512
        ("final", "batch_normalization_3", 0),
        ("final", "head", 640),  # 64 inputs * 10 classes
    ],
)
def test_multiply_adds_count_the_uses_of_kernels(name: str, layer: str, multiply_adds: int):
    rows = {row.name: row for row in summary.layers(tiny.network(load(name), CIFAR, 10), CIFAR)}
    assert rows[layer].multiply_adds == multiply_adds


@pytest.mark.parametrize("name", NAMES)
def test_l2_applies_only_where_model_3_and_the_final_model_set_it(name: str):
    model = tiny.network(load(name), CIFAR, 10)
    found = l2_by_path(model, abstract_variables(model))
    regularized = [f"conv2d_{i}/kernel" for i in range(4)] if name in ("model3", "final") else []
    regularized += ["dense_0/kernel", "dense_1/kernel"] if name == "model3" else []
    assert found == dict.fromkeys(regularized, 0.001)


def test_dense_l2_applies_to_hidden_dense_kernels_only():
    network, variables = build_small(base.conv_block(4), dense_l2=0.01)
    assert l2_by_path(network, variables) == {"dense_0/kernel": 0.01}


@pytest.mark.parametrize("name", NAMES)
def test_networks_take_gray_images_and_100_classes(name: str):
    model = tiny.network(load(name), (28, 28, 1), 100)
    variables = abstract_variables(model, (28, 28, 1))
    images = jax.ShapeDtypeStruct((5, 28, 28, 1), jnp.float32)
    logits = jax.eval_shape(functools.partial(model.apply, train=False), variables, images)
    assert logits.shape == (5, 100)
    assert variables["params"]["conv2d_0"]["kernel"].shape[2] == 1


@pytest.mark.parametrize(
    "image_shape, blocks, culprit",
    [
        # 8 -> 4 -> 2 -> 1 -> nothing left to pool.
        ((8, 8, 3), [base.conv_block(4)] * 4, 3),
        # 8 -> 6 -> 3 -> a 5x5 kernel does not fit.
        ((8, 8, 3), [base.conv_block(4, padding="VALID"), base.conv_block(4, 5, "VALID")], 1),
        # The narrower side decides.
        ((32, 2, 1), [base.conv_block(4, pool=3)], 0),
    ],
)
def test_a_block_that_leaves_no_pixel_is_refused_by_name(
    image_shape: tuple[int, int, int], blocks: list[ConfigDict], culprit: int
):
    with pytest.raises(UserError, match=rf"^config\.model\.blocks\[{culprit}\] leaves no pixel"):
        tiny.network(small_config(*blocks), image_shape, 10)


def test_a_block_may_pool_to_exactly_one_pixel():
    config = small_config(*[base.conv_block(4)] * 3)
    rows = summary.layers(tiny.network(config, (8, 8, 3), 10), (8, 8, 3))
    assert [row.shape for row in rows if row.kind == "MaxPool"][-1] == (1, 1, 4)


@pytest.mark.slow
def test_bfloat16_is_close_to_float32_and_keeps_parameters_and_logits_in_float32():
    blocks = (base.conv_block(16, batch_norm=True), base.conv_block(16))
    network, variables = build_small(*blocks)
    halved, halved_variables = build_small(*blocks, dtype="bfloat16")
    images = random_images()
    logits = network.apply(variables, images, train=False)
    halved_logits, seen = halved.apply(
        halved_variables, images, train=False, capture_intermediates=True
    )
    for leaf in jax.tree.leaves([variables, halved_variables, logits, halved_logits]):
        assert leaf.dtype == jnp.float32
    assert seen["intermediates"]["conv2d_1"]["__call__"][0].dtype == jnp.bfloat16
    assert seen["intermediates"]["head"]["__call__"][0].dtype == jnp.bfloat16
    # bfloat16 has 8 significant bits, and rounding errors add up over a few layers.
    np.testing.assert_allclose(halved_logits, logits, atol=0.05 * np.abs(logits).max())
    assert np.abs(halved_logits - logits).max() > 0


def test_training_updates_batch_statistics_with_the_momentum_of_keras():
    network, variables = build_small(base.conv_block(4, batch_norm=True))
    _, updated = network.apply(
        variables,
        random_images(),
        train=True,
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=True,
    )
    convolved = updated["intermediates"]["conv2d_0"]["__call__"][0]
    activated = np.maximum(np.asarray(convolved, np.float64), 0)
    statistics = updated["batch_stats"]["batch_normalization_0"]
    mean, var = activated.mean((0, 1, 2)), activated.var((0, 1, 2))
    # They start at 0 and 1. The variance of the batch is divided by n, as in Keras.
    np.testing.assert_allclose(statistics["mean"], 0.01 * mean, rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], 0.99 + 0.01 * var, rtol=1e-6)


def test_evaluation_does_not_change_batch_statistics():
    network, variables = build_small(base.conv_block(4, batch_norm=True))
    _, updated = network.apply(variables, random_images(), train=False, mutable=["batch_stats"])
    for before, after in zip(
        jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(updated), strict=True
    ):
        np.testing.assert_array_equal(before, after)


def test_the_activation_comes_before_batch_norm():
    network, variables = build_small(base.conv_block(4, batch_norm=True))
    mean, var = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.04, 2.0, 1e-4])
    scale, bias = np.array([1.0, -2.0, 0.5, 3.0]), np.array([0.0, 0.1, -0.2, 0.3])
    variables["params"]["batch_normalization_0"] = {"scale": scale, "bias": bias}
    variables["batch_stats"]["batch_normalization_0"] = {"mean": mean, "var": var}
    _, seen = network.apply(variables, random_images(), train=False, capture_intermediates=True)
    outputs = {
        layer: calls["__call__"][0]
        for layer, calls in seen["intermediates"].items()
        if layer != "__call__"
    }
    activated = np.maximum(outputs["conv2d_0"], 0)
    normalized = (activated - mean) / np.sqrt(var + 1e-3) * scale + bias
    np.testing.assert_allclose(outputs["batch_normalization_0"], normalized, atol=1e-5)
    # Nothing between batch norm and pooling: a ReLU there would leave no negative value.
    pooled = nn.max_pool(outputs["batch_normalization_0"], (2, 2), (2, 2))
    np.testing.assert_array_equal(outputs["max_pooling2d_0"], pooled)
    assert (pooled < 0).any()


@pytest.mark.parametrize("in_blocks, in_dense", [(0.5, 0.0), (0.0, 0.5)], ids=["block", "dense"])
def test_dropout_acts_in_training_only(in_blocks: float, in_dense: float):
    network, variables = build_small(base.conv_block(4, dropout=in_blocks), dense_dropout=in_dense)
    without, _ = build_small(base.conv_block(4))
    images = random_images()
    logits = network.apply(variables, images, train=False)  # works without a dropout key
    np.testing.assert_array_equal(logits, without.apply(variables, images, train=False))

    def train_logits(seed: int):
        return network.apply(variables, images, train=True, rngs={"dropout": jax.random.key(seed)})

    np.testing.assert_array_equal(train_logits(0), train_logits(0))
    assert not np.array_equal(train_logits(0), train_logits(1))
    assert not np.array_equal(train_logits(0), logits)


def test_initial_kernels_are_glorot_uniform_and_biases_zero():
    model = tiny.network(load("model1"), CIFAR, 10)
    params = concrete_variables(model)["params"]
    fans = {  # inputs and outputs of a unit; for a convolution, times its 3x3 positions
        "conv2d_0": (9 * 3, 9 * 32),
        "conv2d_1": (9 * 32, 9 * 64),
        "conv2d_2": (9 * 64, 9 * 64),
        "dense_0": (1024, 64),
        "head": (64, 10),
    }
    assert params.keys() == fans.keys()
    for layer, (fan_in, fan_out) in fans.items():
        limit = np.sqrt(6 / (fan_in + fan_out))
        kernel = np.asarray(params[layer]["kernel"])
        assert 0.95 * limit < np.abs(kernel).max() <= limit
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)
        assert not params[layer]["bias"].any()


class Block(nn.Module):
    """Two convolutions around batch norm, and a shortcut."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool):
        y = nn.Conv(self.width, (3, 3), use_bias=False, name="conv_0")(x)
        y = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(y))
        y = nn.Conv(self.width, (1, 1), feature_group_count=self.width, name="conv_1")(y)
        return nn.relu(x + y)


class Nested(nn.Module):
    """A network with nested blocks and attention."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool):
        x = nn.Conv(4, (3, 3), strides=2, name="stem")(images)
        for i in range(2):
            x = Block(4, name=f"block_{i}")(x, train)
        x = nn.MultiHeadDotProductAttention(2, name="attention")(x.reshape(len(x), -1, 4))
        return nn.Dense(3, name="head")(x.mean(1))


@pytest.mark.slow
def test_the_summary_of_nested_modules_counts_every_parameter_and_multiply_add():
    model = Nested()
    rows = {row.name: row for row in summary.layers(model, (8, 8, 3))}
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    assert sum(row.parameters for row in rows.values()) == summary.count(variables)
    assert rows["block_1/conv_0"].multiply_adds == 4 * 4 * (3 * 3 * 4) * 4
    assert rows["block_1/conv_1"].multiply_adds == 4 * 4 * 4  # depthwise: one channel each
    assert rows["attention/query"].multiply_adds == 16 * 4 * 4  # tokens, features in and out
    assert rows["head"].multiply_adds == 4 * 3
    assert rows["stem"].shape == (4, 4, 4) and "block_0" not in rows
