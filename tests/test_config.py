"""A config is checked whole before anything compiles, with one clear line per fault."""

import importlib
import json
from pathlib import Path

import pytest

from cifar_jax.config import tree as config_tree
from cifar_jax.config import validation as config_lib
from cifar_jax.errors import UserError
from configs import base

NAMES = sorted(
    path.stem for path in Path(base.__file__).parent.glob("*.py") if path.stem != "__init__"
)

NAN, INFINITY = float("nan"), float("inf")
NUMBER_BELOW_1 = "a number of at least 0 and below 1"
POSITIVE = "a number above 0"
WHOLE = "an integer from"

# key, a value it must not have, what the message says is allowed
BAD_VALUES = [
    ("seed", -1, "an integer from 0 to 4294967295"),
    ("seed", 2**32, "an integer from 0 to 4294967295"),
    ("seed", 1.0, "an integer from 0 to 4294967295"),
    ("epochs", 0, f"{WHOLE} 1"),
    ("epochs", 2.5, f"{WHOLE} 1"),
    ("epochs", True, f"{WHOLE} 1"),
    ("batch_size", 0, f"{WHOLE} 1"),
    ("batch_size", "128", f"{WHOLE} 1"),
    ("dtype", "float16", "one of 'float32', 'bfloat16'"),
    ("label_smoothing", 1.0, NUMBER_BELOW_1),
    ("label_smoothing", -0.1, NUMBER_BELOW_1),
    ("steps_per_dispatch", -1, f"{WHOLE} 0"),
    ("data.validation_fraction", -0.1, NUMBER_BELOW_1),
    ("data.validation_fraction", 1.0, NUMBER_BELOW_1),
    ("augment.crop_padding", -4, f"{WHOLE} 0"),
    ("augment.cutout", 8.0, f"{WHOLE} 0"),
    ("augment.mixup", -0.2, "a number of at least 0"),
    ("augment.mixup", INFINITY, "a number of at least 0"),
    ("model.name", "resnet", "one of 'cnn'"),
    ("model.dense", 64, f"a tuple of widths, each {WHOLE} 1"),
    ("model.dense", (64, 0), f"a tuple of widths, each {WHOLE} 1"),
    ("model.dense_dropout", 1.0, NUMBER_BELOW_1),
    ("model.dense_l2", -1e-3, "a number of at least 0"),
    ("optimizer.name", "Adam", "one of 'adam', 'adamw', 'sgd'"),
    ("optimizer.learning_rate", 0.0, POSITIVE),
    ("optimizer.learning_rate", NAN, POSITIVE),
    ("optimizer.learning_rate", INFINITY, POSITIVE),
    ("optimizer.learning_rate", None, POSITIVE),
    ("optimizer.b1", 1.0, NUMBER_BELOW_1),
    ("optimizer.b2", 1.5, NUMBER_BELOW_1),
    ("optimizer.epsilon", 0.0, POSITIVE),
    ("optimizer.momentum", -0.9, NUMBER_BELOW_1),
    ("optimizer.weight_decay", -1e-4, "a number of at least 0"),
    ("optimizer.gradient_clip", -1.0, "a number of at least 0"),
    ("optimizer.ema_decay", 1.0, NUMBER_BELOW_1),
    (
        "schedule.name",
        "triangle",
        "one of 'constant', 'linear', 'cosine', 'one_cycle', 'piecewise'",
    ),
    ("schedule.warmup_epochs", -1.0, "a number of at least 0"),
    ("schedule.boundaries", (0.5, 30), "a tuple of fractions of config.epochs, each a number"),
    ("schedule.boundaries", 0.5, "a tuple of fractions of config.epochs, each a number"),
    ("schedule.factor", 0.0, POSITIVE),
    ("schedule.final_fraction", 1.1, "a number from 0 to 1"),
    ("plateau.factor", 1.0, "a number above 0 and below 1"),
    ("plateau.patience", 0, f"{WHOLE} 1"),
    ("plateau.min_delta", -1e-4, POSITIVE),
    ("plateau.min_delta", 0.0, POSITIVE),  # optax.contrib.reduce_on_plateau refuses it
    ("plateau.cooldown", -1, f"{WHOLE} 0"),
    ("plateau.min_scale", 2.0, "a number from 0 to 1"),
    ("early_stopping.metric", "test_accuracy", "one of 'validation_loss', 'validation_accuracy'"),
    ("early_stopping.patience", 0, f"{WHOLE} 1"),
    ("early_stopping.min_delta", -1.0, "a number of at least 0"),
    ("eval.batch_size", 0, f"{WHOLE} 1"),
    ("checkpoint.every_steps", -1, f"{WHOLE} 0"),
    # What float32 makes 0, infinite or 1: each gives NaN, and not by the learning rate.
    ("augment.mixup", 1e-38, "a number of at least 0 in float32"),
    ("augment.mixup", 1e-320, "a number of at least 0 in float32"),
    ("augment.mixup", 1e39, "a number of at least 0 in float32"),
    ("optimizer.epsilon", 1e-50, f"{POSITIVE} in float32"),
    ("optimizer.learning_rate", 1e39, POSITIVE),
    ("optimizer.b1", 1 - 1e-9, f"{NUMBER_BELOW_1} in float32"),
    ("optimizer.b2", 1 - 1e-12, NUMBER_BELOW_1),
    ("optimizer.ema_decay", 1 - 1e-9, NUMBER_BELOW_1),
    ("label_smoothing", 1 - 1e-9, NUMBER_BELOW_1),
    ("model.dense_dropout", 1 - 1e-9, NUMBER_BELOW_1),
    ("model.norm_momentum", 1 - 1e-9, NUMBER_BELOW_1),
    ("model.whitening.epsilon", 0.0, "a number of at least 1e-08"),
    ("model.whitening.epsilon", 1e-300, "a number of at least 1e-08"),
    ("model.logit_scale", 1e300, POSITIVE),
    ("optimizer.l2", 1e300, "a number of at least 0"),
    ("plateau.factor", 1 - 1e-9, "a number above 0 and below 1"),
    ("seeds", 2**31 - 1, f"{WHOLE} 1 to 65536"),
    ("augment.flip", 1, "True or False"),
    ("data.stratified", "yes", "True or False"),
    ("early_stopping.restore_best", None, "True or False"),
    ("data.name", None, "a string"),
    ("data.dir", 3, "a string"),
]

