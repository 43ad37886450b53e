"""Builds what a config describes: data, split, mesh, network, rules, optimizer, initial state."""

import dataclasses
import functools
import logging
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from cifar_jax import models, rng, terminal
from cifar_jax.config.schema import Augment, Config, Data, Rule
from cifar_jax.data import augment, batches, sources, splits
from cifar_jax.errors import UserError
from cifar_jax.models import summary
from cifar_jax.models.network import Network
from cifar_jax.optim import callbacks, chain, rules, schedules
from cifar_jax.runtime import compilation, sharding
from cifar_jax.training import initial, progressive, state, steps

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a run needs, built from its config.

    Images are uint8 `[N, H, W, C]` and labels int32 `[N]`, both on the host; `put` copies them to
    the devices.
    """

    config: Config
    dataset: sources.Dataset
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    mesh: Mesh
    model: Network
    table: rules.Table  # the settings of each parameter
    schedule: optax.Schedule
    chain: optax.GradientTransformationExtraArgs
    statistics: steps.Statistics
    steps_per_epoch: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height and width in pixels, and number of channels."""
        _, height, width, channels = self.dataset.train_images.shape
        return height, width, channels

    def put(self, tree: Any) -> Any:
        """Copies the arrays of a tree to every device, unsharded."""
        return jax.device_put(tree, sharding.replicated(self.mesh))

    def train_step(self, epoch: int = 0) -> steps.TrainStep:
        """The train step: a pure function of state, data, batch order, seed and statistics.

        Args:
          epoch: in which it trains, counted from 0.
        """
        config, model = self.config, self.model
        if side := progressive.side(config.augment.sides, config.epochs, epoch):
            channels, classes = self.image_shape[-1], model.num_classes
            model = models.resized(config.model, channels, classes, config.dtype, side)
        return steps.TrainStep(
            model=model,
            table=self.table,
            chain=self.chain,
            optimizer=config.optimizer,
            augment=config.augment,
            label_smoothing=config.label_smoothing,
            epochs=config.epochs,
            mesh=self.mesh,
            stopped=self.table.stopped(epoch),
        )

    def initial_state(self) -> state.TrainState:
        """The train state before the first step, on the devices.

        Raises:
          UserError: what `config.init.source` names cannot be used.
        """
        create = compilation.jit(self._create, out_shardings=sharding.replicated(self.mesh))
        return create(self.given_values)

    @functools.cached_property
    def given_values(self) -> dict[str, np.ndarray]:
        """Path -> initial value, for the variables that are not initialized at random.

        Raises:
          UserError: what `config.init.source` names cannot be used.
        """
        init = self.config.init
        given = initial.from_data(init, self.model, self.train[0], self.statistics)
        return given | self.loaded.variables

    @functools.cached_property
    def loaded(self) -> initial.Loaded:
        """What `config.init.source` gives.

        Raises:
          UserError: it cannot be used.
        """
        config = self.config
        if not config.init.source:  # or the state would be traced once more for nothing
            return initial.Loaded({})
        like = jax.eval_shape(self._create, {}).variables()
        return initial.from_source(config.init, config.model, like)

    def abstract_state(self) -> state.TrainState:
        """Shapes, dtypes and shardings of the train state, to restore it with."""
        everywhere = sharding.replicated(self.mesh)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
            jax.eval_shape(self._create, {}),
        )

    def _create(self, given: dict[str, jax.Array]) -> state.TrainState:
        config = self.config
        fresh = state.init_variables(self.model, config.seed, self.image_shape)
        variables = initial.replace(fresh, given)
        trained, _ = self.table.split(variables["params"])
        return state.create(
            variables,
            self.chain.init(trained),
            callbacks.init(config.plateau),
            lookahead=config.optimizer.lookahead_every > 0,
            ema=config.optimizer.ema_decay > 0,
        )

    def epoch_order(self, epoch: int) -> jax.Array:
        """The batches of an epoch, counted from 0.

        Indices into the training images, int32 `[steps_per_epoch, batch_size]`, on the devices.
        """
        return self._epoch_order(epoch)

    @functools.cached_property
    def _epoch_order(self):
        key = rng.key(self.config.seed, rng.Stream.BATCH_ORDER)
        size, batch_size = len(self.train[1]), self.config.batch_size
        return compilation.jit(
            lambda epoch: batches.epoch_order(key, epoch, size, batch_size),
            out_shardings=sharding.replicated(self.mesh),
        )

    def is_finished(self, step: int, should_stop: bool) -> bool:
        """Whether the run has ended, at its last epoch or by early stopping."""
        return should_stop or step >= self.config.epochs * self.steps_per_epoch

    def describe(self, train_state: state.TrainState) -> str:
        """Describes network, data and devices, and where a run resumes, in a few lines of text."""
        rows = summary.layers(self.model, self.image_shape)
        added, shape = augment.names(self.config.augment), self.image_shape
        trained, frozen = self.table.split(train_state.params)
        fixed = {"frozen": frozen, "batch statistics": train_state.batch_stats}
        lines = [summary.table(rows, trained, fixed, train_state.opt_state, added, shape)]
        for part, counts in self.class_counts().items():
            each = ", ".join(f"{terminal.label(name)} {n:,}" for name, n in counts.items())
            lines.append(f"{part}: {sum(counts.values()):,} images ({each})")
        if sides := self.config.augment.sides:
            lines.append(f"training images of {', '.join(map(str, sides))} pixels in turn")
        kind = self.mesh.devices.flat[0].device_kind
        lines.append(f"{self.mesh.size} x {kind}, {self.steps_per_epoch} steps per epoch")
        step = int(train_state.step)
        if step:
            lines.append(f"resumed at step {step}, epoch {step // self.steps_per_epoch + 1}")
        return "\n".join(lines)

    def describe_data(self) -> dict[str, Any]:
        """The content of `data.json`: what is needed to know the data and to prepare images."""
        mean, std = (None if s is None else s.tolist() for s in self.statistics)
        return {"name": self.dataset.name, **self.dataset.description, "mean": mean, "std": std}

    def class_counts(self) -> dict[str, dict[str, int]]:
        """Images in each split and class: `{"train": {"airplane": 4250, ...}, ...}`."""
        parts, names = ("train", "validation", "test"), self.dataset.class_names
        return {part: splits.class_counts(getattr(self, part)[1], names) for part in parts}


