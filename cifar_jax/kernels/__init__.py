"""Convolution and pooling that are fast on CPU and use XLA's own operations elsewhere."""
