"""Configs are checked completely before anything compiles, with one clear line per fault."""

import dataclasses
import importlib
import json
import pathlib
from pathlib import Path
from typing import Any

import pytest
import tiny
from ml_collections import ConfigDict

from cifar_jax import models
from cifar_jax.config import convert, files, keys, migration, schema, validation
from cifar_jax.config.schema import Config
from cifar_jax.errors import UserError
from cifar_jax.forms import Damaged
from configs import base

NAMES = sorted(
    path.stem
    for path in Path(base.__file__).parent.glob("*.py")
    if path.stem not in ("__init__", "base")
)

NAN, INFINITY = float("nan"), float("inf")
NUMBER_BELOW_1 = "a number of at least 0 and below 1"
POSITIVE = "a number above 0"
WHOLE = "an integer from"

# key, an invalid value, what the message says is allowed
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
    # Values that float32 rounds to 0, infinity or 1. Each gives NaN, whatever the learning rate.
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
    ("init.whitening_epsilon", 0.0, "a number of at least 1e-08"),
    ("init.whitening_epsilon", 1e-300, "a number of at least 1e-08"),
    ("init.skip", ("head(",), "a tuple of strings, each a regular expression"),
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
        "config.seeds=3 from config.seed=4294967294 goes beyond 4294967295: set config.seed to at"
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
    ({"augment.alternate_flips": True}, "config.augment.alternate_flips needs flips"),
    (
        {"schedule.name": "one_cycle", "schedule.initial_fraction": 0.1},
        "config.schedule.initial_fraction does not apply to one_cycle",
    ),
    ({"schedule.warmup_epochs": 40.0}, "config.schedule.warmup_epochs must be below"),
    ({"schedule.boundaries": (0.75, 0.5)}, "config.schedule.boundaries must increase"),
    ({"schedule.boundaries": (0.5, 0.5)}, "config.schedule.boundaries must increase"),
]


def with_value(key: str, value: object):
    """The default config with a value that may have the wrong type, as in `config.json`."""
    config = base.get_config()
    with config.ignore_type():
        config.update_from_flattened_dict({key: value})
    return config


def with_blocks(blocks: int | tuple[ConfigDict | int | tuple[int, int], ...] | None):
    config = base.get_config()
    with config.ignore_type():
        config.model.blocks = blocks
    return config


def faults(config: ConfigDict):
    with pytest.raises(UserError) as caught:
        tiny.typed(config)
    return str(caught.value).splitlines()


def reloaded(config: schema.Config):
    return migration.from_json(json.loads(json.dumps(migration.to_json(config))), models)


@pytest.mark.parametrize("name", NAMES)
def test_configs_of_this_repository_are_valid(name: str):
    config = importlib.import_module(f"configs.{name}").get_config()
    tiny.typed(config)
    assert config.is_locked  # otherwise a mistyped key in an experiment would be accepted


@pytest.mark.parametrize(("key", "value", "allowed"), BAD_VALUES)
def test_an_invalid_value_gets_one_line_with_key_and_remedy(key: str, value: Any, allowed: str):
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
    tiny.typed(config)


def test_the_largest_seeds_are_allowed():
    config = base.get_config()
    config.update_from_flattened_dict({"seed": 2**32 - 3, "seeds": 3})
    tiny.typed(config)


@pytest.mark.parametrize(
    ("overrides", "step", "named", "spared"),
    [
        ({}, 7, "lower config.optimizer.learning_rate or set config.optimizer.gradient_clip", "l2"),
        ({}, 1, "no update has been made", "learning_rate"),
        (
            {"optimizer.rules": (base.rule("head/.*", rate=1e9),)},
            2,
            "lower config.optimizer.rules[0].rate (1e+09)",
            "l2",
        ),
        ({"schedule.factor": 1e30}, 99, "lower config.schedule.factor (1e+30)", "gradient_clip"),
        (
            {"model": base.model("speedrun", logit_scale=1e30)},
            1,
            "lower config.model.logit_scale (1e+30)",
            "augment",
        ),
        (
            {"model.dense_l2": 1e20, "optimizer.l2": 1e9},
            1,
            "config.model.dense_l2 (1e+20), co",
            "?",
        ),
    ],
)
def test_a_nan_is_blamed_on_large_factors(
    overrides: dict[str, Any], step: int, named: str, spared: str
):
    config = base.get_config()
    for name, value in overrides.items():
        config.update_from_flattened_dict({name: value})
    reason = validation.blame(tiny.typed(config), step)
    assert named in reason and spared not in reason


