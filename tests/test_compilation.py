"""Programs that XLA's CPU library gets wrong do not use it, and gradients stay exact.

Compiled by `jax.jit` of jax 0.10.2 or 0.12.0.1, the programs below are wrong or crash.
"""

import ast
import functools
import importlib
import os
import pathlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from jax import lax

from cifar_jax import models
from cifar_jax.config.schema import Model
from cifar_jax.models import cnn, efficientnet_lite, layers, speedrun
from cifar_jax.runtime import compilation
from cifar_jax.training import state

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem[0] != "_")
CONFIGS.remove("base")
# As a user's programs are compiled, which most tests are not.
jit = functools.partial(compilation.jit, compiler_options={"xla_backend_optimization_level": 3})


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def with_constant(e: jax.Array):
    return jnp.sum((e @ jnp.full((64, 64), 0.5, e.dtype)) * e, -1)


def with_constant_bias(e: jax.Array):
    return jnp.sum(jnp.square(e @ jnp.full((64, 32), 0.5, e.dtype) + 1), 0)


def largest_product(e: jax.Array):
    return jnp.max(e @ jnp.full((64, 64), 0.5, e.dtype), -1)


def gradient_of_constant(e: jax.Array):
    return jax.grad(lambda e: jnp.sum(jnp.square(e @ jnp.full((64, 64), 0.5, e.dtype))))(e)


def vmapped_matrix_vector(x: jax.Array):
    matrix = jnp.eye(3, dtype=x.dtype)
    return jax.vmap(lambda row: jnp.sum(jnp.square(matrix @ row)))(x)


def batch_of_products(a: jax.Array, b: jax.Array):
    return jnp.sum(jnp.square(jnp.einsum("nij,nj->ni", a, b)), -1)


def product_over(axis: int):
    return lambda a, b: jnp.sum(a * b, axis=axis)


SEVEN_AXES = (3, 1, 2, 2, 8, 8, 8)
REPRODUCERS = {
    "a product with a constant": (with_constant, normal(257, 64)),
    "a product with a constant, plus one": (with_constant_bias, normal(257, 64)),
    "the largest of products": (largest_product, normal(257, 64)),
    "the gradient of a product with a constant": (gradient_of_constant, normal(257, 64)),
    "a vmapped matrix-vector product": (vmapped_matrix_vector, normal(32_769, 3)),
    "many small products": (batch_of_products, normal(32_769, 3, 3), normal(32_769, 3)),
    "seven axes": (product_over(3), normal(*SEVEN_AXES), normal(*SEVEN_AXES)),
    "seven axes, the last": (product_over(-1), normal(*SEVEN_AXES), normal(*SEVEN_AXES)),
    "eight axes": (product_over(3), normal(*SEVEN_AXES, 2), normal(*SEVEN_AXES, 2)),
}


def in_float64(function: Callable[..., Any], *arrays: np.ndarray):
    """Runs operation by operation, so that nothing is fused."""
    with jax.enable_x64(True), jax.disable_jit():
        return np.asarray(function(*(jnp.asarray(array, jnp.float64) for array in arrays)))


@pytest.mark.parametrize("name", REPRODUCERS)
def test_programs_that_the_library_gets_wrong_give_correct_results(name: str):
    function, *arrays = REPRODUCERS[name]
    expected = in_float64(function, *arrays)
    np.testing.assert_allclose(
        jit(function)(*arrays), expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max()
    )


def test_a_dilated_window_gives_correct_results():
    """The library drops the holes if window and stride are 1 (xla issue 48714)."""

    def pool(x: jax.Array):
        return lax.reduce_window(
            x, -np.inf, lax.max, (2, 1), (2, 1), ((0, 0), (0, 0)), base_dilation=(1, 2)
        )

    x = normal(64, 128)
    dilated = np.full((64, 255), -np.inf, np.float32)
    dilated[:, ::2] = x
    expected = dilated.reshape(32, 2, 255).max(1)
    np.testing.assert_array_equal(jit(pool)(x), expected)


def test_reductions_use_the_library():
    """Without it, training would be a third slower."""
    x = jax.ShapeDtypeStruct((128, 32, 32, 64), np.float32)
    program = jit(lambda x: (x * x).sum((0, 1, 2))).compile(x).as_text()
    assert "__ynn_fusion" in program and compilation.is_sound(program)  # pyright: ignore[reportArgumentType, reportOperatorIssue]


