"""The pure train and evaluation steps, jitted over the mesh."""

from collections.abc import Callable
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Float32, Int32, UInt8
from ml_collections import ConfigDict

from cifar_jax.data import augment
from cifar_jax.optim import chain as optim
from cifar_jax.optim import lookahead
from cifar_jax.runtime import compilation, sharding
from cifar_jax.training.state import EpochSums, TrainState

# Images and labels of a split, whole on every device.
Arrays = tuple[UInt8[Array, "n h w c"], Int32[Array, " n"]]
Order = Int32[Array, "steps_per_epoch batch"]  # the batches of an epoch, as indices
Statistics = tuple[augment.Statistic, augment.Statistic] | tuple[None, None]


def make_step(
    config: ConfigDict,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    l2,
    mesh: Mesh,
) -> Callable[[TrainState, Arrays, Order, ArrayLike, Statistics], TrainState]:
    """Returns `step(state, arrays, order, seed, statistics)`: one step, as a pure function.

    `order` is that of the state's epoch. All that is random is drawn from seed and step.
    `statistics` are mean and standard deviation `[C]` to standardise by, or two None.

    Args:
      l2: see `optim.make_optimizer`.
    """
    batch_sharding = sharding.batch_sharding(mesh)

    def loss_of(params, batch_stats, images, targets, dropout_key):
        logits, updated = model.apply(
            {"params": optim.freeze(config, params), "batch_stats": batch_stats},
            images,
            train=True,
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy(logits, targets)
        return losses.mean(), (logits, updated.get("batch_stats", {}))

    def step(
        state: TrainState, arrays: Arrays, order: Order, seed: ArrayLike, statistics: Statistics
    ) -> TrainState:
        root, flip_key = (jax.random.fold_in(jax.random.key(seed), i) for i in (2, 3))
        images, labels = arrays
        steps_per_epoch, batch_size = order.shape
        position = state.step % steps_per_epoch
        batch = jax.lax.dynamic_index_in_dim(order, position, keepdims=False)
        batch = jax.lax.with_sharding_constraint(batch, batch_sharding)
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(root, state.step))
        one_hot = jax.nn.one_hot(labels[batch], model.num_classes)
        pixels = augment.normalize(images[batch], *statistics)
        flips = None
        if config.augment.alternate_flips:
            flips = augment.alternating_flips(flip_key, batch, state.step // steps_per_epoch)
        pixels, mixed = augment.augment(config, augment_key, pixels, one_hot, flips)
        targets = optax.smooth_labels(mixed, config.label_smoothing)

        (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(
            state.params, state.batch_stats, pixels, targets, dropout_key
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        scale = state.callbacks.learning_rate_scale
        params = optax.apply_updates(state.params, jax.tree.map(lambda u: scale * u, updates))
        slow = state.lookahead
        if slow is not None:
            fast = {"params": params, "batch_stats": batch_stats}
            total = config.epochs * steps_per_epoch
            slow, fast = lookahead.update(config, state.step + 1, total, slow, fast)
            params, batch_stats = fast["params"], fast["batch_stats"]
        ema_params = state.ema_params
        if ema_params is not None:
            # Short at first, or the average would remember the initial parameters for long.
            decay = jnp.minimum(config.optimizer.ema_decay, (1 + state.step) / (10 + state.step))
            ema_params = optax.incremental_update(params, ema_params, 1 - decay)

        first = position == 0
        sums = jax.tree.map(lambda x: jnp.where(first, jnp.zeros_like(x), x), state.sums)
        correct = jnp.sum(logits.argmax(-1) == mixed.argmax(-1), dtype=jnp.int32)
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
        known = state.sums.nonfinite_step
        sums = EpochSums(
            loss=sums.loss + loss,
            objective=sums.objective + loss + optim.l2_penalty(state.params, l2),
            correct=sums.correct + correct,
            steps=sums.steps + 1,
            nonfinite_step=jnp.where(finite | (known >= 0), known, state.step + 1),
        )
        return state.replace(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            lookahead=slow,
            ema_params=ema_params,
            sums=sums,
        )

    return step


def dispatch(step: Callable[..., TrainState], mesh: Mesh) -> Callable:
    """Returns `steps(state, arrays, order, n)`, which makes `n` steps on the devices at once.

    `arrays` and `order` live on the devices. The state is donated. The epoch's sums come back once
    more on their own: the loop may read them while the next dispatch already owns the state.

    Args:
      step: `step(state, arrays, order)`.
    """

    def steps(state: TrainState, arrays, order, n: int) -> tuple[TrainState, EpochSums]:
        if n == 1:  # no scan: on CPU, XLA's convolutions are very slow inside a loop
            state = step(state, arrays, order)
        else:
            state, _ = jax.lax.scan(
                lambda state, _: (step(state, arrays, order), None), state, length=n
            )
        return state, state.sums

    replicated = sharding.replicated(mesh)
    return compilation.jit(
        steps, static_argnums=(3,), donate_argnums=0, out_shardings=(replicated, replicated)
    )


def make_train_step(
    config: ConfigDict,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    l2,
    statistics: Statistics,
    mesh: Mesh,
) -> Callable[[TrainState, Arrays, Order, int], tuple[TrainState, EpochSums]]:
    """`make_step` for `config.seed` and these statistics, made ready by `dispatch`."""
    step = make_step(config, model, optimizer, l2, mesh)
    return dispatch(
        lambda state, arrays, order: step(state, arrays, order, config.seed, statistics), mesh
    )


def make_eval_step(
    model: nn.Module, statistics: Statistics, mesh: Mesh, tta: str = "none"
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
