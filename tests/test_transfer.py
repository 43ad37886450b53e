"""Runs that start from a pretrained backbone: they probe it or fine-tune it, and are whole runs."""

import json
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from etils import epath
from ml_collections import ConfigDict

from cifar_jax import models
from cifar_jax.config import migration
from cifar_jax.data import augment
from cifar_jax.errors import UserError
from cifar_jax.evaluation import trained
from cifar_jax.export import safetensors_format
from cifar_jax.optim import rules
from cifar_jax.runtime import weights
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.interrupt import Interrupted
from cifar_jax.training import experiment, features, state, steps
from configs import base

ROOT = pathlib.Path(__file__).parent.parent
CHUNK = 500  # images; smaller than in use, so that the digits have several


@pytest.fixture(scope="module", autouse=True)
def little():
    """Caches features in small chunks, and of a network of few blocks."""
    with mock.patch.object(features, "CHUNK", CHUNK), tiny.few_blocks():
        yield


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A directory with the weights of a network before training, as an export has them."""
    directory = tmp_path_factory.mktemp("backbone")
    exp = experiment.build(tiny.typed(digits({})))
    variables = exp.initial_state().variables()
    (directory / files.WEIGHTS).write_bytes(weights.to_bytes(variables))
    return directory


def digits(overrides: dict[str, Any]) -> ConfigDict:
    """A config that trains EfficientNet-Lite on the digits."""
    config = tiny.config({"data.name": "digits", "batch_size": 128, "eval.batch_size": 250})
    config.epochs = 2
    config.model = base.model("efficientnet_lite", dropout=0.0)
    config.update_from_flattened_dict(overrides)
    return config


def probe(backbone: pathlib.Path, cache: pathlib.Path, **overrides: Any) -> ConfigDict:
    """A config that trains a classifier on the features of `backbone`."""
    config = digits({"init.source": str(backbone), "init.skip": ("classifier/.*",), **overrides})
    config.probe = True
    config.data.resize = 40
    config.data.cache_dir = str(cache)
    config.optimizer.learning_rate = 0.01
    return config


@pytest.fixture(scope="module")
def probed(
    backbone: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ConfigDict, pathlib.Path, dict[str, Any]]:
    """A finished probe: its config, workdir and result."""
    config = probe(backbone, tmp_path_factory.mktemp("cache"))
    workdir = tmp_path_factory.mktemp("probe")
    return config, workdir, tiny.train(config, workdir)


@pytest.mark.slow
def test_a_probe_trains_the_classifier_alone_and_tests_the_whole_network(
    probed: tuple[ConfigDict, pathlib.Path, dict[str, Any]], backbone: pathlib.Path
):
    _, workdir, result = probed
    network = trained.load(epath.Path(workdir))
    source = weights.read_flat(epath.Path(backbone / files.WEIGHTS))
    for path, leaf in rules.flatten(jax.device_get(network.variables)).items():
        same = np.array_equal(leaf, source[path])
        assert same == ("backbone/" in path), path
    data = network.dataset()
    whole = network.logits(data.test_images)
    tested = np.load(workdir / files.PREDICTIONS)["logits"]
    np.testing.assert_allclose(whole, tested, atol=1e-4)
    assert result["test_examples"] == len(data.test_labels)
    recorded = json.loads((workdir / files.INIT).read_text())
    assert recorded["file"].endswith(files.WEIGHTS) and len(recorded["sha256"]) == 64


@pytest.mark.slow
def test_another_process_finds_the_features(
    probed: tuple[ConfigDict, pathlib.Path, dict[str, Any]], backbone: pathlib.Path
):
    chunks = sorted(pathlib.Path(probed[0].data.cache_dir, "features").iterdir())
    program = (
        "import sys, test_transfer, tiny; from cifar_jax.training import experiment, features\n"
        "with tiny.few_blocks():\n"
        "    config = test_transfer.probe(*sys.argv[1:])\n"
        "    exp = experiment.build(tiny.typed(config))\n"
        "    maker = features.Maker(exp, exp.initial_state().variables())\n"
        f"    print(maker.path(exp.dataset.train_images[:{CHUNK}]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(backbone), probed[0].data.cache_dir],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert pathlib.Path(done.stdout.splitlines()[-1]) in chunks


@pytest.mark.slow
def test_features_are_computed_once_whatever_the_seed_and_the_split(
    probed: tuple[ConfigDict, pathlib.Path, dict[str, Any]], tmp_path: pathlib.Path
):
    config = probed[0].copy_and_resolve_references()
    chunks = sorted(pathlib.Path(config.data.cache_dir, "features").iterdir())
    assert len(chunks) == 3 + 1  # of 1,437 and 360 images
    config.seed, config.data.validation_fraction, config.epochs = 5, 0.3, 1
    with mock.patch.object(features.Maker, "compute", side_effect=AssertionError):
        tiny.train(config, tmp_path)
    assert sorted(pathlib.Path(config.data.cache_dir, "features").iterdir()) == chunks


@pytest.mark.slow
def test_damaged_and_missing_features_are_computed_again(
    probed: tuple[ConfigDict, pathlib.Path, dict[str, Any]],
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
):
    config, _, result = probed
    config = config.copy_and_resolve_references()
    config.data.cache_dir = str(tmp_path / "cache")
    shutil.copytree(probed[0].data.cache_dir, config.data.cache_dir)
    first, second, *_ = sorted((tmp_path / "cache" / "features").iterdir())
    first.write_bytes(first.read_bytes()[:-100])
    second.unlink()
    with caplog.at_level(logging.WARNING):
        again = tiny.train(config, tmp_path / "run")
    assert sum("ignoring the damaged cache" in line for line in caplog.messages) == 1
    assert again["test_loss"] == result["test_loss"]
    assert second.exists()


@pytest.mark.slow
def test_an_interrupted_probe_resumes_bit_for_bit(
    probed: tuple[ConfigDict, pathlib.Path, dict[str, Any]], tmp_path: pathlib.Path
):
    config, _, result = probed
    with tiny.stop_at(4), pytest.raises(Interrupted):
        tiny.train(config, tmp_path)
    again = tiny.train(config, tmp_path)
    assert again["test_loss"] == result["test_loss"]


@pytest.mark.slow
def test_a_signal_between_two_chunks_stops_the_run_and_keeps_the_first(
    backbone: pathlib.Path, tmp_path: pathlib.Path
):
    compute = features.Maker.compute

    def stopped(*arguments: Any) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGTERM)
        return compute(*arguments)

    config = probe(backbone, tmp_path / "cache")
    with mock.patch.object(features.Maker, "compute", stopped), pytest.raises(Interrupted):
        tiny.train(config, tmp_path / "run")
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"data.resize": 48},
        {"model.origin": "timm"},
        {"dtype": "bfloat16"},
        {"init.source": "other"},
        {"model.norm_momentum": 0.5, "model.dropout": 0.5, "seed": 3, "eval.batch_size": 40},
    ],
)
def test_other_features_have_other_names_and_the_same_have_the_same(
    probed: tuple[ConfigDict, pathlib.Path, dict[str, Any]],
    tmp_path: pathlib.Path,
    change: dict[str, Any],
):
    config = probed[0].copy_and_resolve_references()
    if "init.source" in change:
        flat = weights.read_flat(epath.Path(config.init.source) / files.WEIGHTS)
        flat["params/backbone/stem/norm/bias"] = flat["params/backbone/stem/norm/bias"] + 1
        (tmp_path / files.WEIGHTS).write_bytes(weights.to_bytes(rules.unflatten(flat)))
        change = {"init.source": str(tmp_path)}
    names = []
    for overrides in ({}, change):
        config.update_from_flattened_dict(overrides)
        exp = experiment.build(tiny.typed(config))
        maker = features.Maker(exp, exp.initial_state().variables())
        names.append(maker.path(exp.dataset.test_images))
    assert (names[0] == names[1]) == ("seed" in change)


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        ({"augment.flip": True}, "config.augment.flip does not apply to config.probe"),
        ({"augment.mixup": 0.2}, "config.augment.mixup does not apply to config.probe"),
        ({"eval.tta": "flip"}, "config.eval.tta does not apply to config.probe"),
        ({"data.standardize": True}, "config.data.standardize is not for efficientnet_lite"),
    ],
)
def test_keys_that_contradict_a_probe_are_refused(
    tmp_path: pathlib.Path, overrides: dict[str, Any], fault: str
):
    with pytest.raises(UserError, match=fault):
        tiny.typed(probe(tmp_path, tmp_path, **overrides))


def test_a_network_without_a_backbone_cannot_be_probed():
    with pytest.raises(UserError, match="config.probe needs a network with a backbone"):
        tiny.build(tiny.config({"probe": True}))


# ---------------------------------------------------------------------------- fine-tuning
@pytest.mark.slow
def test_a_fine_tuned_network_takes_pictures_at_its_own_resolution(
    backbone: pathlib.Path, tmp_path: pathlib.Path
):
    config = digits({"init.source": str(backbone), "data.resize": 48, "epochs": 1})
    config.init.skip = ("classifier/.*",)
    config.model.frozen_blocks = 4
    config.data.train_images = 256
    result = tiny.train(config, tmp_path)
    assert sum(result["class_counts"]["train"].values()) == 256
    network = trained.load(epath.Path(tmp_path))
    assert network.image_shape == (48, 48, 3) and network.data_shape == (32, 32, 3)
    small = network.dataset().test_images[:4]
    large = np.asarray(augment.resize(jnp.asarray(small, jnp.float32), 48)).round().clip(0, 255)
    # Rounding to whole numbers is the only difference.
    np.testing.assert_allclose(
        network.logits(large.astype(np.uint8)), network.logits(small), atol=0.05
    )
    safetensors_format.write(network, epath.Path(tmp_path / "export"))
    exported = trained.load(epath.Path(tmp_path / "export"))
    np.testing.assert_array_equal(exported.logits(small), network.logits(small))


def test_resizing_keeps_the_mean_and_is_none_at_the_same_size():
    images = jnp.asarray(np.random.default_rng(0).random((2, 32, 32, 3)), jnp.float32)
    assert augment.resize(images, 32) is images
    for side in (16, 96):
        resized = augment.resize(images, side)
        assert resized.shape == (2, side, side, 3)
        np.testing.assert_allclose(resized.mean((1, 2)), images.mean((1, 2)), atol=0.01)


def test_any_network_can_be_resized_and_keeps_its_paths():
    config = tiny.typed(tiny.config())
    plain, resized = (models.build(config.model, (8, 8, 3), 4, resize=side) for side in (0, 16))
    trees = [
        rules.flatten(jax.eval_shape(lambda m=m: state.init_variables(m, 0, (8, 8, 3))))
        for m in (plain, resized)
    ]
    assert trees[0].keys() == trees[1].keys()
    shapes = [tree["params/dense_0/kernel"].shape for tree in trees]
    assert shapes == [(8 * 8 * 3, 8), (16 * 16 * 3, 8)]


def test_a_whitening_stem_cannot_see_resized_images():
    config = tiny.config({"model.whitening": True, "data.resize": 16})
    with pytest.raises(UserError, match="does not go with a whitening stem"):
        tiny.build(config)


def test_configs_without_the_new_keys_still_load():
    saved = migration.to_json(tiny.typed(tiny.config()))
    for section, name in (("data", "resize"), ("data", "train_images"), ("init", "source")):
        del saved[section][name]
    del saved["probe"]
    assert migration.from_json(saved, models) == tiny.typed(tiny.config())


def test_features_are_told_apart_from_images():
    assert steps.are_features(np.zeros((3, 4))) and not steps.are_features(np.zeros((3, 8, 8, 3)))
