"""The four networks match Keras: the same logits, loss, L2 penalty and training steps.

The Keras networks are written by hand from the tables of the report, not derived from our configs,
so the two sides agree only if both match the report.

Training is compared without augmentation and dropout, whose random numbers differ. What remains is
rounding, which is not always small: where two numbers are equal up to rounding, ReLU and
max-pooling may send the gradient different ways, and Adam takes a full step even for a tiny
gradient. Therefore the test uses small batches of noise, and makes three choices:

- `CHOSEN_SEED` for the images. With it, every parameter stays within the tolerance, even if each
  initial weight is changed by up to 1e-6 of its value, much more than rounding (docs/log.md). Of
  the seeds 0 to 15, this holds on one CPU for 15 with models 1 and 2, 12 with model 3 and 10 with
  the final model.
- `OTHER_SEEDS` are simply the first ones. With all 16 seeds, up to 0.2 % of the parameters were
  outside the tolerance on jax 0.10; 1 % is allowed for most of them. On jax 0.12, a tie sent 9 % of
  the parameters another way with seed 2.
- The learning rate of the final model: at 1e-3, the first steps with batch norm amplify any
  difference.
"""

import os
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # read when keras is imported; tests/conftest.py sets it too

import functools
import importlib

import jax
import keras
import numpy as np
import optax
import pytest
import tiny
from keras import layers

from cifar_jax.config.schema import Config
from cifar_jax.data import sources
from cifar_jax.optim import chain
from cifar_jax.training import experiment, lanes, state

pytestmark = pytest.mark.slow

NAMES = ("model1", "model2", "model3", "final")
IMAGE_SHAPE = (32, 32, 3)
STEPS, BATCH_SIZE = 5, 8
CHOSEN_SEED, OTHER_SEEDS = 12, (0, 1, 2)
LEARNING_RATE = {"model1": 1e-3, "model2": 1e-3, "model3": 1e-3, "final": 1e-5}
# For every parameter and batch statistic after five steps, each step up to one learning rate.
TOLERANCE = {"model1": 1e-4, "model2": 1e-4, "model3": 1e-4, "final": 5e-6}


def l2():
    return keras.regularizers.l2(0.001)


def keras_model1():
    return [
        layers.Conv2D(32, (3, 3), activation="relu"),
        layers.MaxPooling2D((2, 2)),
        layers.Conv2D(64, (3, 3), activation="relu"),
        layers.MaxPooling2D((2, 2)),
        layers.Conv2D(64, (3, 3), activation="relu"),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(10),
    ]


def keras_model2():
    return [
        layers.Conv2D(32, (3, 3), activation="relu"),
        layers.MaxPooling2D((2, 2)),
        layers.Conv2D(64, (3, 3), activation="relu"),
        layers.MaxPooling2D((2, 2)),
        layers.Conv2D(64, (3, 3), activation="relu"),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dropout(0.5),
        layers.Dense(10),
    ]


def keras_model3():
    return [
        layers.Conv2D(64, (3, 3), activation="relu", padding="same", kernel_regularizer=l2()),
        layers.MaxPooling2D((2, 2)),
        layers.Conv2D(128, (3, 3), activation="relu", padding="same", kernel_regularizer=l2()),
        layers.MaxPooling2D((2, 2)),
        layers.Conv2D(256, (3, 3), activation="relu", padding="same", kernel_regularizer=l2()),
        layers.MaxPooling2D((2, 2)),
        layers.Conv2D(256, (3, 3), activation="relu", padding="same", kernel_regularizer=l2()),
        layers.Flatten(),
        layers.Dense(128, activation="relu", kernel_regularizer=l2()),
        layers.Dense(64, activation="relu", kernel_regularizer=l2()),
        layers.Dense(10),
    ]


def keras_final():
    return [
        layers.Conv2D(64, (3, 3), activation="relu", padding="same", kernel_regularizer=l2()),
        layers.BatchNormalization(),
        layers.MaxPooling2D((2, 2)),
        layers.Dropout(0.2),
        layers.Conv2D(128, (3, 3), activation="relu", padding="same", kernel_regularizer=l2()),
        layers.BatchNormalization(),
        layers.MaxPooling2D((2, 2)),
        layers.Dropout(0.2),
        layers.Conv2D(256, (3, 3), activation="relu", padding="same", kernel_regularizer=l2()),
        layers.BatchNormalization(),
        layers.MaxPooling2D((2, 2)),
        layers.Dropout(0.2),
        layers.Conv2D(512, (3, 3), activation="relu", padding="same", kernel_regularizer=l2()),
        layers.BatchNormalization(),
        layers.MaxPooling2D((2, 2)),
        layers.Dropout(0.5),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dense(64, activation="relu"),
        layers.Dense(10),
    ]


