"""A checkpoint is restored exactly as it was saved, or not at all."""

import gc
import logging
import pathlib

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from cifar_jax.errors import UserError
from cifar_jax.runtime import sharding
from cifar_jax.runtime.checkpoint import Checkpoints


def state_of(step: int) -> dict:
    weights = jax.random.normal(jax.random.key(step), (64, 64))
    state = {"weights": weights, "step": jnp.int32(step), "none": None, "flag": jnp.array(True)}
    return jax.device_put(state, sharding.replicated(sharding.make_mesh()))


def abstract(state: dict) -> dict:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


LIKE = abstract(state_of(0))


def save_all(directory: pathlib.Path, accuracies: dict[int, float | None]) -> None:
    with Checkpoints(epath.Path(directory)) as checkpoints:
        for step, accuracy in accuracies.items():
            checkpoints.save(step, state_of(step), 1.5, accuracy)


def test_the_two_latest_and_the_earliest_best_are_kept(tmp_path: pathlib.Path):
    save_all(tmp_path, {1: 0.5, 2: 0.9, 3: 0.9, 4: 0.7, 5: None, 6: 0.1})
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        assert checkpoints.steps == [2, 5, 6]
        latest, best = checkpoints.restore_latest(LIKE), checkpoints.restore(LIKE, 2)
        assert checkpoints.restore(LIKE, 3) is None
    assert latest is not None and latest.step == 6 and latest.epoch_seconds == 1.5
    assert best is not None and best.step == 2
    np.testing.assert_array_equal(best.state["weights"], state_of(2)["weights"])
    assert best.state["none"] is None


def test_an_empty_directory_has_nothing_to_restore(tmp_path: pathlib.Path):
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        assert checkpoints.restore_latest(LIKE) is None
        assert checkpoints.restore(LIKE, 1) is None


def test_a_relative_directory_works(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    save_all(pathlib.Path("run/checkpoints"), {3: None})
    assert (tmp_path / "run/checkpoints/3").is_dir()


def test_saving_a_step_again_replaces_it(tmp_path: pathlib.Path):
    save_all(tmp_path, {3: None})
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        checkpoints.save(3, state_of(4), 0.0, 0.5)
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        restored = checkpoints.restore(LIKE, 3)
    assert restored is not None
    np.testing.assert_array_equal(restored.state["weights"], state_of(4)["weights"])


def damage(path: pathlib.Path, how: str) -> None:
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "emptied":
        path.write_bytes(b"")
    else:
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :])


@pytest.fixture
def orbax_garbage():
    """Collects the coroutine or event loop that orbax leaks on damage. Otherwise an unrelated later
    test would get the warning."""
    yield
    gc.collect()


@pytest.mark.slow
@pytest.mark.usefixtures("orbax_garbage")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("how", ["missing", "truncated", "emptied", "flipped"])
def test_a_damaged_latest_checkpoint_is_skipped_or_restored_exactly(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, how: str
):
    """Whichever file is damaged, the restored state never differs from the saved one."""
    caplog.set_level(logging.WARNING, "cifar_jax")
    skipped = 0
    save_all(tmp_path / "0", {10: 0.5, 20: 0.4})
    files = [p.relative_to(tmp_path / "0") for p in (tmp_path / "0/20").rglob("*") if p.is_file()]
    for i, name in enumerate(files, start=1):
        directory = tmp_path / str(i)
        save_all(directory, {10: 0.5, 20: 0.4})
        # The names of data files are random, so pick the file by its position.
        damaged = sorted(p for p in (directory / "20").rglob("*") if p.is_file())
        damage(damaged[i - 1], how)
        caplog.clear()
        with Checkpoints(epath.Path(directory)) as checkpoints:
            restored = checkpoints.restore_latest(LIKE)
        assert restored is not None, name
        expected = state_of(restored.step)
        np.testing.assert_array_equal(restored.state["weights"], expected["weights"])
        if restored.step == 10:
            skipped += 1
            assert any("damaged" in record.getMessage() for record in caplog.records), name
    assert skipped >= 2  # at least for the manifest and the data


@pytest.mark.usefixtures("orbax_garbage")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_if_all_checkpoints_are_damaged_one_line_says_so(tmp_path: pathlib.Path):
    save_all(tmp_path, {10: 0.5, 20: 0.4})
    for path in list(tmp_path.glob("*/state/manifest.ocdbt")):
        damage(path, "flipped")
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        with pytest.raises(UserError, match="every checkpoint .* is damaged") as caught:
            checkpoints.restore_latest(LIKE)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_can_be_restored_on_another_number_of_devices(tmp_path: pathlib.Path):
    save_all(tmp_path, {7: None})
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), LIKE)
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        restored = checkpoints.restore_latest(like)
    assert restored is not None and restored.state["weights"].sharding == one
    np.testing.assert_array_equal(restored.state["weights"], state_of(7)["weights"])


def test_a_checkpoint_of_another_tree_is_refused_and_not_taken_for_damaged(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
):
    """Of another version of the code, or of another config: there is nothing to repair."""
    save_all(tmp_path, {10: 0.5, 20: 0.4})
    more = {**LIKE, "momentum": LIKE["weights"]}
    smaller = {**LIKE, "step": LIKE["flag"]}
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        for like, where in ((more, "momentum"), (smaller, "step")):
            with pytest.raises(UserError, match=f"/20 is of another.*{where}") as caught:
                checkpoints.restore_latest(like)
            assert "\n" not in str(caught.value)
        found = checkpoints.entries_of_first(("weights", "none"), [10, 20])
    assert found is not None and found[0] == 10 and found[1]["none"] is None
    np.testing.assert_array_equal(found[1]["weights"], state_of(10)["weights"])
    assert not caplog.records


class Halves(flax.struct.PyTreeNode):
    """Its fields are not in the order of their names."""

    second: jax.Array
    first: jax.Array


def test_entries_are_read_whatever_kind_of_node_they_were_saved_as(tmp_path: pathlib.Path):
    state = {"halves": Halves(jnp.arange(3), jnp.zeros(4)), "steps": (jnp.ones(2), jnp.int32(3))}
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        checkpoints.save(10, jax.device_put(state, sharding.replicated(sharding.make_mesh())))
        found = checkpoints.entries_of_first(("halves", "steps"), [10])
    assert found is not None
    assert found[1]["halves"]["second"].tolist() == [0, 1, 2]
    assert found[1]["halves"]["first"].tolist() == [0] * 4
    assert [leaf.tolist() for leaf in jax.tree.leaves(found[1]["steps"])] == [[1, 1], 3]