BAD_BLOCK_VALUES = [
    ("filters", 0, f"{WHOLE} 1 to 65536"),
    ("kernel", (3, 3), f"{WHOLE} 1 to 65536"),
    ("padding", "same", "one of 'SAME', 'VALID'"),
    ("batch_norm", 1, "True or False"),
    ("pool", 0, f"{WHOLE} 1 to 65536"),
    ("dropout", 1.0, NUMBER_BELOW_1),
    ("l2", -0.001, "a number of at least 0"),
]

CONTRADICTIONS = [
    (
        {"seed": 2**32 - 2, "seeds": 3},
        "config.seeds=3 from config.seed=4294967294 on go beyond 4294967295: set config.seed to at"
        " most 4294967293",
    ),
    ({"optimizer.weight_decay": 1e-4}, "config.optimizer.weight_decay is decoupled"),
    (
        {"optimizer.weight_decay": 1e-4, "optimizer.name": "sgd"},
        "config.optimizer.weight_decay is decoupled",
    ),
    ({"optimizer.nesterov": True}, "config.optimizer.nesterov belongs to sgd"),
    (
        {"data.validation_fraction": 0.0, "early_stopping.enabled": True},
        "config.early_stopping.enabled needs validation images",
    ),
    ({"data.validation_fraction": 0.0, "plateau.enabled": True}, "config.plateau.enabled needs"),
    ({"augment.alternate_flips": True}, "config.augment.alternate_flips says which way"),
    (
        {"schedule.name": "one_cycle", "schedule.initial_fraction": 0.1},
        "config.schedule.initial_fraction is not of one_cycle",
    ),
    ({"schedule.warmup_epochs": 40.0}, "config.schedule.warmup_epochs must be below"),
    ({"schedule.boundaries": (0.75, 0.5)}, "config.schedule.boundaries must rise"),
    ({"schedule.boundaries": (0.5, 0.5)}, "config.schedule.boundaries must rise"),
]


