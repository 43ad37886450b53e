"""The device mesh and its shardings. This is the only file that builds a mesh."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cifar_jax.runtime import distributed


def make_mesh() -> Mesh:
    """A mesh of all devices of all processes, along one axis "data".

    The axis type is Auto: the compiler derives the sharding of every intermediate from those of the
    arguments. (`jax.make_mesh` defaults to Explicit, with which convolutions cannot be traced.)

    Raises:
      UserError: see `distributed.device_count`.
    """
    return jax.make_mesh((distributed.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def even(batch_size: int, mesh: Mesh) -> int:
    """`batch_size`, rounded up to a multiple of the number of devices.

    For batches that are padded anyway. A training batch keeps its size: if the devices cannot split
    it evenly, some of them process one image less.
    """
    return -(-batch_size // mesh.size) * mesh.size