def test_each_fault_gets_a_line():
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
def test_contradicting_values_are_refused(overrides: dict[str, Any], start: str):
    config = base.get_config()
    config.update_from_flattened_dict(overrides)
    (line,) = faults(config)
    assert line.startswith(start)


def test_values_without_contradiction_are_allowed():
    config = base.get_config()
    config.update_from_flattened_dict({"optimizer.name": "adamw", "optimizer.weight_decay": 0.01})
    tiny.typed(config)
    config = base.get_config()
    config.update_from_flattened_dict({"optimizer.name": "sgd", "optimizer.nesterov": True})
    config.schedule.warmup_epochs = config.epochs - 0.5
    tiny.typed(config)


@pytest.mark.parametrize(("key", "value", "allowed"), BAD_BLOCK_VALUES)
def test_an_invalid_value_in_a_block_is_reported_with_the_block(
    key: str, value: float | str | tuple[int, int], allowed: str
):
    block = base.conv_block(32)
    with block.ignore_type():
        block[key] = value
    (line,) = faults(with_blocks((base.conv_block(32), block)))
    assert line == f"config.model.blocks[1].{key} must be {allowed}: it is {value!r}"


def test_an_unknown_key_in_a_block_is_refused():
    block = base.conv_block(32)
    block.stride = 2
    (line,) = faults(with_blocks((block,)))
    assert line.startswith("config.model.blocks[0].stride is not a key of base.conv_block")
    assert "filters, kernel, padding" in line


def test_a_missing_key_in_a_block_is_named():
    block = base.conv_block(32)
    del block["pool"]
    (line,) = faults(with_blocks((block,)))
    assert line.startswith("config.model.blocks[0].pool is missing")


@pytest.mark.parametrize("blocks", [32, (32,), ((32, 3),), None])
def test_blocks_of_the_wrong_type_are_refused(
    blocks: int | tuple[int | tuple[int, int], ...] | None,
):
    (line,) = faults(with_blocks(blocks))
    assert line.startswith("config.model.blocks")
    assert "base.conv_block(...)" in line


def test_missing_and_unknown_keys_are_named():
    saved = convert.plain(base.get_config())
    del saved["optimizer"]["b1"]
    saved["optimizer"]["beta1"] = 0.9
    lines = faults(convert.to_config_dict(saved))
    assert len(lines) == 2
    assert any(line.startswith("config.optimizer.b1 ") for line in lines)
    assert any(line.startswith("config.optimizer.beta1 ") for line in lines)


# ---------------------------------------------------------------------------- networks
def test_a_config_has_only_the_keys_of_its_network():
    config = base.get_config()
    config.model = base.model("speedrun", widths=(8, 8))
    assert set(config.model) == {
        field.name for field in dataclasses.fields(tiny.typed(config).model)
    }
    assert "blocks" not in config.model and config.model.widths == (8, 8)
    with pytest.raises(TypeError, match="blocks"):
        base.model("speedrun", blocks=())
    with pytest.raises(ValueError, match="no network 'resnet': choose one of cnn, eff"):
        base.model("resnet")


def test_keys_of_another_network_are_refused_in_one_line():
    config = base.get_config()
    config.model.name = "speedrun"
    (line,) = faults(config)
    assert line.startswith(
        "config.model.blocks is not a key of the network 'speedrun', which has widths"
    )
    assert "base.model('speedrun')" in line