def with_value(key, value):
    """The default config with a value that its type need not allow, as `config.json` may have."""
    config = base.get_config()
    with config.ignore_type():
        config.update_from_flattened_dict({key: value})
    return config


def with_blocks(blocks):
    config = base.get_config()
    with config.ignore_type():
        config.model.blocks = blocks
    return config


def faults(config):
    with pytest.raises(UserError) as caught:
        config_lib.validate(config)
    return str(caught.value).splitlines()


def reloaded(config):
    return config_tree.from_plain(json.loads(json.dumps(config_tree.plain(config))))


@pytest.mark.parametrize("name", NAMES)
def test_configs_of_this_repository_validate(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    config_lib.validate(config)
    assert config.is_locked  # or a mistyped key in an experiment would be taken


@pytest.mark.parametrize(("key", "value", "allowed"), BAD_VALUES)
def test_bad_value_is_one_line_with_key_and_remedy(key, value, allowed):
    (line,) = faults(with_value(key, value))
    assert line.startswith(f"config.{key} must be {allowed}")
    assert line.endswith(f": it is {value!r}")


def test_values_at_the_bounds_are_allowed():
    config = base.get_config()
    config.update_from_flattened_dict(
        {
            "seed": 2**32 - 1,
            "epochs": 1,
            "batch_size": 1,
            "model.blocks": (),
            "model.dense": (),
            "schedule.boundaries": (),
            "schedule.final_fraction": 1.0,
            "optimizer.momentum": 0.0,
            "plateau.patience": 1,
            "plateau.min_scale": 1.0,
        }
    )
    config_lib.validate(config)


def test_the_last_seeds_there_are_will_do():
    config = base.get_config()
    config.update_from_flattened_dict({"seed": 2**32 - 3, "seeds": 3})
    config_lib.validate(config)


@pytest.mark.parametrize(
    ("overrides", "step", "named", "spared"),
    [
        ({}, 7, "lower config.optimizer.learning_rate or set config.optimizer.gradient_clip", "l2"),
        ({}, 1, "no update had been made", "learning_rate"),
        ({"optimizer.head_rate": 1e9}, 2, "lower config.optimizer.head_rate (1e+09)", "norm_bias"),
        ({"schedule.factor": 1e30}, 99, "lower config.schedule.factor (1e+30)", "gradient_clip"),
        ({"model.logit_scale": 1e30}, 1, "lower config.model.logit_scale (1e+30)", "augment"),
        (
            {"model.dense_l2": 1e20, "optimizer.l2": 1e9},
            1,
            "config.model.dense_l2 (1e+20), co",
            "?",
        ),
    ],
)
def test_what_is_not_finite_is_blamed_on_what_is_large(overrides, step, named, spared):
    config = base.get_config()
    config.update_from_flattened_dict(overrides)
    reason = config_lib.blame(config, step)
    assert named in reason and spared not in reason


def test_each_fault_has_its_line():
    config = with_value("epochs", 0)
    config.augment.cutout = -1
    config.model.blocks = (base.conv_block(0),)
    lines = faults(config)
    assert len(lines) == 3
    assert [line.split()[0] for line in lines] == [
        "config.epochs",
        "config.augment.cutout",
        "config.model.blocks[0].filters",
    ]


@pytest.mark.parametrize(("overrides", "start"), CONTRADICTIONS)
def test_values_that_contradict_each_other_are_refused(overrides, start):
    config = base.get_config()
    config.update_from_flattened_dict(overrides)
    (line,) = faults(config)
    assert line.startswith(start)


def test_what_does_not_contradict_is_allowed():
    config = base.get_config()
    config.update_from_flattened_dict({"optimizer.name": "adamw", "optimizer.weight_decay": 0.01})
    config_lib.validate(config)
    config = base.get_config()
    config.update_from_flattened_dict({"optimizer.name": "sgd", "optimizer.nesterov": True})
    config.schedule.warmup_epochs = config.epochs - 0.5
    config_lib.validate(config)


@pytest.mark.parametrize(("key", "value", "allowed"), BAD_BLOCK_VALUES)
def test_bad_value_in_a_block_names_the_block(key, value, allowed):
    block = base.conv_block(32)
    with block.ignore_type():
        block[key] = value
    (line,) = faults(with_blocks((base.conv_block(32), block)))
    assert line == f"config.model.blocks[1].{key} must be {allowed}: it is {value!r}"


def test_unknown_key_in_a_block_is_refused():
    block = base.conv_block(32)
    block.stride = 2
    (line,) = faults(with_blocks((block,)))
    assert line.startswith("config.model.blocks[0].stride is not a key of a block")
    assert "filters, kernel, padding" in line


def test_missing_key_in_a_block_is_named():
    block = base.conv_block(32)
    del block["pool"]
    (line,) = faults(with_blocks((block,)))
    assert line.startswith("config.model.blocks[0].pool is missing")


@pytest.mark.parametrize("blocks", [32, (32,), ((32, 3),), None])
def test_blocks_of_the_wrong_type_are_refused(blocks):
    (line,) = faults(with_blocks(blocks))
    assert line.startswith("config.model.blocks")
    assert "base.conv_block(...)" in line


def test_missing_and_unknown_keys_are_named():
    saved = config_tree.plain(base.get_config())
    del saved["optimizer"]["b1"]
    saved["optimizer"]["beta1"] = 0.9
    lines = faults(config_tree.from_plain(saved))
    assert len(lines) == 2
    assert any(line.startswith("config.optimizer.b1 ") for line in lines)
    assert any(line.startswith("config.optimizer.beta1 ") for line in lines)


def test_flat_names_every_value():
    values = config_tree.flat(base.get_config())
    assert values["optimizer.learning_rate"] == 1e-3
    assert values["seed"] == 0
    assert len(values["model.blocks"]) == 2  # a tuple stays a value


@pytest.mark.parametrize("name", NAMES)
def test_reloaded_config_is_no_difference(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    again = reloaded(config)
    assert config_tree.differences(again, config) == []
    config_lib.validate(again)
    tuples = (again.model.blocks, again.model.dense, again.schedule.boundaries)
    assert all(isinstance(value, tuple) for value in tuples)  # which JSON does not have


def test_differences_name_keys_and_both_values():
    saved, asked = base.get_config(), base.get_config()
    asked.optimizer.learning_rate = 0.01
    asked.model.dense = (64, 32)
    assert config_tree.differences(reloaded(saved), asked) == [
        "config.model.dense: [64] -> [64, 32]",
        "config.optimizer.learning_rate: 0.001 -> 0.01",
    ]


def test_a_changed_block_is_a_difference():
    saved, asked = base.get_config(), base.get_config()
    asked.model.blocks = (base.conv_block(32), base.conv_block(64, l2=0.001))
    (text,) = config_tree.differences(reloaded(saved), asked)
    assert text.startswith("config.model.blocks: ")


def test_a_key_of_one_side_only_is_a_difference():
    saved, asked = config_tree.plain(base.get_config()), base.get_config()
    del saved["seed"]
    assert config_tree.differences(config_tree.from_plain(saved), asked) == [
        "config.seed: (no such key) -> 0"
    ]


def test_where_the_data_lies_is_no_difference():
    saved, asked = base.get_config(), base.get_config()
    asked.data.dir = "/elsewhere"
    asked.data.archive = "cifar-10-binary.tar.gz"
    asked.data.cache_dir = "/cache"
    asked.data.download = False
    asked.profile = True
    assert config_tree.differences(saved, asked) == []
    asked.data.name = "digits"  # which data it is, is another matter
    assert config_tree.differences(saved, asked) == ["config.data.name: cifar10 -> digits"]
