"""Each augmentation is exact to the pixel, and does nothing when it is off."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from cifar_jax.data import augment, mixing, splits

SIZE = 8
KEY = jax.random.key(0)


def distinct(batch: int, seed: int = 0):
    """Images `[batch, 8, 8, 3]` float32 in which no pixel is zero and no two are equal."""
    order = np.random.default_rng(seed).permutation(batch * SIZE * SIZE * 3)
    return ((order + 1) / len(order)).astype(np.float32).reshape(batch, SIZE, SIZE, 3)


def one_hot(batch: int):
    return np.eye(4, dtype=np.float32)[np.arange(batch) % 4]


def options_of(overrides: dict[str, Any]):
    return tiny.typed(tiny.config(overrides)).augment


def draw_of(images: np.ndarray | jax.Array):
    return augment.Draw(jnp.arange(len(images), dtype=jnp.int32), 0, KEY, (None, None))


def apply(overrides: dict[str, Any], key: Any = KEY, batch: int = 32):
    options = options_of({f"augment.{name}": value for name, value in overrides.items()})
    images, targets = jnp.asarray(distinct(batch)), jnp.asarray(one_hot(batch))
    return jax.device_get(augment.augment(options, key, draw_of(images), images, targets))


def test_flip_mirrors_half_of_the_images_exactly():
    images = distinct(512)
    found = apply({"flip": True}, batch=512)[0]
    same = (found == images).all((1, 2, 3))
    mirrored = (found == images[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 0.4 < mirrored.mean() < 0.6  # 512 fair coins: 0.1 is 4.5 standard deviations


def test_alternating_flips_show_both_views_in_any_two_epochs():
    index = jnp.asarray(np.random.default_rng(0).permutation(512).astype(np.int32))
    epochs = [np.asarray(augment.alternating_flips(KEY, index, epoch)) for epoch in range(3)]
    assert (epochs[0] ^ epochs[1]).all() and (epochs[0] == epochs[2]).all()
    assert 0.4 < epochs[0].mean() < 0.6
    # Flips depend on the image, not on its position in the batch.
    again = np.asarray(augment.alternating_flips(KEY, index[::-1], 0))
    np.testing.assert_array_equal(again, epochs[0][::-1])


def test_given_flips_are_applied():
    images = jnp.asarray(distinct(4))
    flips = np.array([True, False, False, True])
    found = augment.mirror(images, jnp.asarray(flips))
    np.testing.assert_array_equal(found[1:3], images[1:3])
    np.testing.assert_array_equal(found[::3], images[::3, :, ::-1])


@pytest.mark.parametrize("fill", ["zero", "reflect"])
@pytest.mark.parametrize("padding", [1, 3])
def test_crop_is_a_window_of_the_padded_image(padding: int, fill: str):
    images = distinct(64)
    found = apply({"crop_padding": padding, "crop_fill": fill}, batch=64)[0]
    assert found.shape == images.shape
    mode = {"zero": "constant", "reflect": "reflect"}[fill]
    padded = np.pad(images, ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)), mode)  # pyright: ignore[reportArgumentType, reportCallIssue]
    side = 2 * padding + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (SIZE, SIZE), (1, 2))
    windows = windows.transpose(0, 1, 2, 4, 5, 3)  # [64, side, side, 8, 8, 3]
    assert windows.shape[1:3] == (side, side)
    matches = (windows == found[:, None, None]).all((3, 4, 5))
    assert (matches.sum((1, 2)) == 1).all()
    seen = matches.any(0)
    # 64 draws miss one of 9 offsets with probability 0.5 %, and reach most of 49.
    assert seen.sum() >= 0.6 * side**2
    assert seen[0].any() and seen[-1].any() and seen[:, 0].any() and seen[:, -1].any()


def test_crop_reaches_every_offset():
    image = np.broadcast_to(distinct(1), (400, SIZE, SIZE, 3))
    found = np.asarray(augment.random_crop(KEY, jnp.asarray(image), 2))
    assert len(np.unique(found.reshape(400, -1), axis=0)) == 25


@pytest.mark.parametrize("size", [1, 3, SIZE])
def test_cutout_zeroes_a_square_fully_inside_the_image(size: int):
    images = distinct(64)
    found = np.asarray(augment.cutout(KEY, jnp.asarray(images), size))
    hole = (found == 0).all(-1)
    assert ((found == images) | hole[..., None]).all()
    assert (hole.sum((1, 2)) == size * size).all()
    assert (hole.any(2).sum(1) == size).all()  # `size` rows
    assert (hole.any(1).sum(1) == size).all()  # and columns; with the area: a square


def test_cutout_reaches_every_position():
    images = jnp.asarray(np.ones((600, SIZE, SIZE, 1), np.float32))
    hole = np.asarray(augment.cutout(KEY, images, 3))[..., 0] == 0
    corners = {(int(rows[0]), int(columns[0])) for rows, columns in map(np.nonzero, hole)}
    assert corners == {(row, column) for row in range(6) for column in range(6)}


def test_mixup_mixes_images_and_targets_with_one_weight():
    images, targets = distinct(16), np.eye(16, dtype=np.float32)
    arguments = jnp.asarray(images), jnp.asarray(targets)
    mixed, mixed_targets = jax.device_get(mixing.mixup(KEY, *arguments, 1.0))
    weight = mixed_targets[0, 0]
    assert 0.01 < weight < 0.99  # with this key; at 0 or 1 the checks below would prove nothing
    np.testing.assert_allclose(mixed_targets.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(mixed_targets, weight * np.eye(16) + (1 - weight) * np.eye(16)[::-1])
    np.testing.assert_allclose(mixed, weight * images + (1 - weight) * images[::-1], rtol=1e-5)


def test_mixup_draws_the_weight_from_the_beta_distribution():
    def weight(key: jax.Array):
        images = jnp.zeros((2, 1, 1, 1))
        return mixing.mixup(key, images, jnp.eye(2), 0.2)[1][0, 0]

    weights = np.asarray(jax.vmap(weight)(jax.random.split(KEY, 2000)))
    # Beta(a, a) has mean 1/2 and variance 1 / (4 * (2 * a + 1)).
    assert weights.mean() == pytest.approx(0.5, abs=0.04)
    assert weights.var() == pytest.approx(1 / (4 * 1.4), rel=0.05)


def test_cutmix_puts_in_a_rectangle_and_mixes_targets_by_its_area():
    images, targets = distinct(16), np.eye(16, dtype=np.float32)
    areas = []
    for key in jax.random.split(KEY, 30):
        arguments = jnp.asarray(images), jnp.asarray(targets)
        found, mixed = jax.device_get(mixing.cutmix(key, *arguments, 1.0))
        patch = (found == images[::-1]).all((0, 3))
        np.testing.assert_array_equal(patch, ~(found == images).all((0, 3)))
        assert patch.sum() == patch.any(0).sum() * patch.any(1).sum()  # a rectangle
        areas.append(patch.mean())
        expected = areas[-1] * np.eye(16)[::-1] + (1 - areas[-1]) * np.eye(16)
        np.testing.assert_allclose(mixed, expected, atol=1e-6)
    # Beta(1, 1) is uniform: all sizes occur, but for what the border cuts off.
    assert min(areas) < 0.1 and max(areas) > 0.5 and 0.25 < np.mean(areas) < 0.5


@pytest.mark.slow
def test_with_mixup_and_cutmix_each_batch_gets_one_of_them():
    kinds = set()
    for key in jax.random.split(KEY, 20):
        images, targets = apply({"mixup": 1.0, "cutmix": 1.0}, key)
        changed = (images != distinct(32)).any(-1)
        if changed.any():
            kinds.add("mixup" if changed.all() else "cutmix")
            # Mixed once, so there are at most two classes.
            assert ((targets > 0).sum(1) <= 2).all()
    assert kinds == {"mixup", "cutmix"}


def test_jitter_multiplies_pixels_and_their_distance_from_the_mean_gray():
    pixels = 0.3 + 0.3 * jnp.asarray(distinct(512))
    gray = (pixels @ jnp.array([0.299, 0.587, 0.114])).mean((1, 2))[:, None, None, None]
    for brightness, contrast, center in ((0.4, 0.0, 0.0), (0.0, 0.4, gray)):
        changed = augment.jitter(KEY, pixels, brightness, contrast)
        factors = np.asarray((changed - center) / (pixels - center)).reshape(512, -1)
        factor = np.median(factors, 1)
        assert 0.6 <= factor.min() < 0.62 and 1.38 < factor.max() <= 1.4
        assert abs(factor.mean() - 1) < 0.05  # 4.9 standard deviations of the mean
        np.testing.assert_allclose(
            changed, center + factor[:, None, None, None] * (pixels - center), atol=1e-4
        )
    extreme = augment.jitter(KEY, jnp.asarray(distinct(64)), 0.9, 0.9)
    assert extreme.min() == 0 and extreme.max() == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trivial", "jitter"])
def test_colors_change_alike_whatever_the_images_are_standardized_by(name: str):
    images = jnp.asarray(tiny.images_and_labels(50)[0])
    mean, std = np.array([0.5, 0.4, 0.3], np.float32), np.array([0.2, 0.3, 0.4], np.float32)
    keys = {"trivial": True} if name == "trivial" else {"brightness": 0.5, "contrast": 0.5}
    options = options_of({f"augment.{key}": value for key, value in keys.items()})

    def changed(*statistics: np.ndarray | None) -> jax.Array:
        draw = draw_of(images)._replace(statistics=statistics)
        pixels = augment.normalize(images, *statistics)
        return augment.augment(options, KEY, draw, pixels, jnp.zeros((50, 4)))[0]

    plain = changed(None, None)
    assert (plain != augment.normalize(images, None, None)).any()
    np.testing.assert_allclose(changed(mean, std) * std + mean, plain, atol=1e-5)


EVERYTHING = {
    "flip": True,
    "crop_padding": 2,
    "brightness": 0.2,
    "trivial": True,
    "cutout": 3,
    "mixup": 0.5,
}
MIXES = {"mixup", "cutmix"}


def test_without_augmentations_nothing_changes():
    images, targets = apply({})
    np.testing.assert_array_equal(images, distinct(32))
    np.testing.assert_array_equal(targets, one_hot(32))


@pytest.mark.parametrize("name", [*EVERYTHING, "contrast", "cutmix"])
def test_each_option_turns_on_its_augmentation(name: str):
    images, targets = apply({name: EVERYTHING.get(name, 0.5)})
    assert (images != distinct(32)).any()
    assert (targets != one_hot(32)).any() == (name in MIXES)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)


def test_results_depend_on_the_step_and_are_repeatable():
    keys = [jax.random.fold_in(KEY, step) for step in (0, 1)]
    images, targets = apply(EVERYTHING, keys[0])
    again, targets_again = apply(EVERYTHING, keys[0])
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(targets, targets_again)
    other, other_targets = apply(EVERYTHING, keys[1])
    assert (images != other).any((1, 2, 3)).all()
    assert (targets != other_targets).any()


def test_each_augmentation_differs_between_steps():
    for name, value in EVERYTHING.items():
        first, second = (apply({name: value}, jax.random.fold_in(KEY, step))[0] for step in (0, 1))
        assert (first != second).any(), name


def test_one_augmentation_does_not_change_the_draws_of_another():
    flipped, _ = apply({"flip": True})
    with_hole, _ = apply({"flip": True, "cutout": 3})
    alone, _ = apply({"cutout": 3})
    hole = with_hole == 0
    np.testing.assert_array_equal(hole, alone == 0)
    np.testing.assert_array_equal(with_hole, np.where(hole, 0, flipped))
    _, targets = apply(EVERYTHING)
    _, targets_alone = apply({"mixup": EVERYTHING["mixup"]})
    np.testing.assert_array_equal(targets, targets_alone)


@pytest.mark.parametrize(("kind", "count"), [("none", 1), ("flip", 2), ("multicrop", 6)])
def test_view_weights_sum_to_one_and_each_view_has_its_mirror_image(kind: str, count: int):
    images = distinct(2)
    views = [(w, np.asarray(view)) for w, view in augment.views(jnp.asarray(images), kind)]
    assert len(views) == count and sum(w for w, _ in views) == 1
    np.testing.assert_array_equal(views[0][1], images)
    for (w, view), (w_mirrored, mirrored) in zip(views[::2], views[1::2], strict=False):
        assert w == w_mirrored
        np.testing.assert_array_equal(mirrored, view[:, :, ::-1])
    if kind == "multicrop":
        assert [w for w, _ in views] == [1 / 4] * 2 + [1 / 8] * 4
        np.testing.assert_array_equal(views[2][1][:, 1:, 1:], images[:, :-1, :-1])
        np.testing.assert_array_equal(views[2][1][:, 0, 1:], images[:, 1, :-1])  # reflected
        np.testing.assert_array_equal(views[4][1][:, :-1, :-1], images[:, 1:, 1:])


def test_names_lists_the_active_augmentations_in_order():
    assert augment.names(options_of({})) == []
    options = options_of({"augment.mixup": 0.2, "augment.flip": True})
    assert augment.names(options) == ["random_flip", "mixup"]
    options = options_of({"augment.crop_padding": 4, "augment.cutout": 8})
    assert augment.names(options) == ["random_crop", "cutout"]
    options = options_of({"augment.flip": True, "augment.alternate_flips": True})
    assert augment.names(options) == ["alternating_flip"]
    options = options_of({"augment.mixup": 0.2, "augment.cutmix": 1.0, "augment.trivial": True})
    assert augment.names(options) == ["trivial_augment", "mixup_or_cutmix"]
    options = options_of({"augment.contrast": 0.1, "augment.cutout": 8})
    assert augment.names(options) == ["color_jitter", "cutout"]


def test_normalize_scales_bytes_to_the_unit_interval():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    found = augment.normalize(jnp.asarray(images), None, None)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, images / 255, rtol=1e-6)


def test_standardized_images_have_mean_zero_and_standard_deviation_one():
    images, _ = tiny.images_and_labels(50)
    images = images * np.array([1, 0.5, 0.1]) + np.array(
        [0, 40, 90]
    )  # channels with different statistics
    images = images.astype(np.uint8)
    mean, std = splits.channel_statistics(images)
    found = np.asarray(augment.normalize(jnp.asarray(images), mean, std))
    np.testing.assert_allclose(found.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std((0, 1, 2)), 1, rtol=1e-5)
