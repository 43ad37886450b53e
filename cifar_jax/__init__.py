"""The reference JAX/Flax codebase for CIFAR-10.

```python
import cifar_jax

model = cifar_jax.load("runs/final")
model.predict(images)  # uint8 [N, 32, 32, 3] -> float32 [N, 10], in the order of model.class_names
```
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etils import epath

    from cifar_jax.trained import Trained


def load(workdir: "epath.PathLike") -> "Trained":
    """The trained network of a run; see `cifar_jax.trained.load`."""
    from cifar_jax import trained  # here, so that a part of the package needs not all of it

    return trained.load(workdir)
