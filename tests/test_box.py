"""The trained network that comes with the project."""

import json
import pathlib
import shutil
from unittest import mock

import numpy as np
import pytest
from etils import epath

import cifar_jax
from cifar_jax import metrics, places
from cifar_jax.config.schema import Data
from cifar_jax.data import sources
from cifar_jax.demo import examples
from cifar_jax.errors import UserError
from cifar_jax.evaluation.trained import Trained
from tools import box


@pytest.fixture(scope="module")
def network() -> Trained:
    return cifar_jax.load()


def test_it_is_small_and_needs_no_data(network: Trained, monkeypatch: pytest.MonkeyPatch):
    def no_data(*_):
        raise UserError("this machine has no data")

    monkeypatch.setattr(sources, "load", no_data)
    shown = examples.find(network)
    assert [example.truth for example in shown] == list(network.class_names)
    assert len(shown) == 10
    answers = network.predict([example.image for example in shown]).argmax(axis=1)
    assert metrics.accuracy(np.eye(10)[answers], np.arange(10)) >= 0.7
    size = sum(path.stat().st_size for path in box.HOME.rglob("*") if path.is_file())
    assert size < 4e6


@pytest.mark.slow
def test_its_accuracy_is_what_its_card_says(network: Trained, real_cifar10_dir: pathlib.Path):
    dataset = sources.load(Data(dir=str(real_cifar10_dir)))
    logits = network.logits(dataset.test_images)
    accuracy = metrics.accuracy(logits, dataset.test_labels)
    result = json.loads((box.HOME / "result.json").read_text())
    # Another machine may round differently, and a few images lie on the border of two classes.
    assert accuracy == pytest.approx(result["test_accuracy"], abs=5e-4)
    assert (
        f"| test accuracy | {100 * result['test_accuracy']:.2f} % |"
        in (box.HOME / box.CARD).read_text()
    )
    shown = {example.truth: example.image for example in examples.find(network)}
    for label, name in enumerate(dataset.class_names):
        first = dataset.test_images[dataset.test_labels == label][0]
        np.testing.assert_array_equal(shown[name], first)


def test_another_run_replaces_it_and_its_card_stays(finished: epath.Path, tmp_path: pathlib.Path):
    workdir = pathlib.Path(shutil.copytree(finished, tmp_path / "run"))
    home = tmp_path / places.BOX
    (home / "examples").mkdir(parents=True)
    (home / box.CARD).write_text("a card")
    (home / "examples" / "former.png").write_text("a picture")
    environment = json.loads((workdir / "environment.json").read_text())
    start = environment["starts"][0]
    command = f"main.py --config=configs/quickstart.py --workdir={workdir}"
    for clean in (False, True):
        start |= {"command": command, "git_commit": "f" * 40, "git_dirty": not clean}
        environment["starts"] = [start]
        (workdir / "environment.json").write_text(json.dumps(environment))
        if not clean:
            with pytest.raises(UserError, match="a clean commit"):
                box.fill(workdir, home)
    with mock.patch.object(box.examples, "find", return_value=[]):
        with pytest.raises(UserError, match="the data of .* is not here"):
            box.fill(workdir, home)
    assert (home / "examples" / "former.png").exists()
    box.fill(workdir, home)
    assert (home / box.CARD).read_text() == "a card"
    assert {path.name for path in (home / "examples").iterdir()} == {f"{n}.png" for n in range(10)}
    assert cifar_jax.load(home).epoch == cifar_jax.load(workdir).epoch
    table = box.table(home)
    result = json.loads((workdir / "result.json").read_text())
    assert f"| test accuracy | {100 * result['test_accuracy']:.2f} % |" in table
    assert str(tmp_path) not in table + (home / "environment.json").read_text()
