"""The train and evaluation steps as pure functions, and how they are compiled for the mesh."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Float32, Int32, UInt8

from cifar_jax import rng
from cifar_jax.config.schema import Augment, Optimizer
from cifar_jax.data import augment
from cifar_jax.kernels.unfused import no_borders
from cifar_jax.models.network import Network
from cifar_jax.optim import lookahead, rules
from cifar_jax.optim.rules import Table
from cifar_jax.runtime import compilation, sharding
from cifar_jax.training.state import EpochSums, TrainState

Features = Float32[Array, "n f"]
# Images, or features if `config.probe`, and labels of a split; every device has a copy.
Arrays = tuple[UInt8[Array, "n h w c"] | Features, Int32[Array, " n"]]
Order = Int32[Array, "steps_per_epoch batch"]  # indices of the images in each batch of an epoch
# Mean and standard deviation to standardize by, float32 [C] each.
Statistics = tuple[augment.Statistic, augment.Statistic] | tuple[None, None]


class Batch(NamedTuple):
    """The images and targets that a step trains on."""

    pixels: Float32[Array, "b h w c"] | Float32[Array, "b f"]  # normalized, augmented; or features
    targets: Float32[Array, "b k"]  # class probabilities
    classes: Int32[Array, " b"]  # the most probable class before label smoothing
    dropout_key: Array


class Gradient(NamedTuple):
    """The result of a forward and a backward pass."""

    loss: Float32[Array, ""]  # mean cross-entropy of the batch
    logits: Float32[Array, "b k"]
    batch_stats: Any
    grads: Any  # a tree like the trained parameters


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """`step(state, arrays, order, seed, statistics)` -> new state: a pure function.

    `order` holds the batches of the current epoch. All random numbers depend only on `seed` and
    `state.step`.
    """

    model: Network
    table: Table
    chain: optax.GradientTransformationExtraArgs
    optimizer: Optimizer
    augment: Augment
    label_smoothing: float
    epochs: int  # number of epochs of the run
    mesh: Mesh
    stopped: frozenset[str] = frozenset()  # parameters that no longer train: they take no gradient

    def __call__(
        self,
        state: TrainState,
        arrays: Arrays,
        order: Order,
        seed: ArrayLike,
        statistics: Statistics,
    ) -> TrainState:
        batch = self.draw(state.step, arrays, order, seed, statistics)
        gradient = self.differentiate(state, batch)
        after = self.apply(state, gradient, self.epochs * len(order))
        return after.replace(
            step=state.step + 1,
            sums=self.count(state, gradient, batch.classes, len(order)),
        )

    def draw(
        self,
        step: Int32[Array, ""],
        arrays: Arrays,
        order: Order,
        seed: ArrayLike,
        statistics: Statistics,
    ) -> Batch:
        """Draws and augments the batch of a step."""
        images, labels = arrays
        steps_per_epoch = len(order)
        keys = rng.at_step(seed, step)
        index = jax.lax.dynamic_index_in_dim(order, step % steps_per_epoch, keepdims=False)
        index = jax.lax.with_sharding_constraint(index, sharding.batch_sharding(self.mesh))
        one_hot = jax.nn.one_hot(labels[index], self.model.num_classes)
        if are_features(images):
            targets = optax.smooth_labels(one_hot, self.label_smoothing)
            return Batch(images[index], targets, labels[index], keys.dropout)
        pixels = augment.normalize(images[index], *statistics)
        flip_key = rng.key(seed, rng.Stream.ALTERNATING_FLIPS)
        draw = augment.Draw(index, step // steps_per_epoch, flip_key, statistics)
        pixels, mixed = augment.augment(self.augment, keys.augment, draw, pixels, one_hot)
        targets = optax.smooth_labels(mixed, self.label_smoothing)
        return Batch(pixels, targets, mixed.argmax(-1), keys.dropout)

    def differentiate(self, state: TrainState, batch: Batch) -> Gradient:
        """The gradient of the mean cross-entropy with respect to the trained parameters."""
        trained = rules.flatten(self.table.split(state.params)[0])
        moving = {path: leaf for path, leaf in trained.items() if path not in self.stopped}

        def loss_of(moving: dict[str, Any]) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            params = rules.unflatten(rules.flatten(state.params) | moving)
            logits, updated = self.model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                batch.pixels,
                train=True,
                method="classify" if are_features(batch.pixels) else None,
                rngs={"dropout": batch.dropout_key},
                mutable=["batch_stats"],
            )
            logits = cast(jax.Array, logits)
            # Not optax's: `compilation.jit` gives the library only sums of products.
            losses = jax.nn.logsumexp(logits, -1) - (logits * batch.targets).sum(-1)
            return losses.mean(), (logits, updated.get("batch_stats", {}))

        (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(moving)
        grads = rules.unflatten(optax.tree.zeros_like(trained) | grads)
        return Gradient(loss, logits, batch_stats, grads)

    def apply(self, state: TrainState, gradient: Gradient, total: int) -> TrainState:
        """Updates parameters, batch statistics, optimizer state, lookahead and average.

        Args:
          total: steps of the whole run.
        """
        trained, frozen = self.table.split(state.params)
        updates, opt_state = self.chain.update(
            gradient.grads,
            state.opt_state,
            trained,
            plateau_scale=state.callbacks.learning_rate_scale,
        )
        params = self.table.merge(optax.apply_updates(trained, updates), frozen)
        batch_stats, slow = gradient.batch_stats, state.lookahead
        if slow is not None:
            fast = {"params": params, "batch_stats": batch_stats}
            every, decay = self.optimizer.lookahead_every, self.optimizer.lookahead_decay
            slow, fast = lookahead.update(every, decay, state.step + 1, total, slow, fast)
            params, batch_stats = fast["params"], fast["batch_stats"]
        ema_params = state.ema_params
        if ema_params is not None:
            # A short average at first, so that it forgets the initial parameters quickly.
            decay = jnp.minimum(self.optimizer.ema_decay, (1 + state.step) / (10 + state.step))
            ema_params = optax.incremental_update(params, ema_params, 1 - decay)
        return state.replace(
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            lookahead=slow,
            ema_params=ema_params,
        )

    def count(
        self, state: TrainState, gradient: Gradient, classes: Int32[Array, " b"], per_epoch: int
    ) -> EpochSums:
        """Adds this step to the sums of the epoch, which restart with each epoch."""
        first = state.step % per_epoch == 0
        sums = jax.tree.map(lambda x: jnp.where(first, jnp.zeros_like(x), x), state.sums)
        correct = jnp.sum(gradient.logits.argmax(-1) == classes, dtype=jnp.int32)
        finite = jnp.isfinite(gradient.loss) & jnp.isfinite(optax.tree.norm(gradient.grads))
        known = state.sums.nonfinite_step
        return EpochSums(
            loss=sums.loss + gradient.loss,
            objective=sums.objective + gradient.loss + self.table.penalty(state.params),
            correct=sums.correct + correct,
            steps=sums.steps + 1,
            nonfinite_step=jnp.where(finite | (known >= 0), known, state.step + 1),
        )


# `dispatch(state, arrays, order, n)` trains `n` steps; see `make_dispatch`.
Dispatch = Callable[[TrainState, Any, Any, int], tuple[TrainState, EpochSums]]


def make_dispatch(step: Callable[[TrainState, Any, Any], TrainState], mesh: Mesh) -> Dispatch:
    """Returns `dispatch(state, arrays, order, n)`, which trains `n` steps in one call.

    `arrays` and `order` are on the devices. The state is donated. The sums of the epoch are
    returned a second time, so that the loop can read them after the next dispatch has taken the
    state.

    Args:
      step: `step(state, arrays, order)` -> new state.
    """

    def dispatch(
        state: TrainState, arrays: Any, order: Any, n: int
    ) -> tuple[TrainState, EpochSums]:
        with no_borders(mesh.size > 1):
            if n == 1:  # no scan: on CPU, XLA's convolutions are very slow inside a loop
                state = step(state, arrays, order)
            else:
                state, _ = jax.lax.scan(
                    lambda state, _: (step(state, arrays, order), None), state, length=n
                )
        return state, state.sums

    replicated = sharding.replicated(mesh)
    return compilation.jit(
        dispatch, static_argnums=(3,), donate_argnums=0, out_shardings=(replicated, replicated)
    )


def are_features(images: Any) -> bool:
    """Whether these are features `[N, F]`, and not images."""
    return images.ndim == 2


def make_eval_step(
    model: Network,
    statistics: Statistics,
    mesh: Mesh,
    tta: str = "none",
    method: str | None = None,
) -> Callable[[dict, jax.Array, jax.Array], jax.Array]:
    """Returns `eval_step(variables, images, batch) -> logits`.

    `images` are on the devices, and `batch` holds indices into them; features in place of images
    are classified. The logits are a copy on every device.

    Args:
      tta: "none", "flip" or "multicrop": whose views are averaged, see `augment.views`.
      method: "features" makes a step that returns features instead.
    """
    batch_sharding = sharding.batch_sharding(mesh)

    def eval_step(
        variables: dict, images: UInt8[Array, "n h w c"] | Features, batch: Int32[Array, " b"]
    ) -> Float32[Array, "b k"]:
        batch = jax.lax.with_sharding_constraint(batch, batch_sharding)
        if are_features(images):
            logits = model.apply(variables, images[batch], train=False, method="classify")
            return cast(jax.Array, logits)
        pixels = augment.normalize(images[batch], *statistics)
        with no_borders(mesh.size > 1):
            logits = [
                weight * cast(jax.Array, model.apply(variables, view, train=False, method=method))
                for weight, view in augment.views(pixels, tta)
            ]
        return sum(logits[1:], logits[0])

    everywhere = sharding.replicated(mesh)
    # By default, the compiler would require indices that divide evenly among the devices.
    return compilation.jit(
        eval_step, in_shardings=(None, None, everywhere), out_shardings=everywhere
    )
