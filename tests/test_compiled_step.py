"""The compiled train step never waits for the host, and devices exchange little."""

import os
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import tiny

from cifar_jax.runtime import compilation
from cifar_jax.training import forward, lanes, steps
from configs import base

# S(5) is host memory.
HOST_TRANSFER = r' infeed| outfeed| send\(| recv\(|custom_call_target="[^"]*callback|S\(5\)'


def compiled_step(devices: int, size: int = 1, **overrides: Any) -> str:
    experiment = tiny.build(tiny.config({"batch_size": 16, **overrides}), devices)
    lane, state = lanes.make_lanes([experiment]), experiment.abstract_state()
    return lane.dispatch(0).compile(state, lane.arrays, lane.order(0), size).as_text()  # pyright: ignore[reportFunctionMemberAccess]


def convolutional(**more: Any) -> dict:
    """Overrides for two convolution blocks with batch norm, pooling, dropout and augmentations."""
    block = base.conv_block(80, batch_norm=True, pool=2, dropout=0.2, l2=0.01)
    augment = {"augment.flip": True, "augment.crop_padding": 1, "augment.cutout": 2}
    return {"model.blocks": (block, block), **augment, **more}


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("size", [1, 3])
def test_no_step_waits_for_the_host(devices: int, size: int):
    overrides = (
        {} if size > 1 else convolutional()
    )  # XLA compiles convolutions in a loop to very slow code
    text = compiled_step(devices, size, **overrides)
    assert not re.search(HOST_TRANSFER, text)
    assert (" while(" in text) or size == 1


def test_a_wait_for_the_host_would_be_detected():
    watched = jax.jit(lambda x: jax.debug.callback(print, x) or x + 1)
    assert re.search(HOST_TRANSFER, watched.lower(1.0).compile().as_text())  # pyright: ignore[reportArgumentType, reportCallIssue]


@pytest.mark.slow
def test_the_state_is_updated_in_place():
    text = compiled_step(1, **convolutional())
    aliases = text[: text.index("entry_computation_layout")]
    experiment = tiny.build(tiny.config(convolutional()))
    leaves = jax.tree.leaves(experiment.abstract_state())
    assert aliases.count("may-alias") + aliases.count("must-alias") >= len(leaves) - 1


@pytest.mark.slow
def test_eight_devices_exchange_gradients_and_statistics_but_no_activations():
    text = compiled_step(8, **convolutional())
    experiment = tiny.build(tiny.config(convolutional()))
    params = jax.tree.leaves(experiment.abstract_state().params)
    largest = max(leaf.size for leaf in params)
    assert "all-to-all" not in text and "collective-permute" not in text
    gathered = re.findall(r"= \w+\[([\d,]*)\]\S* all-gather\(", text)
    assert gathered == []
    reduced = re.findall(r"= (\(?[^=]*?) all-reduce(?:-start)?\(", text)
    sizes = [
        jnp.prod(jnp.array([int(n) for n in shape.split(",") if n] or [1])).item()
        for shapes in reduced
        for shape in re.findall(r"\[([\d,]*)\]", shapes)
    ]
    # At most one for each gradient, two per batch norm in the forward and in the backward pass,
    # and the scalars of the loss: no array is larger than a parameter.
    assert max(sizes) <= largest
    assert len(reduced) <= len(params) + 2 * 2 * 2 + 4


def test_evaluation_compiles_once_for_any_number_of_images():
    experiment = tiny.build(tiny.config())
    shapes = set()
    made = steps.make_eval_step(experiment.model, experiment.statistics, experiment.mesh)

    def eval_step(variables: Any, images: jax.Array, batch: jax.Array):
        shapes.add(batch.shape)
        return made(variables, images, batch)

    variables = experiment.initial_state().variables()
    images = experiment.put(tiny.images_and_labels(20)[0])
    logits = forward.predict(eval_step, variables, images, batch_size=8)
    assert logits.shape == (20, 4)  # the third batch is padded
    assert shapes == {(8,)}


def test_compiled_programs_are_cached_in_the_set_or_the_default_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
    former = (
        jax.config.jax_compilation_cache_dir,  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.jax_persistent_cache_min_compile_time_secs,  # pyright: ignore[reportAttributeAccessIssue]
    )
    try:
        compilation.set_up()
        assert jax.config.jax_compilation_cache_dir == former[0] is not None  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_compilation_cache_dir", None)
        compilation.set_up()
        assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / "cifar_jax" / "xla-"))  # pyright: ignore[reportAttributeAccessIssue]
    finally:
        jax.config.update("jax_compilation_cache_dir", former[0])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", former[1])
