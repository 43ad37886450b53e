"""The features of all images, computed once: what a run trains on with `config.probe`.

They are cached in chunks, so that a stopped start goes on where it was. The name of a chunk is a
hash of everything that determines it: images, their statistics, the program and its weights.
"""

import dataclasses
import hashlib
import pathlib
import re
import sys
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, UInt8
from tqdm import tqdm

from cifar_jax.data import cache
from cifar_jax.optim import rules
from cifar_jax.runtime import compilation, distributed
from cifar_jax.runtime.interrupt import Interrupted, StopRequest
from cifar_jax.training import experiment, forward, steps
from cifar_jax.training.experiment import Experiment

CHUNK = 1000  # images


def replace(
    exp: Experiment, variables: dict[str, Any], stop: StopRequest | None = None
) -> Experiment:
    """The same experiment with features `[N, F]` instead of images, if `config.probe` asks for it.

    Args:
      variables: "params" and "batch_stats" of the network, on the devices.
      stop: is asked between two chunks of images.

    Raises:
      UserError: the disk of the cache is full.
      Interrupted: a signal arrived; the features so far are in the cache.
    """
    if not exp.config.probe or steps.are_features(exp.train[0]):
        return exp
    data, data_set = exp.config.data, exp.dataset
    make = Maker(exp, variables, stop)
    trained, tested = make(data_set.train_images), make(data_set.test_images)
    train, validation = experiment.split(data, exp.config.seed, data_set.train_labels)
    return dataclasses.replace(
        exp,
        train=(trained[train], exp.train[1]),
        validation=(trained[validation], exp.validation[1]),
        test=(tested, exp.test[1]),
    )


class Maker:
    """Computes features, or reads them from the cache."""

    def __init__(self, exp: Experiment, variables: dict[str, Any], stop: StopRequest | None = None):
        self._exp, self._variables, self._stop = exp, variables, stop
        self._step = steps.make_eval_step(exp.model, exp.statistics, exp.mesh, method="features")
        image = jax.ShapeDtypeStruct((1, *exp.image_shape), np.float32)
        # Without their devices: the features are the same on any number of them.
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
        program = compilation.jit(
            lambda variables, images: exp.model.apply(
                variables, images, train=False, method="features"
            )
        ).trace(shapes, image)
        # The program tells of all that matters: network, resolution, dtype. Others of its keys
        # may change.
        digest = hashlib.sha256(program.lower().as_text().encode())
        for statistic in exp.statistics:
            if statistic is not None:  # of an object, tobytes() gives its address
                digest.update(np.ascontiguousarray(statistic).tobytes())
        for path, leaf in sorted(rules.flatten(jax.device_get(variables)).items()):
            if re.fullmatch(exp.model.backbone_path, path.partition("/")[2]):
                digest.update(path.encode() + np.ascontiguousarray(leaf).tobytes())
        self._digest = digest

    def __call__(self, images: UInt8[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n f"]:
        """The features of images, from the cache or computed."""
        # disable=None: shows the bar only on a terminal.
        bar = tqdm(total=len(images), unit=" images", file=sys.stderr, disable=None, leave=False)
        parts = []
        with bar:
            for at in range(0, len(images), CHUNK):
                if self._stop:
                    self._stop.poll()
                    if self._stop.requested:
                        raise Interrupted("interrupted: run again to go on with the features")
                part = images[at : at + CHUNK]
                parts.append(self._chunk(part))
                bar.update(len(part))
        return np.concatenate(parts)

    def path(self, images: UInt8[np.ndarray, "n h w c"]) -> pathlib.Path:
        """Where the features of one chunk of images are cached."""
        digest = self._digest.copy()
        digest.update(np.ascontiguousarray(images).data)
        return cache.features_path(self._exp.config.data.cache_dir, digest.hexdigest())

    def _chunk(self, images: UInt8[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n f"]:
        path = self.path(images)
        known = cache.read_features(path, len(images))
        # All processes compute a chunk together, so either all of them have it or none.
        if distributed.all_agree(known is not None) and known is not None:
            return known
        features = self.compute(images)
        cache.write_features(path, features)
        return features

    def compute(self, images: UInt8[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n f"]:
        """Computes the features of one chunk of images."""
        size = self._exp.config.eval.batch_size
        return forward.predict(self._step, self._variables, self._exp.put(images), size)
