"""Loads a trained network from its workdir, for prediction, export and the demo."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Array, Float32, UInt8
from scipy.special import softmax

from cifar_jax import models, places
from cifar_jax.config.schema import Config
from cifar_jax.data import augment, sources
from cifar_jax.errors import UserError
from cifar_jax.models.network import Network
from cifar_jax.runtime import metrics_writer, settings, sharding, weights
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checked import read_json
from cifar_jax.runtime.checkpoint import Reader
from cifar_jax.runtime.workdir_schema import DATA
from cifar_jax.training import best, claim, run_data, state, steps


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network with its parameters. Images are `[N, H, W, C]` uint8 of `image_shape`.

    Images of the run's data set, of `data_shape`, fit as well: the network resizes them.
    """

    workdir: epath.Path
    config: Config
    epoch: int  # the parameters are from the end of this epoch, counted from 1
    model: Network
    variables: dict[str, Any]
    image_shape: tuple[int, int, int]  # to prepare pictures in
    data_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    statistics: steps.Statistics

    def apply(
        self, variables: dict[str, Any], images: UInt8[Array, "b h w c"]
    ) -> Float32[Array, "b k"]:
        """Preprocessing and network as a pure function; returns the logits."""
        return self.apply_pixels(variables, augment.normalize(images, None, None))

    def apply_pixels(
        self, variables: dict[str, Any], pixels: Float32[Array, "b h w c"]
    ) -> Float32[Array, "b k"]:
        """Like `apply`, for pixels in [0, 1], so that it can be differentiated."""
        standardized = augment.standardize(pixels, *self.statistics)
        logits = self.model.apply(variables, standardized, train=False)
        assert isinstance(logits, jax.Array)
        return logits

    def dataset(self, download: bool = True) -> sources.Dataset:
        """Loads the data set of the run.

        Args:
          download: allow the download, if the config does.

        Raises:
          UserError: the data is not available.
        """
        data = self.config.data
        allowed = dataclasses.replace(data, download=data.download and download)
        return run_data.load(allowed, self.config.seed, self.workdir)

    @settings.pinned()
    def logits(self, images: Any) -> Float32[np.ndarray, "n k"]:
        """Computes the logits of any number of images.

        Args:
          images: `[N, H, W, C]` uint8 in [0, 255], of `image_shape`, as returned by
            `images.decode`; an array, or a list of images `[H, W, C]`.

        Raises:
          UserError: the images have another shape or dtype, or a logit is NaN or infinite.
        """
        images = self._checked(images)
        # Powers of two, so that few programs are compiled whatever the numbers of images.
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
            raise UserError(
                f"the network of {self.workdir} outputs NaN or infinity: train it again"
            )
        return logits

    def predict(self, images: Any) -> Float32[np.ndarray, "n k"]:
        """Class probabilities in the order of `class_names`; each row sums to 1.

        Args:
          images: see `logits`, which also says what is raised.
        """
        return softmax(self.logits(images), axis=1)

    def _checked(self, images: Any) -> UInt8[np.ndarray, "n h w c"]:
        wanted = f"images uint8 [N, {', '.join(map(str, self.image_shape))}]"
        try:
            array = np.asarray(images)
        except ValueError as error:  # a list of images of different shapes
            raise UserError(f"the network of {self.workdir} takes {wanted}: {error}") from error
        fits = array.shape[1:] in (self.image_shape, self.data_shape)
        if fits and array.dtype == np.uint8:
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
    """Pads `images` with zeros to `size` images."""
    filled = np.zeros((size, *images.shape[1:]), images.dtype)
    filled[: len(images)] = images
    return filled


@settings.pinned()
def load(workdir: epath.PathLike, data_dir: str = "") -> Trained:
    """Loads a run's network with the parameters that the test uses.

    These are from the best epoch so far, or from the last if the config says to test that. The run
    may still be training. If the epoch's checkpoint is not written yet or cannot be read, the next
    best epoch is used, and the log says so.

    Args:
      workdir: the workdir of the run, or the directory that `--mode=export --format=safetensors`
        wrote.
      data_dir: where this machine keeps the data; "": where the config says.

    Raises:
      UserError: there is no run, or no epoch of it can be read.
    """
    workdir = places.anywhere(workdir, "workdir")
    config = claim.load_config(workdir)
    config = dataclasses.replace(config, data=run_data.placed(config.data, data_dir))
    checkpoints = Reader(workdir / files.CHECKPOINTS)
    path = workdir / files.DATA
    rows = metrics_writer.read_rows(workdir)
    if not rows:
        raise UserError(f"the run in {workdir} has not finished an epoch yet: run --mode=train")
    if not path.exists():
        raise UserError(f"{path} is missing: run --mode=evaluate --workdir={workdir} to write it")
    data = read_json(path, DATA)
    data_shape, class_names = tuple(data["image_shape"]), tuple(data["class_names"])
    side = config.data.resize
    image_shape = (side, side, data_shape[-1]) if side else data_shape
    mean, std = data["mean"], data["std"]
    statistics = (None, None)
    if mean is not None:
        statistics = (np.array(mean, np.float32), np.array(std, np.float32))
    model = models.build(config.model, data_shape, len(class_names), config.dtype, side)
    everywhere = sharding.replicated(sharding.make_mesh())
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
        jax.eval_shape(lambda: state.init_variables(model, 0, image_shape)),
    )
    exported, restore_best = workdir / files.WEIGHTS, config.early_stopping.restore_best
    if exported.exists():
        epoch = best.in_order(rows, restore_best)[0]["epoch"]
        variables = weights.read(exported, like)
    else:
        found = best.restore(checkpoints, like, workdir, restore_best)
        epoch, variables = found.epoch, found.variables
    return Trained(
        workdir=workdir,
        config=config,
        epoch=epoch,
        model=model,
        variables=variables,
        image_shape=image_shape,
        data_shape=data_shape,
        class_names=class_names,
        statistics=statistics,
    )
