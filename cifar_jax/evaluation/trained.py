"""A trained network, from its workdir alone: what predicting, exporting and showing begin with."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Array, Float32, UInt8
from ml_collections import ConfigDict
from scipy.special import softmax

from cifar_jax import places
from cifar_jax.data import augment
from cifar_jax.errors import UserError
from cifar_jax.optim import chain as optim
from cifar_jax.runtime import metrics_writer, settings, sharding, weights
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checked import read_json
from cifar_jax.runtime.checkpoint import Reader
from cifar_jax.runtime.workdir_schema import DATA
from cifar_jax.training import best, experiment, state, steps


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network with its parameters. Images are uint8 `[N, H, W, C]`, of `image_shape`."""

    workdir: epath.Path
    config: ConfigDict
    epoch: int  # whose parameters these are, from 1
    model: nn.Module
    variables: dict[str, Any]
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    statistics: steps.Statistics

    def apply(
        self, variables: dict[str, Any], images: UInt8[Array, "b h w c"]
    ) -> Float32[Array, "b k"]:
        """The logits, as a pure function: preprocessing and network."""
        return self.apply_pixels(variables, augment.normalize(images, None, None))

    def apply_pixels(
        self, variables: dict[str, Any], pixels: Float32[Array, "b h w c"]
    ) -> Float32[Array, "b k"]:
        """The same of pixels in [0, 1], which it can be differentiated by."""
        standardized = augment.standardize(pixels, *self.statistics)
        logits = self.model.apply(variables, standardized, train=False)
        assert isinstance(logits, jax.Array)
        return logits

    @settings.pinned()
    def logits(self, images: Any) -> Float32[np.ndarray, "n k"]:
        """The logits of any number of images.

        Args:
          images: `[N, H, W, C]` uint8 from 0 to 255, of `image_shape`, as `images.decode` gives
            them: an array, or a list of images `[H, W, C]`.

        Raises:
          UserError: the images have another shape or dtype, or the network gives no finite numbers.
        """
        images = self._checked(images)
        # A few sizes of batch, so that a few programs are compiled for any number of images.
        wish = 1 << max(len(images) - 1, 0).bit_length()
        size = sharding.even(min(wish, self.config.eval.batch_size), self._mesh)
        everyone = jnp.arange(size)
        parts = [
            self._eval_step(
                self.variables, jnp.asarray(_filled(images[at : at + size], size)), everyone
            )
            for at in range(0, len(images), size)
        ]
        empty = np.zeros((0, len(self.class_names)), np.float32)
        logits = np.concatenate([empty, *jax.device_get(parts)])[: len(images)]
        if not np.isfinite(logits).all():
            raise UserError(f"the network of {self.workdir} gives NaN or infinity: train it again")
        return logits

    def predict(self, images: Any) -> Float32[np.ndarray, "n k"]:
        """The probabilities of the classes, in the order of `class_names`; rows add up to 1.

        Args:
          images: as `logits` takes and checks them.
        """
        return softmax(self.logits(images), axis=1)

    def _checked(self, images: Any) -> UInt8[np.ndarray, "n h w c"]:
        wanted = f"images uint8 [N, {', '.join(map(str, self.image_shape))}]"
        try:
            array = np.asarray(images)
        except ValueError as error:  # a list of several shapes
            raise UserError(f"the network of {self.workdir} takes {wanted}: {error}") from error
        if array.shape[1:] == self.image_shape and array.dtype == np.uint8:
            return array
        fix = ""
        if array.shape == self.image_shape:
            fix = "; put a single image into a list"
        elif array.dtype != np.uint8:
            fix = "; convert them to whole numbers from 0 to 255"
        raise UserError(
            f"the network of {self.workdir} takes {wanted}: these are {array.dtype} "
            f"{list(array.shape)}{fix}"
        )

    @functools.cached_property
    def _mesh(self) -> Mesh:
        return sharding.make_mesh()

    @functools.cached_property
    def _eval_step(self):
        return steps.make_eval_step(self.model, self.statistics, self._mesh)


def _filled(images: np.ndarray, size: int) -> np.ndarray:
    """`images` with zeros behind, `size` in all."""
    filled = np.zeros((size, *images.shape[1:]), images.dtype)
    filled[: len(images)] = images
    return filled


@settings.pinned()
def load(workdir: epath.PathLike) -> Trained:
    """The network of a run: its best epoch so far, or its last where the config tests that.

    The run may be at work. Where the checkpoint of that epoch cannot be read, or is not written
    yet, the next best is taken, and a line says so.

    Args:
      workdir: of the run, or what `--mode=export --format=safetensors` made of it.

    Raises:
      UserError: there is no run, or no epoch of one can be read.
    """
    workdir = places.anywhere(workdir, "workdir")
    config = files.load_config(workdir)
    checkpoints = Reader(workdir / files.CHECKPOINTS)
    path = workdir / files.DATA
    rows = metrics_writer.read_rows(workdir)
    if not rows:
        raise UserError(f"the run in {workdir} has no whole epoch yet: go on with --mode=train")
    if not path.exists():
        raise UserError(f"{path} is missing: --mode=evaluate --workdir={workdir} writes it")
    data = read_json(path, DATA)
    image_shape, class_names = tuple(data["image_shape"]), tuple(data["class_names"])
    mean, std = data["mean"], data["std"]
    statistics = (None, None)
    if mean is not None:
        statistics = (np.array(mean, np.float32), np.array(std, np.float32))
    model, l2 = experiment.network(config, image_shape, len(class_names))
    optimizer = optim.make_optimizer(config, lambda step: 0.0, l2)
    everywhere = sharding.replicated(sharding.make_mesh())
    like = state.abstract(config, model, optimizer, image_shape, everywhere)
    exported = workdir / files.WEIGHTS
    if exported.exists():
        epoch = best.in_order(rows, config)[0]["epoch"]
        variables = weights.read(exported, like.variables())
    else:
        found = best.restore(checkpoints, like, workdir, config)
        epoch, variables = found.epoch, found.state.variables()
    return Trained(
        workdir=workdir,
        config=config,
        epoch=epoch,
        model=model,
        variables=variables,
        image_shape=image_shape,
        class_names=class_names,
        statistics=statistics,
    )