def test_each_shape_dtype_and_static_argument_gets_its_own_program():
    double = jit(lambda x, n: x * n, static_argnums=(1,))
    assert double(np.float32([1, 2]), 2).tolist() == [2, 4]  # pyright: ignore[reportArgumentType]
    assert double(np.float32([1, 2]), 3).tolist() == [3, 6]  # pyright: ignore[reportArgumentType]
    assert double(np.int32([1, 2, 3]), 3).tolist() == [3, 6, 9]  # pyright: ignore[reportArgumentType]
    assert double(1.5, 3) == 4.5 and double(2, 3) == 6


def test_a_program_of_many_temporaries_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    """Otherwise the next one would be given as many before the first has returned its own."""
    waited = []
    wait = jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", lambda x: waited.append(x) or wait(x))
    program = jit(lambda x: (x[:, None] * x) @ x)
    for numbers, count in ((10, 0), (9_500, 1)):  # 0.34 GiB of temporaries
        program(np.zeros(numbers, np.float32))
        assert len(waited) == count


def test_every_program_of_the_package_is_compiled_by_this_jit():
    """Exceptions: StableHLO export, which lowers for others to compile, and a part of a program."""
    found = {
        path.name
        for path in (ROOT / "cifar_jax").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in ("jit", "pmap", "compile")
        and getattr(node.value, "id", "") in ("jax", "nn", "eqx", "pjit")
    }
    assert found == {"compilation.py", "stablehlo_format.py", "unfused.py"}


def test_single_operations_do_not_use_the_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=all")
    monkeypatch.setitem(jax.config.values, "jax_compilation_cache_dir", "/somewhere")
    compilation.set_up()
    compilation.set_up()
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[1:] == ["--xla_cpu_experimental_ynn_fusion_type="]


# ---------------------------------------------------------------------------- gradients
def gradient(model: nn.Module, variables: Any, images: jax.Array, targets: jax.Array):
    """The gradient of the mean cross-entropy in training mode, for all parameters."""

    def loss_of(params: Any, batch_stats: Any, images: jax.Array, targets: jax.Array):
        logits, _ = model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return optax.softmax_cross_entropy(logits, targets).mean()

    return jax.grad(loss_of)(*variables, images, targets)


_CHECKED: dict[Model, float] = {}  # results by network, since model1 and model2 share one


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_the_gradient_of_each_config_agrees_with_float64(name: str):
    """Up to 1e-3 of its norm, for each parameter; the reference uses XLA's own convolutions.

    Most differ by 1e-6. If two pixels of a pooling window are equal up to rounding, the gradient
    may go to the other one. Dropout is off, since it draws other numbers in float64.
    """
    config = importlib.import_module(f"configs.{name}").get_config()
    if config.model.name == "cnn":
        config.model.dense_dropout = 0.0
        for block in config.model.blocks:
            block.dropout = 0.0
    elif config.model.name == "efficientnet_lite":
        config.model.dropout = 0.0
        config.model.frozen_blocks = 0
        config.model.frozen_norm = True  # statistics of 8 pixels, 50 times over, amplify rounding
    network = tiny.typed(config).model
    if network not in _CHECKED:
        with tiny.few_blocks():
            _CHECKED[network] = largest_difference(network)
    assert _CHECKED[network] < 1e-3


def largest_difference(config: Model) -> float:
    model = models.build(config, (32, 32, 3), 10)
    variables = jit(lambda: state.init_variables(model, 0, (32, 32, 3)))()
    variables = jax.device_get((variables["params"], variables["batch_stats"]))
    rng = np.random.default_rng(0)
    images = rng.standard_normal((8, 32, 32, 3)).astype(np.float32)
    targets = np.eye(10, dtype=np.float32)[rng.integers(0, 10, 8)]
    found = jit(lambda *arguments: gradient(model, *arguments))(variables, images, targets)
    with jax.enable_x64(True):
        precise = model.clone(dtype=np.dtype(np.float64))
        wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables)
        plain: dict[str, Any] = {"conv_general_dilated": lax.conv_general_dilated}
        with (
            mock.patch.multiple(cnn, **plain),
            mock.patch.multiple(efficientnet_lite, **plain),
            mock.patch.multiple(layers, **plain),
            mock.patch.multiple(speedrun, **plain),
        ):
            reference = jax.jit(lambda *arguments: gradient(precise, *arguments))
            expected = jax.device_get(reference(wide, images, targets))
    # Batch norm takes the gradient of a bias before it to 0, up to rounding.
    floor = 1e-3 * max(np.linalg.norm(leaf) for leaf in jax.tree.leaves(expected))
    differences = jax.tree.map(
        lambda a, b: float(np.linalg.norm(a - b) / max(np.linalg.norm(b), floor)),
        jax.device_get(found),
        expected,
    )
    return max(jax.tree.leaves(differences))