def test_a_block_listed_three_times_becomes_three_blocks(tmp_path: pathlib.Path):
    path = tmp_path / "thrice.py"
    path.write_text(
        "from configs import base\n"
        "def get_config():\n"
        "    config = base.get_config()\n"
        "    config.model.blocks = (base.conv_block(16),) * 3\n"
        "    return config\n"
    )
    config = files.load(str(path))
    config.model.blocks[0].filters = 96
    assert [block.filters for block in tiny.typed(config).model.blocks] == [96, 16, 16]  # pyright: ignore[reportAttributeAccessIssue]


# ---------------------------------------------------------------------------- without effect
@pytest.mark.parametrize(
    ("argument", "needed", "remedy"),
    [
        ("plateau.factor=0.1", "plateau.enabled is False", "plateau.enabled first"),
        ("early_stopping.patience=3", "early_stopping.enabled is False", "enabled first"),
        ("optimizer.momentum=0.5", "optimizer.name is 'adam'", "optimizer.name to sgd or muon"),
        ("optimizer.muon_momentum=0.5", "optimizer.name is 'adam'", "optimizer.name to muon"),
        (
            "optimizer.lookahead_decay=0.5",
            "optimizer.lookahead_every is 0",
            "lookahead_every first",
        ),
        ("schedule.boundaries=(0.1,)", "schedule.name is 'constant'", "name to piecewise"),
        ("augment.crop_fill=reflect", "augment.crop_padding is 0", "crop_padding first"),
        ("init.skip=('head/.*',)", "init.source is ''", "init.source first"),
    ],
)
def test_an_override_without_effect_is_refused(argument: str, needed: str, remedy: str):
    config = base.get_config()
    with pytest.raises(UserError) as caught:
        files.typed(config, models, [f"--config.{argument}"])
    line = str(caught.value)
    name = argument.partition("=")[0]
    assert line.startswith(f"config.{name} has no effect while config.{needed}: set config.")
    assert f"{remedy}, or leave it out" in line and "\n" not in line


def test_an_override_with_an_effect_is_accepted():
    config = base.get_config()
    config.plateau.enabled = True
    files.typed(config, models, ["--config.plateau.factor=0.1", "--config.epochs=3", "--noise"])


# ---------------------------------------------------------------------------- as JSON
@pytest.mark.parametrize("name", NAMES)
def test_a_reloaded_config_does_not_differ(name: str):
    config = tiny.typed(importlib.import_module(f"configs.{name}").get_config())
    assert reloaded(config) == config
    assert keys.differences(reloaded(config), config) == []


def changed(config: Config | None = None, **sections: dict[str, Any]):
    config = config or tiny.typed(base.get_config())
    return dataclasses.replace(
        config,
        **{
            name: dataclasses.replace(getattr(config, name), **values)
            for name, values in sections.items()
        },
    )


def test_differences_name_keys_and_both_values():
    saved = tiny.typed(base.get_config())
    asked = changed(model={"dense": (64, 32)}, optimizer={"learning_rate": 0.01})
    assert keys.differences(reloaded(saved), asked) == [
        "config.model.dense: (64,) -> (64, 32)",
        "config.optimizer.learning_rate: 0.001 -> 0.01",
    ]


def test_a_changed_block_is_a_difference():
    config = base.get_config()
    config.model.blocks = (base.conv_block(32), base.conv_block(64, l2=0.001))
    saved = tiny.typed(base.get_config())
    assert keys.differences(saved, tiny.typed(config)) == [
        "config.model.blocks[1].l2: 0.0 -> 0.001"
    ]


def test_the_place_of_the_data_is_not_a_difference():
    saved = tiny.typed(base.get_config())
    elsewhere = {
        "dir": "/elsewhere",
        "archive": "cifar.tar.gz",
        "cache_dir": "/c",
        "download": False,
    }
    asked = dataclasses.replace(changed(data=elsewhere), profile=True)
    assert keys.differences(saved, asked) == []
    asked = changed(data={"name": "digits"})  # another data set is a difference
    assert keys.differences(saved, asked) == ["config.data.name: cifar10 -> digits"]


