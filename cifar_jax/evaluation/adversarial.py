"""Adversarial images: no pixel changes by more than eps, but the prediction does.

FGSM: Goodfellow et al. 2015, "Explaining and Harnessing Adversarial Examples". PGD: Madry et al.
2018, "Towards Deep Learning Models Resistant to Adversarial Attacks". Both are white-box
attacks that increase the cross-entropy along the sign of its gradient. Pixels are float32 in [0, 1]
and stay there; they are not rounded to 8 bits. eps has the same unit.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float32, Int32, PRNGKeyArray

from cifar_jax.runtime import compilation

PGD_STEPS = 20

Pixels = Float32[Array, "b h w c"]
Labels = Int32[Array, " b"]
Step = Callable[..., Pixels]


def make_step(logits: Callable[[dict[str, Any], Pixels], Array], variables: dict[str, Any]) -> Step:
    """Returns a compiled `step(attacked, pixels, labels, eps, size) -> attacked`.

    It moves each pixel by `size` in the direction that increases the cross-entropy, then clips to
    the eps ball around `pixels` and to [0, 1].

    Args:
      logits: pure function `logits(variables, pixels) -> [B, K]` in evaluation mode.
    """

    def step(
        variables: dict[str, Any],
        attacked: Pixels,
        pixels: Pixels,
        labels: Labels,
        eps: ArrayLike,
        size: ArrayLike,
    ) -> Pixels:
        def loss(attacked: Pixels) -> Array:
            outputs = logits(variables, attacked)
            return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).sum()

        return _project(attacked + size * jnp.sign(jax.grad(loss)(attacked)), pixels, eps)

    compiled = compilation.jit(step)
    return lambda *arguments: compiled(variables, *arguments)


def _project(attacked: Pixels, pixels: Pixels, eps: ArrayLike) -> Pixels:
    return jnp.clip(jnp.clip(attacked, pixels - eps, pixels + eps), 0, 1)


def fgsm(step: Step, pixels: Pixels, labels: Labels, eps: float) -> Pixels:
    """Fast gradient sign method: one step of size `eps`."""
    return step(pixels, pixels, labels, eps, eps)


def pgd(step: Step, pixels: Pixels, labels: Labels, eps: float, key: PRNGKeyArray) -> Pixels:
    """Projected gradient descent: `PGD_STEPS` steps of `eps` / 4 from a random start."""
    noise = jax.random.uniform(key, pixels.shape, minval=-eps, maxval=eps)
    attacked = _project(pixels + noise, pixels, eps)
    # Not a compiled loop, because XLA's convolutions are very slow inside one on CPU.
    for _ in range(PGD_STEPS):
        attacked = step(attacked, pixels, labels, eps, eps / 4)
    return attacked
