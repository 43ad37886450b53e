"""The one mesh. The only file that builds one."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cifar_jax import distributed
from cifar_jax.errors import UserError


def make_mesh() -> Mesh:
    """All devices of all processes on the axis "data".

    The axis type is Auto: the compiler places every intermediate from the shardings of the
    arguments. (`make_mesh` defaults to Explicit, under which convolutions do not trace.)

    Raises:
      UserError: as `distributed.device_count`.
    """
    return jax.make_mesh((distributed.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(key: str, batch_size: int, mesh: Mesh) -> None:
    """Refuses a batch that the devices cannot share evenly.

    Raises:
      UserError: names the nearest sizes that fit.
    """
    if batch_size % mesh.size:
        below = batch_size // mesh.size * mesh.size
        nearest = [str(size) for size in (below, below + mesh.size) if size]
        raise UserError(
            f"{key}={batch_size} does not divide by the {mesh.size} devices: "
            f"use {' or '.join(nearest)}"
        )
