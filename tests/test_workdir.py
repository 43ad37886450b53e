"""Files of a workdir are written atomically, and damage is reported."""

import json

import numpy as np
import pytest
from etils import epath

from cifar_jax.config import tree as config_tree
from cifar_jax.config import validation as config_lib
from cifar_jax.errors import UserError
from cifar_jax.runtime import workdir
from configs import base, final


def test_a_config_survives_saving_and_loading(tmp_path):
    config = final.get_config()
    workdir.claim(epath.Path(tmp_path) / "new" / "run", config)
    loaded = workdir.load_config(epath.Path(tmp_path) / "new" / "run")
    config_lib.validate(loaded)
    assert config_tree.flat(loaded).keys() == config_tree.flat(config).keys()
    assert loaded.model.blocks[3].filters == 512 and loaded.model.dense == (128, 64)
    assert config_tree.differences(loaded, config) == []
    workdir.check_config(epath.Path(tmp_path) / "new" / "run", config)


def test_a_different_config_is_refused_but_different_paths_are_not(tmp_path):
    config = final.get_config()
    workdir.claim(epath.Path(tmp_path), config)
    config.data.dir = "/elsewhere"
    workdir.check_config(epath.Path(tmp_path), config)
    config.epochs = 41
    with pytest.raises(UserError, match="config.epochs: 40 -> 41"):
        workdir.check_config(epath.Path(tmp_path), config)


def test_a_file_is_replaced_completely_or_not_at_all(tmp_path):
    path = epath.Path(tmp_path) / "result.json"
    workdir.write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        workdir.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    workdir.write_npz(epath.Path(tmp_path) / "a.npz", {"x": np.arange(3)})
    with np.load(tmp_path / "a.npz") as file:
        assert file["x"].tolist() == [0, 1, 2]
    assert {p.name for p in tmp_path.iterdir()} == {"result.json", "a.npz"}


def test_damaged_json_is_reported(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 0, "epo')
    with pytest.raises(UserError, match="config.json is damaged"):
        workdir.load_config(epath.Path(tmp_path))


def test_an_unwritable_workdir_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file/run .*another --workdir"):
        workdir.claim(epath.Path(tmp_path) / "file" / "run", final.get_config())


def test_a_key_that_an_old_run_lacks_gets_its_default(tmp_path):
    config = base.get_config()
    config.optimizer.momentum = 0.7
    path = epath.Path(tmp_path)
    workdir.claim(path, config)
    saved = json.loads((path / "config.json").read_text())
    del saved["model"]["widths"], saved["optimizer"]["nesterov"], saved["eval"]
    del saved["model"]["blocks"][1]["l2"]
    (path / "config.json").write_text(json.dumps(saved))
    assert workdir.load_config(path).to_dict() == config.to_dict()
    workdir.check_config(path, config)
