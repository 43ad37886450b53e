"""A JAX/Flax codebase for image classification on CIFAR-10.

```python
import cifar_jax

model = cifar_jax.load("runs/final")  # without an argument, the network in pretrained/
model.predict(images)  # uint8 [N, 32, 32, 3] -> float32 [N, 10], in the order of model.class_names
```
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etils import epath

    from cifar_jax.evaluation.trained import Trained


def load(workdir: "epath.PathLike | None" = None) -> "Trained":
    """Loads the trained network of a run; see `cifar_jax.evaluation.trained.load`.

    Args:
      workdir: None loads the network that comes with the project.
    """
    from cifar_jax import places
    from cifar_jax.evaluation import trained

    return trained.load(places.in_the_box() if workdir is None else workdir)
