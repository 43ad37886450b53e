"""A workdir belongs to one run: its config can be read back, and other configs are refused."""

import dataclasses
import json
import pathlib

import pytest
import tiny
from etils import epath

from cifar_jax.config.schema import Config
from cifar_jax.errors import UserError
from cifar_jax.training import claim
from configs import base, final, speedrun94


def claimed(path: pathlib.Path, config: Config) -> epath.Path:
    """A workdir that a run of the config has claimed and released."""
    workdir = epath.Path(path)
    with claim.claimed(workdir, config):
        pass
    return workdir


@pytest.fixture
def config() -> Config:
    return tiny.typed(final.get_config())


def test_a_saved_config_is_read_back_unchanged(tmp_path: pathlib.Path, config: Config):
    workdir = claimed(tmp_path / "new" / "run", config)
    assert config.model.blocks[3].filters == 512 and config.model.dense == (128, 64)  # pyright: ignore[reportAttributeAccessIssue]
    assert claim.load_config(workdir) == config
    claim.check_config(workdir, config)


def test_other_configs_are_refused_but_other_places_of_the_data_are_not(
    tmp_path: pathlib.Path, config: Config
):
    workdir = claimed(tmp_path, config)
    elsewhere = dataclasses.replace(config, data=dataclasses.replace(config.data, dir="/elsewhere"))
    claim.check_config(workdir, elsewhere)
    with pytest.raises(UserError, match="config.epochs: 40 -> 41$"):
        claim.check_config(workdir, dataclasses.replace(elsewhere, epochs=41))


def test_of_many_keys_that_differ_a_few_are_named(tmp_path: pathlib.Path, config: Config):
    workdir = claimed(tmp_path, config)
    with pytest.raises(UserError, match=r"epochs: 40 -> 8; .*; and \d\d more$") as caught:
        claim.check_config(workdir, tiny.typed(speedrun94.get_config()))
    assert len(str(caught.value)) < 500


def test_a_directory_of_several_seeds_is_not_a_run(tmp_path: pathlib.Path, config: Config):
    workdir = claimed(tmp_path, dataclasses.replace(config, seeds=2, seed=3))
    with pytest.raises(UserError, match="holds runs of 2 seeds.*/seed-3$"):
        claim.load_config(workdir)


def test_a_damaged_config_is_reported_by_name(tmp_path: pathlib.Path):
    (tmp_path / "config.json").write_text('{"seed": 0, "epo')
    with pytest.raises(UserError, match="config.json is damaged"):
        claim.load_config(epath.Path(tmp_path))


def test_a_directory_that_cannot_be_written_is_reported_by_name(
    tmp_path: pathlib.Path, config: Config
):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file/run .*another --workdir"):
        claimed(tmp_path / "file" / "run", config)


def test_a_run_older_than_a_key_has_the_default_of_the_key(tmp_path: pathlib.Path):
    changed = base.get_config()
    changed.optimizer.name, changed.optimizer.momentum = "sgd", 0.7
    config = tiny.typed(changed)
    workdir = claimed(tmp_path, config)
    saved = json.loads((workdir / "config.json").read_text())
    del saved["model"]["dense_l2"], saved["optimizer"]["nesterov"], saved["eval"], saved["init"]
    del saved["model"]["blocks"][1]["l2"]
    (workdir / "config.json").write_text(json.dumps(saved))
    assert claim.load_config(workdir) == config
    claim.check_config(workdir, config)
