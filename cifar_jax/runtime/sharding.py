"""The one mesh. The only file that builds one."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cifar_jax.runtime import distributed


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


def even(batch_size: int, mesh: Mesh) -> int:
    """The smallest size from `batch_size` on that the devices share evenly.

    For batches that are filled up anyway. A training batch keeps its size: where the devices do not
    share it evenly, some of them have an image less to do.
    """
    return -(-batch_size // mesh.size) * mesh.size
