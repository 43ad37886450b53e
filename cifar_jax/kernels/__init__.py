"""Layers that are fast on CPU, and are XLA's own elsewhere: convolution, pooling, Winograd."""
