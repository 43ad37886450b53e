"""What every experiment starts from: each states only what differs from these defaults."""

from cifar_jax.config.defaults import conv_block, get_config

__all__ = ["conv_block", "get_config"]
