"""JAX: this project's train step as the training loop calls it, or plain Flax as its examples do.

Ours includes what else the loop does: gathering the batch from the data set on the device,
augmenting it, summing the epoch's figures. A step of "train" is one dispatch, of as many steps as
the job says. Plain Flax gets one ready batch, like the other libraries.
"""

import dataclasses
import pathlib
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from protocol import serve

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent))
from benchmarks import networks  # noqa: E402 (the path must come first)
from cifar_jax.runtime import compilation
from cifar_jax.training import steps
from cifar_jax.training.lanes import make_lanes

_CLASSES, _STEPS_PER_EPOCH = networks.CLASSES, 20


def _ours(job: dict) -> dict:
    batch_size, at_once = job["batch_size"], job.get("steps_per_dispatch", 1)
    config = dataclasses.replace(
        networks.scaled(job["network"], job["width"]),
        dtype=job.get("dtype", "float32"),
        batch_size=batch_size,
    )
    exp = networks.on_noise(config, job.get("images", _STEPS_PER_EPOCH * batch_size))
    lane, step = make_lanes([exp]), exp.train_step()
    eval_step = steps.make_eval_step(exp.model, exp.statistics, exp.mesh)
    arrays, order = lane.arrays, lane.order(0)
    ready = list(order[:_STEPS_PER_EPOCH])
    current = exp.initial_state()

    def train(n: int) -> None:
        nonlocal current
        for _ in range(n):
            current, sums = lane.dispatch(0)(current, arrays, order, at_once)
        jax.block_until_ready(sums)

    def infer(n: int) -> None:
        variables = current.variables()
        logits = [eval_step(variables, arrays[0], ready[i % len(ready)]) for i in range(n)]
        jax.block_until_ready(logits)

    get_batch = compilation.jit(
        lambda number, arrays, order: step.draw(number, arrays, order, 0, exp.statistics)[:2]
    )

    def get(n: int) -> None:
        jax.block_until_ready([get_batch(jnp.int32(i), arrays, order) for i in range(n)])

    def peak() -> int | None:
        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")

    return {"train": train, "infer": infer, "batch": get, "peak_device_bytes": peak}


class _Plain(nn.Module):
    layers: tuple
    frozen: int  # so many of them are not trained

    @nn.compact
    def __call__(self, x, train):
        for i, layer in enumerate(self.layers):
            before = x
            for part in layer.get("layers", [layer]):
                x = self._layer(part, x, train and i >= self.frozen)
            if layer.get("residual"):
                x = x + before
            if i + 1 == self.frozen:
                x = jax.lax.stop_gradient(x)
        return x

    def _layer(self, layer, x, train):
        kind = layer["kind"]
        if kind == "conv":
            return nn.Conv(
                layer["filters"],
                (layer["kernel"], layer["kernel"]),
                layer["stride"],
                padding=layer["padding"],
                feature_group_count=layer["filters"] if layer["depthwise"] else 1,
                use_bias=layer["bias"],
            )(x)
        if kind == "batch_norm":
            return nn.BatchNorm(
                not train, epsilon=layer["epsilon"], use_scale=layer["scale"], momentum=0.9
            )(x)
        if kind == "max_pool":
            window = (layer["window"], layer["window"])
            return nn.max_pool(x, window, window)
        if kind == "dropout":
            return nn.Dropout(layer["rate"])(x, deterministic=not train)
        if kind == "flatten":
            return x.reshape(x.shape[0], -1)
        if kind == "mean":
            return x.mean((1, 2))
        if kind == "dense":
            return nn.Dense(layer["units"], use_bias=layer["bias"])(x)
        if kind == "gelu":
            return nn.gelu(x, approximate=False)
        return {"relu": nn.relu, "relu6": nn.relu6}[kind](x)


def _flax(job: dict) -> dict:
    model = _Plain(tuple(job["layers"]), job["frozen"])
    options = job["optimizer"]
    if options["name"] == "sgd":
        optimizer = optax.sgd(options["learning_rate"], options["momentum"], nesterov=True)
    else:
        optimizer = optax.adam(
            options["learning_rate"], options["b1"], options["b2"], options["epsilon"]
        )
    convolutions = [layer for layer in job["layers"] if layer["kind"] == "conv"]
    l2 = {f"Conv_{i}": layer["l2"] for i, layer in enumerate(convolutions) if layer["l2"]}
    rng = np.random.default_rng(0)
    shape = (job["batch_size"], job["side"], job["side"], 3)
    images = jnp.asarray(rng.random(shape, np.float32))
    labels = jnp.asarray(rng.integers(0, _CLASSES, job["batch_size"]))
    variables = model.init(jax.random.key(0), images[:1], False)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})

    def train_step(params, batch_stats, opt_state, key, images, labels):
        def loss_of(params):
            key_, variables = jax.random.fold_in(key, 0), {"params": params}
            logits, updated = model.apply(
                {**variables, "batch_stats": batch_stats},
                images,
                True,
                rngs={"dropout": key_},
                mutable=["batch_stats"],
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            penalty = sum(w * jnp.sum(params[name]["kernel"] ** 2) for name, w in l2.items())
            return loss + penalty, updated.get("batch_stats", {})

        (loss, batch_stats), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), batch_stats, opt_state, loss

    step = jax.jit(train_step, donate_argnums=(0, 1, 2))
    forward = jax.jit(lambda variables, images: model.apply(variables, images, False))
    current = params, batch_stats, jax.jit(optimizer.init)(params)

    def train(n: int) -> None:
        nonlocal current
        for i in range(n):
            *rest, loss = step(*current, jax.random.key(i), images, labels)
            current = tuple(rest)
        jax.block_until_ready(loss)

    def infer(n: int) -> None:
        variables = {"params": current[0], "batch_stats": current[1]}
        jax.block_until_ready([forward(variables, images) for _ in range(n)])

    return {"train": train, "infer": infer}


serve({"ours": _ours, "flax": _flax}[sys.argv[1]])
