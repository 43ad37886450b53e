"""The batch order depends on key and epoch only, and neither loses nor repeats an image."""

import jax
import numpy as np
import pytest

from cifar_jax.data import batches

KEY = jax.random.key(0)


@pytest.mark.parametrize(("size", "batch_size"), [(10, 3), (12, 4), (7, 7), (9, 1)])
def test_each_image_is_in_an_epoch_at_most_once(size: int, batch_size: int):
    order = np.asarray(batches.epoch_order(KEY, 0, size, batch_size))
    assert order.shape == (size // batch_size, batch_size)
    assert order.dtype == np.int32
    assert len(np.unique(order)) == order.size
    assert 0 <= order.min() and order.max() < size


def test_the_dropped_images_change_from_epoch_to_epoch():
    seen = [np.unique(batches.epoch_order(KEY, epoch, 10, 4)) for epoch in range(20)]
    assert all(len(one) == 8 for one in seen)
    assert len(np.unique(np.concatenate(seen))) == 10


def test_every_epoch_has_its_own_order():
    orders = [np.asarray(batches.epoch_order(KEY, epoch, 100, 10)) for epoch in range(4)]
    for i, order in enumerate(orders):
        assert (order.ravel() != np.arange(100)).any()
        assert all((order != other).any() for other in orders[:i])
        np.testing.assert_array_equal(np.sort(order.ravel()), np.arange(100))


def test_the_order_depends_on_key_and_epoch_only():
    order = batches.epoch_order(KEY, 3, 100, 10)
    np.testing.assert_array_equal(order, batches.epoch_order(KEY, 3, 100, 10))
    traced = jax.jit(lambda epoch: batches.epoch_order(KEY, epoch, 100, 10))(3)
    np.testing.assert_array_equal(order, traced)
    other = batches.epoch_order(jax.random.key(1), 3, 100, 10)
    assert (np.asarray(order) != np.asarray(other)).any()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 8, 24, 100])
def test_padded_batches_cover_each_index_once_and_in_order(batch_size: int):
    for size in (1, 2, 7, 8, 9, 23, 24, 100):
        plan = batches.padded_batches(size, batch_size)
        assert plan.shape == (-(-size // batch_size), batch_size)
        assert plan.dtype == np.int32
        flat = plan.ravel()
        np.testing.assert_array_equal(flat[:size], np.arange(size))
        assert (flat[size:] == 0).all() and len(flat) - size < batch_size
