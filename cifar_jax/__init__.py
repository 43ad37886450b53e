"""The reference JAX/Flax codebase for CIFAR-10."""
