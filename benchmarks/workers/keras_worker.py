"""Keras 3 on the backend $KERAS_BACKEND: `compile`, `fit` and `predict`, with XLA where Keras uses
it by default."""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers
from protocol import serve


def _layer(layer: dict) -> Callable:
    kind = layer["kind"]
    if kind == "conv":
        options = {
            "strides": layer["stride"],
            "padding": layer["padding"].lower(),
            "use_bias": layer["bias"],
        }
        if layer["depthwise"]:
            return layers.DepthwiseConv2D(layer["kernel"], **options)
        l2 = keras.regularizers.L2(layer["l2"]) if layer["l2"] else None
        return layers.Conv2D(layer["filters"], layer["kernel"], kernel_regularizer=l2, **options)
    if kind == "batch_norm":
        return layers.BatchNormalization(epsilon=layer["epsilon"], scale=layer["scale"])
    if kind == "max_pool":
        return layers.MaxPooling2D(layer["window"])
    if kind == "mean":
        return layers.GlobalAveragePooling2D()
    if kind == "dropout":
        return layers.Dropout(layer["rate"])
    if kind == "flatten":
        return layers.Flatten()
    if kind == "dense":
        return layers.Dense(layer["units"], use_bias=layer["bias"])
    return layers.Activation(kind)


def _network(job: dict) -> keras.Model:
    images = x = keras.Input((job["side"], job["side"], 3))
    for i, layer in enumerate(job["layers"]):
        before = x
        for part in layer.get("layers", [layer]):
            called = _layer(part)
            called.trainable = i >= job["frozen"]  # batch norm then uses its running statistics
            x = called(x)
        if layer.get("residual"):
            x = layers.Add()([x, before])
    return keras.Model(images, x)


def build(job: dict) -> dict:
    keras.utils.set_random_seed(0)
    network = _network(job)
    options = job["optimizer"]
    if options["name"] == "sgd":
        optimizer = keras.optimizers.SGD(
            options["learning_rate"], options["momentum"], nesterov=True
        )
    else:
        optimizer = keras.optimizers.Adam(
            options["learning_rate"], options["b1"], options["b2"], options["epsilon"]
        )
    network.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    batch_size = job["batch_size"]

    batch = rng.random((batch_size, job["side"], job["side"], 3), np.float32)
    labels = rng.integers(0, 10, batch_size).astype(np.int32)
    images, all_labels = batch, labels

    def arrays(steps: int) -> tuple[np.ndarray, np.ndarray]:
        """`steps` batches in one array, as `fit` wants them; made again only for more."""
        nonlocal images, all_labels
        if len(images) < steps * batch_size:
            images, all_labels = np.tile(batch, (steps, 1, 1, 1)), np.tile(labels, steps)
        return images[: steps * batch_size], all_labels[: steps * batch_size]

    def train(steps: int) -> None:
        network.fit(*arrays(steps), batch_size=batch_size, shuffle=False, verbose=0)

    def infer(steps: int) -> None:
        network.predict(arrays(steps)[0], batch_size=batch_size, verbose=0)

    def serve(steps: int) -> None:
        for _ in range(steps):
            np.asarray(network.predict_on_batch(batch))

    return {"train": train, "infer": infer, "serve": serve}


serve(build)
