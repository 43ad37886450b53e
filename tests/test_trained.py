"""A network loaded from a finished is the network that was trained."""

import json
import pathlib

import numpy as np
import pytest
from etils import epath

import cifar_jax
from cifar_jax.config import schema
from cifar_jax.data import sources
from cifar_jax.errors import UserError


def test_a_loaded_network_predicts_what_the_test_predicted(
    finished: epath.Path, monkeypatch: pytest.MonkeyPatch
):
    result = json.loads((finished / "result.json").read_text())
    saved = np.load(finished / "predictions.npz")
    images = sources.load(schema.Data("digits")).test_images
    monkeypatch.setattr(sources, "load", None)  # no data set is asked for
    before = sorted(path.name for path in pathlib.Path(finished).rglob("*"))
    model = cifar_jax.load(str(finished))
    assert model.epoch == result["best_epoch"]
    assert (
        list(model.class_names) == list(result["classification_report"])[: len(model.class_names)]
    )
    np.testing.assert_allclose(model.logits(images), saved["logits"], atol=1e-5)
    probabilities = model.predict(images[:3])
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(probabilities, model.predict(images[:7])[:3], atol=1e-6)
    assert model.predict(images[:0]).shape == (0, len(model.class_names))
    assert sorted(path.name for path in pathlib.Path(finished).rglob("*")) == before


@pytest.mark.parametrize("shape", [(2, 31, 32, 3), (32, 32, 3), (2, 32, 32, 1)])
def test_images_of_another_shape_are_refused(finished: epath.Path, shape: tuple[int, ...]):
    with pytest.raises(UserError, match=r"takes images uint8 \[N, 32, 32, 3\]: these are uint8"):
        cifar_jax.load(str(finished)).predict(np.zeros(shape, np.uint8))


def test_floats_are_refused(finished: epath.Path):
    with pytest.raises(UserError, match="these are float32"):
        cifar_jax.load(str(finished)).predict(np.zeros((1, 32, 32, 3), np.float32))


def test_missing_parts_of_a_workdir_are_named(workdir: epath.Path, tmp_path: pathlib.Path):
    with pytest.raises(UserError, match="no run in"):
        cifar_jax.load(str(tmp_path))
    data = (workdir / "data.json").read_text()
    (workdir / "data.json").unlink()
    with pytest.raises(UserError, match="--mode=evaluate"):
        cifar_jax.load(str(workdir))
    (workdir / "data.json").write_text(data)
    metrics = (workdir / "metrics.jsonl").read_text()
    (workdir / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="not finished an epoch yet"):
        cifar_jax.load(str(workdir))
    (workdir / "metrics.jsonl").write_text(metrics)
    (workdir / "checkpoints").rename(workdir / "elsewhere")
    with pytest.raises(UserError, match="missing or damaged"):
        cifar_jax.load(str(workdir))