# ---------------------------------------------------------------------------- older configs
RESULTS = sorted((Path(__file__).parent.parent / "results").glob("*/seed-*/config.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: "-".join(path.parts[-3:-1]))
def test_published_configs_equal_those_in_configs(path: pathlib.Path):
    config = migration.from_json(json.loads(path.read_text()), models)
    name = path.parts[-3]
    today = tiny.typed(importlib.import_module(f"configs.{name}").get_config())
    differing = keys.differences(dataclasses.replace(config, seed=today.seed), today)
    assert differing == CHANGED_SINCE_PUBLISHED.get(name, [])


# Changes to configs after their figures were published; see the notes in results/.
CHANGED_SINCE_PUBLISHED: dict[str, list[str]] = {
    "speedrun90": [
        "config.epochs: 5 -> 4",
        "config.model.logit_scale: 0.1111111111111111 -> 0.0078125",
        "config.model.head_std: 0.0 -> 1.0",
        "config.optimizer.name: sgd -> muon",
        "config.optimizer.learning_rate: 0.3662 -> 0.12",
        "config.optimizer.l2: 0.0006652 -> 0.0020833333333333333",
        "config.optimizer.lookahead_every: 5 -> 0",
        "config.optimizer.rules[0].path: batch_normalization_.*/bias -> "
        "(batch_normalization_.*|stem)/bias",
        "config.optimizer.rules[0].rate: 64.0 -> 110.41666666666667",
        "config.optimizer.rules[1].path: (no such key) -> head/kernel",
        "config.optimizer.rules[1].rate: (no such key) -> 1395.8333333333335",
        "config.optimizer.rules[2].path: (no such key) -> stem/bias",
        "config.optimizer.rules[2].frozen: (no such key) -> True",
        "config.schedule.warmup_epochs: 1.1500000000000001 -> 0.0",
        "config.schedule.initial_fraction: 0.2 -> 0.0",
        "config.schedule.final_fraction: 0.07 -> 0.0",
    ],
}


def version_1(**changes: Any):
    """A config as saved before there were version numbers: a speedrun's."""
    saved = json.loads((Path(__file__).parent / "configs" / "version_1.json").read_text())
    saved["optimizer"] |= changes.pop("optimizer", {})
    saved["model"]["whitening"] |= changes.pop("whitening", {})
    assert "version" not in saved
    return saved | changes


def test_keys_of_version_1_become_rules():
    saved = version_1(
        optimizer={"norm_bias_rate": 3.0, "head_rate": 2.0},
        whitening={"images": 77, "epsilon": 1e-3, "bias_rate": 0.5},
    )
    config = migration.from_json(saved, models)
    assert config.optimizer.rules == (
        schema.Rule("batch_normalization_.*/bias", rate=3.0),
        schema.Rule("head/.*", rate=2.0),
        schema.Rule("stem/bias", rate=0.5),
    )
    assert (config.init.whitening_images, config.init.whitening_epsilon) == (77, 1e-3)
    assert config.model.whitening is True  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"version": 3}, "version must be 2 or less"),
        ({"model": 3}, "config.model must be a group of keys"),
        ({"epochs": "x"}, "config.epochs must be an integer"),
        ({"data": {"nmae": "x"}}, "config.data.nmae is not a key: did you mean name"),
        ({"surprise": 1}, "config.surprise is not a key"),
    ],
)
def test_an_invalid_saved_config_is_called_damaged(change: dict[str, Any], fault: str):
    with pytest.raises(Damaged, match=fault):
        migration.from_json(version_1() | change, models)
    current = migration.to_json(tiny.typed(base.get_config()))
    with pytest.raises(Damaged, match=fault):
        migration.from_json(current | change, models)


def test_a_key_newer_than_the_run_takes_its_default():
    saved = migration.to_json(tiny.typed(base.get_config()))
    del saved["optimizer"]["lookahead_every"], saved["init"], saved["eval"]["tta"]
    assert migration.from_json(saved, models) == tiny.typed(base.get_config())
    del saved["seed"]
    with pytest.raises(Damaged, match="config.seed is missing"):
        migration.from_json(saved, models)
