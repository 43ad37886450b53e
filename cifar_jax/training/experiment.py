"""What every mode sets up from a config: data, split, mesh, network, optimizer, state."""

import dataclasses
import functools
import logging
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cifar_jax import models, terminal
from cifar_jax.data import augment, batches, sources, splits
from cifar_jax.errors import UserError
from cifar_jax.models import initializers, summary
from cifar_jax.optim import chain as optim
from cifar_jax.runtime import compilation, sharding
from cifar_jax.training import state, steps

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config made concrete. Images are uint8 `[N, H, W, C]` and labels int32 `[N]`, on the host:
    `put` brings what is needed to the devices."""

    config: ConfigDict
    dataset: sources.Dataset
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    mesh: Mesh
    model: nn.Module
    l2: Any  # like the parameters: the L2 weight of each
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    statistics: steps.Statistics
    steps_per_epoch: int
    stem: np.ndarray | None  # the kernel that whitens, where there is one

    @property
    def test(self) -> tuple[np.ndarray, np.ndarray]:
        return self.dataset.test_images, self.dataset.test_labels

    def put(self, tree: Any) -> Any:
        """The tree's arrays, whole on every device."""
        return jax.device_put(tree, sharding.replicated(self.mesh))

    def abstract_state(self) -> state.TrainState:
        """Shapes, dtypes and shardings of the train state."""
        return state.abstract(
            self.config,
            self.model,
            self.optimizer,
            self.dataset.train_images.shape[1:],
            sharding.replicated(self.mesh),
        )

    def initial_state(self) -> state.TrainState:
        """The train state before the first step, on the devices."""
        shape = self.dataset.train_images.shape[1:]
        create = compilation.jit(
            lambda: state.create(self.config, self.model, self.optimizer, shape, self.stem),
            out_shardings=sharding.replicated(self.mesh),
        )
        return create()

    def epoch_order(self, epoch: int) -> jax.Array:
        """`[steps_per_epoch, batch_size]` int32: the batches of an epoch (from 0), on devices."""
        return self._epoch_order(epoch)

    @functools.cached_property
    def _epoch_order(self):
        key = jax.random.fold_in(jax.random.key(self.config.seed), 1)
        size, batch_size = len(self.train[1]), self.config.batch_size
        return compilation.jit(
            lambda epoch: batches.epoch_order(key, epoch, size, batch_size),
            out_shardings=sharding.replicated(self.mesh),
        )

    def describe(self, train_state: state.TrainState) -> str:
        """What is trained on what, and from where on, in some lines for a person."""
        shape = self.dataset.train_images.shape[1:]
        variables = {"params": train_state.params, "batch_stats": train_state.batch_stats}
        rows, added = summary.layers(self.model, shape), augment.names(self.config)
        lines = [summary.table(rows, variables, train_state.opt_state, added, shape)]
        for part, counts in self.class_counts().items():
            each = ", ".join(f"{terminal.label(name)} {n:,}" for name, n in counts.items())
            lines.append(f"{part}: {sum(counts.values()):,} images ({each})")
        kind = self.mesh.devices.flat[0].device_kind
        lines.append(f"{self.mesh.size} x {kind}, {self.steps_per_epoch} steps an epoch")
        step = int(train_state.step)
        if step:
            lines.append(f"resumed at step {step}, epoch {step // self.steps_per_epoch + 1}")
        return "\n".join(lines)

    def describe_data(self) -> dict[str, Any]:
        """What a network needs to know of its data, JSON-ready: the content of `data.json`."""
        mean, std = (None if s is None else s.tolist() for s in self.statistics)
        return {
            "name": self.dataset.name,
            **self.dataset.description,
            "mean": mean,
            "std": std,
        }

    def class_counts(self) -> dict[str, dict[str, int]]:
        """Split -> class name -> number of images."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        classes = self.dataset.class_names
        return {part: splits.class_counts(labels, classes) for part, (_, labels) in parts.items()}


def build(config: ConfigDict, dataset: sources.Dataset | None = None) -> Experiment:
    """Loads the data and builds everything a run of a validated config needs.

    Args:
      dataset: that of the config, where it is loaded already.

    Raises:
      UserError: the data cannot be had, or does not fit the config.
    """
    mesh = sharding.make_mesh()
    dataset = dataset or sources.load(config.data)
    images, labels = dataset.train_images, dataset.train_labels
    _check_augmentation(config, images.shape[1:])
    train, validation = splits.split(
        labels, config.data.validation_fraction, config.seed, config.data.stratified
    )
    if config.batch_size > len(train):
        raise UserError(
            f"config.batch_size={config.batch_size} exceeds the {len(train)} training images of "
            f"{dataset.name}: use at most {len(train)}"
        )
    statistics: steps.Statistics = (None, None)
    if config.data.standardize:
        statistics = splits.standardization(images[train])
    model, l2 = network(config, images.shape[1:], len(dataset.class_names))
    stem = None
    whitening = config.model.whitening
    if whitening.enabled:
        every = max(1, len(train) // whitening.images)
        some = images[train[::every][: whitening.images]]
        stem = initializers.whitening(some, *statistics, whitening.epsilon)
    steps_per_epoch = len(train) // config.batch_size
    if config.epochs * steps_per_epoch >= 2**31:
        raise UserError(
            f"config.epochs={config.epochs} of {steps_per_epoch} steps are more than int32 counts: "
            f"use at most {(2**31 - 1) // steps_per_epoch}"
        )
    schedule = optim.make_schedule(config, steps_per_epoch)
    _log.info("%s: %s", dataset.name, dataset.source)
    return Experiment(
        config=config,
        dataset=dataset,
        train=(images[train], labels[train]),
        validation=(images[validation], labels[validation]),
        mesh=mesh,
        model=model,
        l2=l2,
        schedule=schedule,
        optimizer=optim.make_optimizer(config, schedule, l2),
        statistics=statistics,
        steps_per_epoch=steps_per_epoch,
        stem=stem,
    )


def network(
    config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int
) -> tuple[nn.Module, Any]:
    """The module of a validated config, and the L2 weight of each of its parameters.

    Raises:
      UserError: the network does not fit the images.
    """
    model = models.build(config, image_shape, num_classes)
    params = jax.eval_shape(lambda: state.init_variables(model, 0, image_shape))["params"]
    return model, optim.l2_weights(config, model.l2(), params)


def _check_augmentation(config: ConfigDict, image_shape: tuple[int, int, int]) -> None:
    side = min(image_shape[:2])
    for key in ("cutout", "crop_padding"):
        if config.augment[key] > side:
            raise UserError(
                f"config.augment.{key}={config.augment[key]} exceeds the {side} pixels of an "
                f"image: use at most {side}"
            )
