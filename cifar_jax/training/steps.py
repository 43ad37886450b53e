"""The pure train and evaluation steps, and how they become programs for the mesh."""

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
from cifar_jax.models.network import Network
from cifar_jax.optim import lookahead
from cifar_jax.optim.rules import Table
from cifar_jax.runtime import compilation, sharding
from cifar_jax.training.state import EpochSums, TrainState

# Images and labels of a split, whole on every device.
Arrays = tuple[UInt8[Array, "n h w c"], Int32[Array, " n"]]
Order = Int32[Array, "steps_per_epoch batch"]  # the batches of an epoch, as indices
# Mean and standard deviation [C] to standardize by.
Statistics = tuple[augment.Statistic, augment.Statistic] | tuple[None, None]


class Batch(NamedTuple):
    """What a step trains on."""

    pixels: Float32[Array, "b h w c"]  # augmented
    targets: Float32[Array, "b k"]  # class probabilities
    classes: Int32[Array, " b"]  # the likeliest of the targets, before label smoothing
    dropout_key: Array


class Gradient(NamedTuple):
    """What differentiating gives."""

    loss: Float32[Array, ""]  # mean cross-entropy of the batch
    logits: Float32[Array, "b k"]
    batch_stats: Any
    grads: Any  # like the trained parameters


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """`step(state, arrays, order, seed, statistics)`: one step, as a pure function.

    `order` is that of the state's epoch. Everything random is drawn from seed and step.
    """

    model: Network
    table: Table
    chain: optax.GradientTransformationExtraArgs
    optimizer: Optimizer
    augment: Augment
    label_smoothing: float
    epochs: int  # of the whole run
    mesh: Mesh

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
        """The batch of a step, augmented."""
        images, labels = arrays
        steps_per_epoch = len(order)
        keys = rng.at_step(seed, step)
        index = jax.lax.dynamic_index_in_dim(order, step % steps_per_epoch, keepdims=False)
        index = jax.lax.with_sharding_constraint(index, sharding.batch_sharding(self.mesh))
        one_hot = jax.nn.one_hot(labels[index], self.model.num_classes)
        pixels = augment.normalize(images[index], *statistics)
        flip_key = rng.key(seed, rng.Stream.ALTERNATING_FLIPS)
        draw = augment.Draw(index, step // steps_per_epoch, flip_key)
        pixels, mixed = augment.augment(self.augment, keys.augment, draw, pixels, one_hot)
        targets = optax.smooth_labels(mixed, self.label_smoothing)
        return Batch(pixels, targets, mixed.argmax(-1), keys.dropout)

    def differentiate(self, state: TrainState, batch: Batch) -> Gradient:
        """The gradient of the mean cross-entropy with respect to the trained parameters."""
        trained, frozen = self.table.split(state.params)

        def loss_of(trained: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            logits, updated = self.model.apply(
                {"params": self.table.merge(trained, frozen), "batch_stats": state.batch_stats},
                batch.pixels,
                train=True,
                rngs={"dropout": batch.dropout_key},
                mutable=["batch_stats"],
            )
            logits = cast(jax.Array, logits)
            losses = optax.softmax_cross_entropy(logits, batch.targets)
            return losses.mean(), (logits, updated.get("batch_stats", {}))

        (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(trained)
        return Gradient(loss, logits, batch_stats, grads)

    def apply(self, state: TrainState, gradient: Gradient, total: int) -> TrainState:
        """Parameters, statistics, optimizer state and averages after the step.

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
            # Short at first, or the average would remember the initial parameters for long.
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
        self,
        state: TrainState,
        gradient: Gradient,
        classes: Int32[Array, " b"],
        steps_per_epoch: int,
    ) -> EpochSums:
        """The sums of the epoch with this step; they begin anew with the epoch."""
        first = state.step % steps_per_epoch == 0
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


# `dispatch(state, arrays, order, n)` makes `n` steps; see `make_dispatch`.
Dispatch = Callable[[TrainState, Any, Any, int], tuple[TrainState, EpochSums]]


def make_dispatch(step: Callable[[TrainState, Any, Any], TrainState], mesh: Mesh) -> Dispatch:
    """Returns `dispatch(state, arrays, order, n)`, which makes `n` steps on the devices at once.

    `arrays` and `order` live on the devices. The state is donated. The epoch's sums come back once
    more on their own: the loop may read them while the next dispatch already owns the state.

    Args:
      step: `step(state, arrays, order)`.
    """

    def dispatch(
        state: TrainState, arrays: Any, order: Any, n: int
    ) -> tuple[TrainState, EpochSums]:
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


def make_eval_step(
    model: Network, statistics: Statistics, mesh: Mesh, tta: str = "none"
) -> Callable[[dict, jax.Array, jax.Array], jax.Array]:
    """Returns `eval_step(variables, images, batch) -> logits`, on every device.

    `images` live on the devices; `batch` holds indices into them.

    Args:
      tta: the views whose logits are averaged, see `augment.views`.
    """
    batch_sharding = sharding.batch_sharding(mesh)

    def eval_step(
        variables: dict, images: UInt8[Array, "n h w c"], batch: Int32[Array, " b"]
    ) -> Float32[Array, "b k"]:
        batch = jax.lax.with_sharding_constraint(batch, batch_sharding)
        pixels = augment.normalize(images[batch], *statistics)
        logits = [
            weight * cast(jax.Array, model.apply(variables, view, train=False))
            for weight, view in augment.views(pixels, tta)
        ]
        return sum(logits[1:], logits[0])

    everywhere = sharding.replicated(mesh)
    # Left to itself, the compiler asks for indices that the devices share evenly.
    return compilation.jit(
        eval_step, in_shardings=(None, None, everywhere), out_shardings=everywhere
    )
