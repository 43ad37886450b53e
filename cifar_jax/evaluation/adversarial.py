"""Adversarial images: no pixel further than eps from the given image's, yet another answer.

FGSM: Goodfellow et al. 2015, "Explaining and Harnessing Adversarial Examples". PGD: Madry et al.
2018, "Towards Deep Learning Models Resistant to Adversarial Attacks". Both know the network and
climb its cross-entropy by the sign of the gradient. Pixels are in [0, 1] and stay there; the
adversarial ones are not rounded to 8 bits.
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


def make_step(logits: Callable[[Any, Pixels], Array], variables: Any) -> Step:
    """Returns `step(attacked, pixels, labels, eps, size) -> attacked`, compiled.

    One step of `size` up the cross-entropy, then back into the eps ball around `pixels` and into
    [0, 1].

    Args:
      logits: `logits(variables, pixels)` in evaluation mode, a pure function.
    """

    def step(
        variables: Any,
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
    """The fast gradient sign method: one step of size `eps`."""
    return step(pixels, pixels, labels, eps, eps)


def pgd(step: Step, pixels: Pixels, labels: Labels, eps: float, key: PRNGKeyArray) -> Pixels:
    """Projected gradient descent: `PGD_STEPS` of `eps` / 4 from a random place in the ball."""
    noise = jax.random.uniform(key, pixels.shape, minval=-eps, maxval=eps)
    attacked = _project(pixels + noise, pixels, eps)
    # Not one compiled loop: on CPU, XLA's convolutions are very slow inside one.
    for _ in range(PGD_STEPS):
        attacked = step(attacked, pixels, labels, eps, eps / 4)
    return attacked
