"""Early stopping and plateau act in the same epoch as their Keras counterparts."""

from typing import Any

import jax
import numpy as np
import pytest
import tiny

from cifar_jax.optim import callbacks


def run(overrides: dict[str, Any], losses: list[float], accuracies: list[float] | None = None):
    """The states after each epoch."""
    config = tiny.typed(tiny.config(overrides))
    options = (config.early_stopping, config.plateau)
    accuracies = accuracies or [0.5] * len(losses)
    update = jax.jit(lambda *arguments: callbacks.update(*options, *arguments))
    state, states = callbacks.init(config.plateau), []
    for epoch, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True), 1):
        state = update(state, np.int32(epoch), np.float32(loss), np.float32(accuracy))
        states.append(state)
    return states


def stopping(**options: Any):
    return {f"early_stopping.{key}": value for key, value in {"enabled": True, **options}.items()}


def plateau(**options: Any):
    return {f"plateau.{key}": value for key, value in {"enabled": True, **options}.items()}


def stop_epoch(
    overrides: dict[str, Any], losses: list[float], accuracies: list[float] | None = None
):
    """The first epoch, counted from 1, after which the run should stop; None if none."""
    states = run(overrides, losses, accuracies)
    stops = [epoch for epoch, state in enumerate(states, 1) if state.should_stop]
    return stops[0] if stops else None


def scales(overrides: dict[str, Any], losses: list[float]):
    return [float(state.learning_rate_scale) for state in run(overrides, losses)]


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_stops_at_the_nth_epoch_without_improvement(patience: int):
    losses = [1.0, 0.9, 0.9, 0.95, 0.91, 0.92]  # the best is epoch 2; a tie is not an improvement
    assert stop_epoch(stopping(patience=patience), losses) == 2 + patience


def test_an_improvement_restarts_the_patience():
    losses = [1.0, 1.1, 1.2, 0.9, 1.0, 1.1, 1.2]
    assert stop_epoch(stopping(patience=3), losses) == 7


def test_the_first_epoch_is_an_improvement():
    assert stop_epoch(stopping(patience=1), [5.0]) is None


def test_less_than_min_delta_does_not_count_as_improvement():
    losses = [1.0, 0.95, 0.91, 0.899, 0.85, 0.81]
    # Compared with the best so far (1.0), not with the previous epoch.
    assert stop_epoch(stopping(patience=3, min_delta=0.1), losses) is None
    assert stop_epoch(stopping(patience=2, min_delta=0.1), losses) == 3


def test_accuracy_improves_when_it_rises():
    accuracies = [0.1, 0.2, 0.3, 0.3, 0.25]
    options = stopping(patience=2, metric="validation_accuracy")
    assert stop_epoch(options, [1.0, 2.0, 3.0, 4.0, 5.0], accuracies) == 5
    assert stop_epoch(options, [5.0, 4.0, 3.0, 2.0, 1.0], accuracies) == 5


def test_monitoring_the_loss_ignores_the_accuracy():
    assert stop_epoch(stopping(patience=2), [1.0, 2.0, 3.0], [0.1, 0.2, 0.3]) == 3


def test_disabled_early_stopping_never_stops():
    assert stop_epoch(stopping(enabled=False, patience=1), [1.0] * 20) is None


def test_ties_go_to_the_earliest_epoch():
    states = run({}, [4.0, 3.0, 2.0, 1.0], [0.5, 0.7, 0.7, 0.6])
    assert [int(state.best_epoch) for state in states] == [1, 2, 2, 2]
    assert states[-1].best_accuracy == np.float32(0.7)


def test_the_best_epoch_has_the_best_accuracy_even_if_the_loss_stops_the_run():
    states = run(stopping(patience=10), [1.0, 2.0, 3.0], [0.1, 0.2, 0.3])
    assert [int(state.best_epoch) for state in states] == [1, 2, 3]


def test_an_accuracy_of_zero_can_be_the_best():
    assert run({}, [1.0], [0.0])[0].best_epoch == 1


def test_plateau_halves_at_the_nth_epoch_without_improvement():
    losses = [1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]  # the best is epoch 2
    expected = [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]
    assert scales(plateau(patience=3), losses) == expected


def test_an_improvement_restarts_the_patience_of_the_plateau():
    losses = [1.0, 1.0, 0.8, 0.8, 0.8]
    assert scales(plateau(patience=2), losses) == [1.0, 1.0, 1.0, 1.0, 0.5]


def test_less_than_min_delta_does_not_count_for_the_plateau():
    losses = [1.0, 0.95, 0.91, 0.85]
    assert scales(plateau(patience=2, min_delta=0.1), losses) == [1.0, 1.0, 0.5, 0.5]
    assert scales(plateau(patience=2, min_delta=0.01), losses) == [1.0] * 4


def test_cooldown_epochs_are_not_counted():
    losses = [1.0] * 8
    without = [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert scales(plateau(patience=2), losses) == without
    # Epochs 4 and 5 are the cooldown, 6 and 7 the next two that count.
    cooled = [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert scales(plateau(patience=2, cooldown=2), losses) == cooled


def test_the_scale_stops_at_min_scale():
    expected = [1.0, 0.5, 0.3, 0.3]
    np.testing.assert_allclose(scales(plateau(patience=1, min_scale=0.3), [1.0] * 4), expected)


def test_a_disabled_plateau_never_scales():
    assert scales(plateau(enabled=False, patience=1), [1.0] * 20) == [1.0] * 20


def test_early_stopping_and_plateau_are_independent():
    options = stopping(patience=4) | plateau(patience=2)
    states = run(options, [1.0] * 5)
    assert [float(state.learning_rate_scale) for state in states] == [1.0, 1.0, 0.5, 0.5, 0.25]
    assert [bool(state.should_stop) for state in states] == [False] * 4 + [True]


def test_an_update_keeps_shapes_and_dtypes_of_the_state():
    # Otherwise the step would be compiled again, and a checkpoint would not fit.
    options = stopping(patience=2) | plateau(patience=2)
    config = tiny.typed(tiny.config(options))
    before = callbacks.init(config.plateau)
    after = jax.eval_shape(
        lambda *arguments: callbacks.update(config.early_stopping, config.plateau, *arguments),
        before, np.int32(1), np.float32(1), np.float32(1),
    )  # fmt: skip
    assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(
        lambda x: (x.shape, x.dtype), after
    )