KERAS = {
    "model1": keras_model1,
    "model2": keras_model2,
    "model3": keras_model3,
    "final": keras_final,
}


def build_keras(name: str):
    """The network of the report, compiled as in the report.

    The softmax is part of the loss, so that logits can be compared. The flip is left out: here it
    is not a layer but a part of the train step.
    """
    model = keras.Sequential([keras.Input(IMAGE_SHAPE), *KERAS[name]()])
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE[name]),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    return model


def our_config(name: str) -> Config:
    """Our config without augmentation, dropout and validation images."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.optimizer.learning_rate = LEARNING_RATE[name]
    config.augment.flip = False
    config.model.dense_dropout = 0.0
    for block in config.model.blocks:
        block.dropout = 0.0
    config.data.validation_fraction = 0.0
    config.plateau.enabled = config.early_stopping.enabled = False
    config.batch_size = BATCH_SIZE
    return tiny.typed(config)


def experiment_of(name: str):
    """Our experiment, on the data that both sides train on."""
    images, labels = data()
    names = tuple("abcdefghij")
    dataset = sources.Dataset("noise", images, labels, images, labels, names, "made here")
    return experiment.build(our_config(name), dataset)


@functools.cache
def initial_variables(name: str):
    """Our initial parameters and batch statistics, on the host: the train step donates its own."""
    model, seed = experiment_of(name).model, our_config(name).seed
    create = functools.partial(state.init_variables, model, seed, IMAGE_SHAPE)
    return jax.device_get(jax.jit(create)())


def as_keras_weights(variables: dict[str, dict[str, dict[str, np.ndarray]]]):
    """Our variables as the list that `keras.Model.set_weights` takes, layer by layer."""
    params, batch_stats = variables["params"], variables["batch_stats"]
    blocks = sum(layer.startswith("conv2d_") for layer in params)
    dense = sum(layer.startswith("dense_") for layer in params)
    weights = []
    for i in range(blocks):
        weights += [params[f"conv2d_{i}"][leaf] for leaf in ("kernel", "bias")]
        norm = f"batch_normalization_{i}"
        if norm in params:
            weights += [params[norm][leaf] for leaf in ("scale", "bias")]
            weights += [batch_stats[norm][leaf] for leaf in ("mean", "var")]
    for layer in [*(f"dense_{i}" for i in range(dense)), "head"]:
        weights += [params[layer][leaf] for leaf in ("kernel", "bias")]
    assert len(weights) == len(jax.tree.leaves(variables)), "an array was left out"
    return weights


def randomized(variables: dict[str, dict[str, dict[str, np.ndarray]]]):
    """The variables with random biases, scales and statistics instead of 0 or 1, to test them."""
    rng = np.random.default_rng(1)

    def perturb(path: tuple[Any, Any, Any], leaf: np.ndarray):
        if path[-1].key == "kernel":
            return leaf
        noise = rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32)
        return leaf + noise * (1 if path[-1].key == "var" else rng.choice([-1, 1], leaf.shape))

    return jax.tree_util.tree_map_with_path(perturb, variables)


@functools.cache
def data(seed: int = CHOSEN_SEED):
    """uint8 images and int32 labels for `STEPS` batches, taken in order."""
    rng = np.random.default_rng(seed)
    size = STEPS * BATCH_SIZE
    labels = rng.integers(0, 10, size, np.int32)
    return rng.integers(0, 256, (size, *IMAGE_SHAPE), np.uint8), labels


def keras_batches(seed: int = CHOSEN_SEED):
    images, labels = data(seed)
    pixels, targets = images.astype(np.float32) / 255, np.eye(10, dtype=np.float32)[labels]
    for first in range(0, len(labels), BATCH_SIZE):
        batch = slice(first, first + BATCH_SIZE)
        yield pixels[batch], targets[batch]


@functools.cache
def train_keras(name: str):
    """Seed of the images -> weights after `STEPS` steps from our initial ones, and mean loss.

    The loss is the one that Keras prints, including the L2 penalty.
    """
    model = build_keras(name)
    for layer in model.layers:
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.0
    model.optimizer.build(model.trainable_variables)
    moments = [v for v in model.optimizer.variables if not v.path.endswith("learning_rate")]
    results = {}
    for seed in (CHOSEN_SEED, *OTHER_SEEDS):
        model.set_weights(as_keras_weights(initial_variables(name)))
        for moment in moments:  # and the step counter
            moment.assign(np.zeros(moment.shape, moment.dtype))
        # train_on_batch returns the loss of its batch, L2 penalty included.
        objectives = [model.train_on_batch(*batch) for batch in keras_batches(seed)]
        # Not get_weights(): it converts variables in a way that NumPy has deprecated.
        weights = [jax.device_get(weight.value) for weight in model.weights]
        results[seed] = weights, np.mean(objectives)
    return results


def train_ours(name: str, seeds: tuple[int, ...] = (CHOSEN_SEED,)):
    """The same with our train step, on all devices."""
    order = np.arange(STEPS * BATCH_SIZE, dtype=np.int32).reshape(STEPS, BATCH_SIZE)
    exp = experiment_of(name)
    lane, results = lanes.make_lanes([exp]), {}
    for seed in seeds:
        train_state, arrays = exp.initial_state(), exp.put(data(seed))
        for _ in range(STEPS):
            train_state, sums = lane.dispatch(0)(train_state, arrays, exp.put(order), 1)
        weights = as_keras_weights(jax.device_get(train_state.variables()))
        results[seed] = weights, float(sums.objective) / STEPS  # pyright: ignore[reportPossiblyUnboundVariable]
    return results


def differences(weights: list[np.ndarray], others: list[np.ndarray]):
    """The absolute differences of all parameters and statistics, in one flat array."""
    pairs = zip(weights, others, strict=True)
    return np.concatenate([np.abs(ours - theirs).ravel() for ours, theirs in pairs])


@pytest.mark.parametrize("name", NAMES)
def test_logits_loss_and_penalty_match_keras(name: str):
    exp = experiment_of(name)
    model, variables = exp.model, randomized(initial_variables(name))
    pixels, targets = next(keras_batches())
    logits = jax.jit(functools.partial(model.apply, train=False))(variables, pixels)
    loss = optax.softmax_cross_entropy(logits, targets).mean()
    penalty = exp.table.penalty(variables["params"])

    theirs = build_keras(name)
    theirs.set_weights(as_keras_weights(variables))
    keras_logits = theirs.predict_on_batch(pixels)
    np.testing.assert_allclose(logits, keras_logits, rtol=0, atol=1e-4)
    np.testing.assert_allclose(penalty, sum(theirs.losses), rtol=1e-5)
    assert (penalty > 0) == (name in ("model3", "final"))
    objective = theirs.compute_loss(y=targets, y_pred=keras_logits)
    np.testing.assert_allclose(loss + penalty, objective, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_five_training_steps_match_keras(name: str):
    ours, theirs = train_ours(name, (CHOSEN_SEED, *OTHER_SEEDS)), train_keras(name)
    before = as_keras_weights(initial_variables(name))
    shares = {}
    for seed, (weights, objective) in ours.items():
        keras_weights, keras_objective = theirs[seed]
        # Each array has moved much more than the tolerance, or the test would prove little.
        for after, initial in zip(keras_weights, before, strict=True):
            assert np.abs(after - initial).max() > 2 * LEARNING_RATE[name]
        far = differences(weights, keras_weights) > TOLERANCE[name]
        shares[seed] = far.mean()
        if far.mean() <= 0.01:
            assert objective == pytest.approx(keras_objective, rel=5e-5 if far.any() else 1e-5)
    assert shares.pop(CHOSEN_SEED) == 0
    assert np.median(list(shares.values())) <= 0.01, shares


def test_the_comparison_detects_the_adam_of_optax(monkeypatch: pytest.MonkeyPatch):
    # They differ only in where the epsilon of 1e-7 is added.
    monkeypatch.setattr(chain, "scale_by_keras_adam", optax.scale_by_adam)
    weights, _ = train_ours("model1")[CHOSEN_SEED]
    found = differences(weights, train_keras("model1")[CHOSEN_SEED][0])
    assert found.max() > 10 * TOLERANCE["model1"]
    # The limit for the other seeds would reveal the difference, too.
    assert np.mean(found > TOLERANCE["model1"]) > 0.01
