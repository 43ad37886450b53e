"""Borders that XLA does not fuse operations across, on CPU.

XLA would rather compute an array anew for each use of its elements than write it to memory, however
much work that is; and what it computes for a matrix product, it computes in a loop that has lost
the array's axes. For programs of several devices these borders do not exist, because XLA does not
know how to share the work across them; nor for exported programs.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator

import jax
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.experimental.xla_metadata import set_xla_metadata

_open: contextvars.ContextVar[bool] = contextvars.ContextVar("open", default=False)


@contextlib.contextmanager
def no_borders(without: bool = True) -> Iterator[None]:
    """While a program is traced in this context, there are no borders in it."""
    token = _open.set(without)
    try:
        yield
    finally:
        _open.reset(token)


def unfused(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Returns `function` so that XLA computes its arguments and its result only once.

    It stays a call in the compiled program, and the operations of a call are compiled by
    themselves. It should not call jitted functions, such as `jnp.where`: those would be calls, too.
    """
    jitted = jax.jit(function)

    def called(*arrays: jax.Array) -> jax.Array:
        with set_xla_metadata(inlineable="false"):
            return jitted(*arrays)

    @functools.wraps(function)
    def either(*arrays: jax.Array) -> jax.Array:
        if _open.get():
            return function(*arrays)
        return lax.platform_dependent(*arrays, cpu=called, default=function)

    return either


def copied(x: jax.Array) -> jax.Array:
    """Makes XLA write a transposed array to memory as it is, with its axes; call it on CPU only."""
    return x if _open.get() else with_layout_constraint(x, Layout(tuple(range(x.ndim))))
