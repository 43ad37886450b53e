"""Checkpoints of a run. The only package that imports orbax."""

from cifar_jax.runtime.checkpoint.arrays import layout, place
from cifar_jax.runtime.checkpoint.reading import Reader, Restored, check_path
from cifar_jax.runtime.checkpoint.saving import Checkpoints

__all__ = ["Checkpoints", "Reader", "Restored", "check_path", "layout", "place"]
