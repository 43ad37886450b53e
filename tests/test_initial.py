"""Initial values are random, computed from the data, or loaded from another run."""

import pathlib
import shutil

import jax
import numpy as np
import pytest
import tiny
from etils import epath

from cifar_jax.config import migration
from cifar_jax.errors import UserError
from cifar_jax.evaluation import trained
from cifar_jax.runtime import weights
from cifar_jax.runtime import workdir as files
from cifar_jax.training import initial

pytestmark = pytest.mark.slow
SOURCE = {"data.name": "digits", "epochs": 1, "batch_size": 64, "data.standardize": True}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished run on the digits, with batch norm and a moving average of the parameters."""
    workdir = tmp_path_factory.mktemp("source")
    config = tiny.config(SOURCE | {"optimizer.ema_decay": 0.9})
    config.model.blocks = (tiny.BATCH_NORM_BLOCK,)
    tiny.train(config, workdir)
    return workdir


def start(source: pathlib.Path, skip: tuple[str, ...] = (), dense: tuple[int, ...] = (8,)):
    """The experiment of a run that starts from `source`, and its initial state."""
    config = tiny.config(SOURCE | {"init.source": str(source), "init.skip": skip})
    config.model.blocks, config.model.dense = (tiny.BATCH_NORM_BLOCK,), dense
    exp = tiny.build_real(config)
    return exp, jax.device_get(exp.initial_state())


def test_a_run_starts_from_the_evaluated_parameters_of_another(source: pathlib.Path):
    _, state = start(source)
    wanted = jax.device_get(trained.load(source).variables)
    jax.tree.map(np.testing.assert_array_equal, state.params, wanted["params"])
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats, wanted["batch_stats"])
    assert int(state.step) == 0


def test_skipped_paths_keep_fresh_values(source: pathlib.Path):
    exp, state = start(source, skip=("head/.*",))
    wanted = jax.device_get(trained.load(source).variables)["params"]
    fresh = tiny.build_real(tiny.config(SOURCE | {"model.blocks": (tiny.BATCH_NORM_BLOCK,)}))
    np.testing.assert_array_equal(state.params["dense_0"]["kernel"], wanted["dense_0"]["kernel"])
    assert (state.params["head"]["kernel"] != wanted["head"]["kernel"]).all()
    expected = jax.device_get(fresh.initial_state()).params["head"]["kernel"]
    np.testing.assert_array_equal(state.params["head"]["kernel"], expected)


@pytest.mark.parametrize(
    ("skip", "dense", "fault"),
    [
        ((), (9,), r"differs: params/dense_0/bias \(\[8\] there, \[9\] here\), and 2 more"),
        ((), (8, 8), r"params/dense_1/bias \(absent there, \[8\] here\), and 1 more"),
        ((), (), r"params/dense_0/bias \(\[8\] there, absent here\)"),
        (("dense_0/.*",), (9,), r"params/head/kernel \(\[8, 10\] there, \[9, 10\] here\);"),
        (("haed/.*",), (8,), r"config.init.skip: 'haed/\.\*' matches no parameter"),
    ],
)
def test_variables_that_differ_and_are_not_skipped_are_refused_by_path(
    source: pathlib.Path, skip: tuple[str, ...], dense: tuple[int, ...], fault: str
):
    with pytest.raises(UserError, match=fault) as caught:
        start(source, skip, dense)
    assert "\n" not in str(caught.value)


def test_a_run_may_start_from_exported_weights(source: pathlib.Path, tmp_path: pathlib.Path):
    network = trained.load(source)
    (tmp_path / files.WEIGHTS).write_bytes(weights.to_bytes(network.variables))
    _, state = start(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, state.params, network.variables["params"])


def test_a_source_without_a_run_is_named(tmp_path: pathlib.Path):
    with pytest.raises(UserError, match="no run in .*nowhere"):
        start(tmp_path / "nowhere")


def test_a_resumed_run_does_not_need_its_source(source: pathlib.Path, tmp_path: pathlib.Path):
    origin, workdir = tmp_path / "origin", tmp_path / "run"
    shutil.copytree(source, origin)
    config = tiny.config(SOURCE | {"init.source": str(origin), "epochs": 2})
    config.model.blocks = (tiny.BATCH_NORM_BLOCK,)
    whole = tiny.train(config, workdir)
    shutil.rmtree(origin)
    # As if killed after the first epoch.
    (workdir / files.RESULT).unlink()
    shutil.rmtree(workdir / files.CHECKPOINTS / str(2 * steps_per_epoch(workdir)))
    again = tiny.train(config, workdir)
    assert again["test_loss"] == whole["test_loss"]
    saved = migration.to_json(tiny.typed(config))
    assert saved["init"]["source"] == str(origin)


def steps_per_epoch(workdir: pathlib.Path) -> int:
    """Steps in an epoch of a run."""
    return min(int(path.name) for path in (workdir / files.CHECKPOINTS).iterdir())


def test_whitening_uses_the_number_of_images_in_the_config():
    exp = tiny.build(tiny.config({"model.whitening": True, "init.whitening_images": 7}))
    found = initial.from_data(exp.config.init, exp.model, exp.train[0], exp.statistics)
    assert set(found) == {"params/stem/kernel"}
    kernel = exp.initial_state().params["stem"]["kernel"]
    np.testing.assert_array_equal(kernel, found["params/stem/kernel"])
    more = initial.from_data(
        tiny.typed(tiny.config()).init, exp.model, exp.train[0], exp.statistics
    )
    assert (more["params/stem/kernel"] != found["params/stem/kernel"]).any()
    plain = tiny.build(tiny.config())
    assert initial.from_data(plain.config.init, plain.model, plain.train[0], (None, None)) == {}


def test_a_source_may_be_an_epath(source: pathlib.Path):
    config = tiny.typed(tiny.config({"init.source": str(epath.Path(source))}))
    found = initial.from_source(config.init, config.model, trained.load(source).variables).variables
    assert "params/head/kernel" in found and "batch_stats/batch_normalization_0/mean" in found