def build(config: Config, dataset: sources.Dataset | None = None) -> Experiment:
    """Loads the data and builds everything a run needs.

    Args:
      dataset: the data set of the config, if it has been loaded already.

    Raises:
      UserError: the data cannot be loaded, or does not fit the config.
    """
    mesh = sharding.make_mesh()
    dataset = dataset or sources.load(config.data)
    images, labels = dataset.train_images, dataset.train_labels
    _check_augmentation(config.augment, images.shape[1:])
    train, validation = split(config.data, config.seed, labels)
    if config.batch_size > len(train):
        raise UserError(
            f"config.batch_size={config.batch_size} exceeds the {len(train)} training images of "
            f"{dataset.name}: use at most {len(train)}"
        )
    shape, classes = images.shape[1:], len(dataset.class_names)
    statistics = splits.standardization(images[train]) if config.data.standardize else (None, None)
    model = models.build(config.model, shape, classes, config.dtype, config.data.resize)
    params = progressive.shapes(model, shape)
    resized = functools.partial(models.resized, config.model, shape[-1], classes, config.dtype)
    progressive.check(config.augment.sides, resized, params, shape)
    own = (*model.rules(), *_probe_rules(config.probe, model))
    table = rules.table(params, own, config.optimizer)
    steps_per_epoch = len(train) // config.batch_size
    if config.epochs * steps_per_epoch >= 2**31:
        raise UserError(
            f"config.epochs={config.epochs} of {steps_per_epoch} steps exceed the range of int32: "
            f"use at most {(2**31 - 1) // steps_per_epoch}"
        )
    schedule = schedules.make_schedule(
        config.schedule, config.optimizer.learning_rate, config.epochs, steps_per_epoch
    )
    _log.info("%s: %s", dataset.name, dataset.source)
    return Experiment(
        config=config,
        dataset=dataset,
        train=(images[train], labels[train]),
        validation=(images[validation], labels[validation]),
        test=(dataset.test_images, dataset.test_labels),
        mesh=mesh,
        model=model,
        table=table,
        schedule=schedule,
        chain=chain.make_optimizer(config.optimizer, schedule, table, steps_per_epoch),
        statistics=statistics,
        steps_per_epoch=steps_per_epoch,
    )


def _probe_rules(probe: bool, model: Network) -> tuple[Rule, ...]:
    """Freezes the backbone if only the classifier is trained."""
    if not probe:
        return ()
    if not model.backbone_path:
        raise UserError(
            "config.probe needs a network with a backbone, such as "
            "config.model.name=efficientnet_lite"
        )
    return (Rule(model.backbone_path, frozen=True),)


def split(data: Data, seed: int, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the training images to train and to validate on."""
    return splits.split(labels, data.validation_fraction, seed, data.stratified, data.train_images)


def _check_augmentation(options: Augment, image_shape: tuple[int, ...]) -> None:
    side = min(image_shape[:2])
    for name in ("cutout", "crop_padding"):
        if getattr(options, name) > side:
            raise UserError(
                f"config.augment.{name}={getattr(options, name)} exceeds the {side} pixels of an "
                f"image: use at most {side}"
            )
