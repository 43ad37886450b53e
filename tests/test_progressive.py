"""Training images of growing size: which epoch has which, and what trains on them."""

import itertools
import pathlib
import types
from typing import Any
from unittest import mock

import command_line
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from cifar_jax.data import augment, sources
from cifar_jax.errors import UserError
from cifar_jax.models.network import Network
from cifar_jax.runtime.interrupt import Interrupted
from cifar_jax.search import timing
from cifar_jax.training import lanes, progressive
from configs import base

SPEEDRUN = {"model": base.model("speedrun", widths=(4, 4), whitening=True)}


def config(sides: tuple[int, ...], **overrides: Any):
    return tiny.config({**SPEEDRUN, "augment.sides": sides, **overrides})


@pytest.mark.parametrize(
    ("sides", "epochs", "expected"),
    [
        ((), 3, [0, 0, 0]),
        ((6,), 3, [6, 6, 6]),
        ((5, 6, 8), 3, [5, 6, 8]),
        ((5, 6, 8), 7, [5, 5, 5, 6, 6, 8, 8]),
        ((8, 5), 5, [8, 8, 8, 5, 5]),
        ((5, 5, 5, 8), 8, [5] * 6 + [8] * 2),
    ],
)
def test_each_side_has_an_equal_part_of_the_epochs(
    sides: tuple[int, ...], epochs: int, expected: list[int]
):
    assert [progressive.side(sides, epochs, epoch) for epoch in range(epochs)] == expected


def test_epochs_take_time_as_their_images_have_pixels():
    assert progressive.costs((5, 6, 8), 4) == [25, 25, 36, 64]
    assert progressive.costs((), 2) == [1, 1]


def test_a_step_trains_on_resized_images_with_the_same_parameters():
    exp = tiny.build(config((6, 8)))
    images = jnp.asarray(np.random.default_rng(0).random((4, 8, 8, 3)), jnp.float32)

    def logits(model: Network, images: jax.Array) -> np.ndarray:
        return np.asarray(model.apply(exp.initial_state().variables(), images, train=False))

    small, full = (logits(exp.train_step(epoch).model, images) for epoch in (0, 3))
    by_hand = logits(exp.model, augment.resize(images, 6))
    np.testing.assert_allclose(small, by_hand, atol=1e-7)
    np.testing.assert_array_equal(full, logits(exp.model, images))
    assert np.abs(small - full).max() > 1e-5


def test_epochs_with_one_size_share_a_program():
    lane = lanes.make_lanes([tiny.build(config((6, 6, 8, 6)))])
    first, second, third, fourth = (lane.dispatch(epoch) for epoch in range(4))
    assert first is second is fourth and first is not third


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_run_that_stops_at_any_size_resumes_bit_for_bit(tmp_path: pathlib.Path, seeds: int):
    growing = config((6, 8), epochs=2, seeds=seeds)
    growing.eval.tta = "flip"
    with mock.patch.object(sources, "load", side_effect=lambda *_: tiny.dataset()):
        tiny.train(growing, tmp_path / "whole")
        # Of the two programs, each makes three steps; both get the signal in their second.
        for _ in range(2):
            with tiny.stop_at(2), pytest.raises(Interrupted):
                tiny.train(growing, tmp_path / "stopped")
        tiny.train(growing, tmp_path / "stopped")
    runs = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.npz")]
    assert len(runs) == seeds
    for run in runs:
        whole, stopped = tmp_path / "whole" / run, tmp_path / "stopped" / run
        assert whole.read_bytes() == stopped.read_bytes()
        assert command_line.rows(whole.parent) == command_line.rows(stopped.parent)


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        ({"epochs": 2, "augment.sides": (5, 6, 8)}, "3 sides for config.epochs=2: use at most"),
        ({"augment.sides": (0, 8)}, "config.augment.sides"),
        ({"augment.sides": (4, 8)}, "need images of at least 5 pixels, not 4"),
        ({"model": base.model("cnn", blocks=(), dense=(8,))}, "dense_0/kernel has the shape"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(overrides: dict[str, Any], fault: str):
    with pytest.raises(UserError, match=fault):
        tiny.build(config((6, 8), **overrides))


def test_a_search_measures_the_steps_of_each_size(monkeypatch: pytest.MonkeyPatch):
    known = tiny.typed(config((6, 8, 6), epochs=3))
    seconds = (n**2 for n in itertools.count())  # each step takes four seconds more than the last
    clock = types.SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr(timing, "time", clock)
    found = timing.measure(known, tiny.dataset())
    # Medians of the five steps after one that compiles: the fourth and the tenth of all steps.
    mean = (13 + 37 + 13) / 3
    assert found["step_ms"] == pytest.approx(1000 * mean)
    assert found["minutes"] == pytest.approx(mean * 3 * tiny.STEPS_PER_EPOCH / 60)
