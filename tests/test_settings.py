"""A run depends on its config alone: JAX settings made elsewhere change nothing."""

import contextlib
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import command_line
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from etils import epath
from ml_collections import ConfigDict

import cifar_jax
from cifar_jax.evaluation import saliency
from cifar_jax.runtime import environment, settings
from cifar_jax.training import test as evaluate

# Each of these alone changes the numbers or makes a correct program fail.
CHANGED = {
    "jax_enable_x64": True,
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_default_matmul_precision": "bfloat16",
    "jax_softmax_custom_jvp": True,
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_disable_jit": True,
    "jax_transfer_guard": "disallow",
}


@contextlib.contextmanager
def changed(values: dict[str, Any]) -> Iterator[None]:
    """Sets JAX as a program might do before it calls this package."""
    previous = {name: jax.config.values[name] for name in values}
    try:
        for name, value in values.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in previous.items():
            jax.config.update(name, value)


def test_every_setting_exists_in_jax_and_has_its_default():
    for name, value in settings.PINNED.items():
        assert jax.config.values[name] in (value, None), name


def test_settings_are_pinned_inside_a_function_and_restored_after_it():
    @settings.pinned()
    def inside():
        row = jnp.arange(3.0) + jnp.ones((2, 3), jnp.int32)  # two promotions
        return row.dtype, str(jax.random.key(0).dtype), jnp.log(-1.0)

    with changed(CHANGED):
        dtype, key, nan = inside()
        assert jax.config.values["jax_enable_x64"] is True
    assert (dtype, key) == (jnp.float32, "key<fry>") and np.isnan(nan)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[epath.Path, dict]:
    workdir = epath.Path(tmp_path_factory.mktemp("settings"))
    return workdir, tiny.train(config(), workdir)


def config() -> ConfigDict:
    trained = command_line.tiny_config()
    trained.epochs = 1
    trained.augment.mixup = 0.2
    return trained


@pytest.mark.slow
@pytest.mark.usefixtures("two_devices")
def test_a_run_ignores_the_settings_of_the_calling_program(
    run: tuple[epath.Path, dict], tmp_path: pathlib.Path
):
    with changed(CHANGED):
        result = tiny.train(config(), tmp_path)
        again = evaluate.run(epath.Path(tmp_path))
    expected = command_line.without_times(run[1])
    assert command_line.without_times(result) == expected == command_line.without_times(again)
    assert command_line.rows(tmp_path) == command_line.rows(run[0])


@pytest.mark.slow
def test_a_loaded_network_ignores_the_settings_of_the_calling_program(run: tuple[epath.Path, dict]):
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)

    def answers():
        network = cifar_jax.load(str(run[0]))
        return network.predict(images), saliency.make(network)(images[0], 1)

    expected = answers()
    with changed(CHANGED):
        found = answers()
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, other)


def test_the_program_removes_these_variables_from_its_environment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    for name in settings.IGNORED:
        monkeypatch.setenv(name, "nonsense")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    with caplog.at_level(logging.WARNING):
        settings.ignore_environment()
    assert not set(settings.IGNORED) & set(os.environ)
    assert os.environ["JAX_PLATFORMS"] == "cpu"
    assert len(caplog.messages) == 1 and "JAX_ENABLE_X64" in caplog.messages[0]


@pytest.mark.slow
def test_a_run_ignores_these_variables(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """Even with values that JAX rejects: they are removed before JAX is imported."""
    arguments = (command_line.TINY, "--config.epochs=1")
    plain, disturbed = tmp_path / "plain", tmp_path / "disturbed"
    status, output = command_line.run(*arguments, f"--workdir={plain}")
    assert status == 0, output
    values = {"PRNG_IMPL": "rbg", "PROMOTION": "strict", "OFFSET": "7", "GUARD": "disallow"}
    for name in settings.IGNORED:
        fits = [value for end, value in values.items() if name.endswith(end)]
        monkeypatch.setenv(name, fits[0] if fits else "1")
    status, output = command_line.run(*arguments, f"--workdir={disturbed}")
    assert status == 0, output
    assert output.startswith("ignoring JAX_ENABLE_X64")
    assert command_line.rows(disturbed) == command_line.rows(plain)


# ---------------------------------------------------------------------------- environment
@pytest.mark.slow
def test_resuming_in_a_different_environment_says_what_differs(
    run: tuple[epath.Path, dict],
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    workdir = epath.Path(tmp_path)
    environment.record(workdir, "first", 0)
    with caplog.at_level(logging.WARNING):
        environment.record(workdir, "second", 5)
        assert not caplog.messages
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
        monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
        environment.record(workdir, "third", 7)
    (line,) = caplog.messages
    assert "up to rounding but not bit for bit" in line
    assert "cores: " in line and ", now 1" in line and "--xla_cpu_enable_fast_math" in line
    caplog.clear()
    environment.record(workdir, "from the beginning", 0)
    assert not caplog.messages  # a new run, not a resumed one
