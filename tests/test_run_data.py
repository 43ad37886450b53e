"""A run knows its data: others are refused, by what differs, before anything is overwritten."""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny
from etils import epath

from cifar_jax import export
from cifar_jax.data import fingerprint, sources
from cifar_jax.demo import examples
from cifar_jax.evaluation import suites as robustness
from cifar_jax.evaluation import trained
from cifar_jax.report import page
from cifar_jax.runtime import distributed
from cifar_jax.training import run as train
from cifar_jax.training import run_data
from cifar_jax.training import test as evaluate

pytestmark = pytest.mark.slow


def config(**changes: Any):
    whole = tiny.compass()
    whole.update_from_flattened_dict(changes)
    return tiny.typed(whole)


def provide(monkeypatch: pytest.MonkeyPatch, dataset: sources.Dataset) -> None:
    monkeypatch.setattr(sources, "load", lambda _: dataset)


@pytest.fixture
def workdir(compass: epath.Path, tmp_path: pathlib.Path) -> epath.Path:
    """A copy of the shared run to write into."""
    return epath.Path(shutil.copytree(compass, tmp_path / "run"))


def content(workdir: pathlib.Path | epath.Path) -> dict[str, bytes]:
    files = (path for path in pathlib.Path(workdir).rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if path.name != ".lock"}


# ---------------------------------------------------------------------------- what may differ
def changed(**arrays: Any) -> sources.Dataset:
    return dataclasses.replace(tiny.dataset(), **arrays)


def relabelled(split: str) -> sources.Dataset:
    labels = getattr(tiny.dataset(), f"{split}_labels").copy()
    labels[3] = (labels[3] + 1) % 4
    return changed(**{f"{split}_labels": labels})


def repainted(split: str) -> sources.Dataset:
    images = getattr(tiny.dataset(), f"{split}_images").copy()
    images[-1, -1, -1, -1] ^= 1
    return changed(**{f"{split}_images": images})


def resized(split: str, size: int, seed: int) -> sources.Dataset:
    images, labels = tiny.images_and_labels(size, seed)
    return changed(**{f"{split}_images": images, f"{split}_labels": labels})


def of_another_seed() -> sources.Dataset:
    images, labels = tiny.images_and_labels(64, seed=7)
    return changed(train_images=images, train_labels=labels)


def of_another_shape() -> sources.Dataset:
    whole = tiny.dataset()
    shape = (-1, 4, 16, 3)  # the bytes are the same
    return changed(
        train_images=whole.train_images.reshape(shape), test_images=whole.test_images.reshape(shape)
    )


NAMES = tiny.CLASS_NAMES
OTHERS = {
    "swapped names": (
        changed(class_names=(NAMES[1], NAMES[0], *NAMES[2:])),
        "class 0 named 'east' instead of 'north' (the classes are in a different order)",
    ),
    "a new name": (
        changed(class_names=(*NAMES[:3], "up\n")),
        r"class 3 named 'up\n' instead of 'west'",
    ),
    "more classes": (changed(class_names=(*NAMES, "up")), "5 classes instead of 4"),
    "more to train on": (resized("train", 68, 0), "68 train images instead of 64"),
    "less to train on": (resized("train", 60, 0), "60 train images instead of 64"),
    "more to test on": (resized("test", 24, 1), "24 test images instead of 20"),
    "a training label": (relabelled("train"), "different labels of the train images"),
    "a test label": (relabelled("test"), "different labels of the test images"),
    "a training pixel": (repainted("train"), "different pixels in the train images"),
    "a test pixel": (repainted("test"), "different pixels in the test images"),
    "another seed": (of_another_seed(), "different pixels in the train images"),
    "another shape": (of_another_shape(), "images of 4x16x3 instead of 8x8x3"),
}


def refused(call: Callable[[], object], workdir: pathlib.Path | epath.Path) -> str:
    """The line that it is refused with, leaving everything as it was."""
    before = content(workdir)
    with pytest.raises(run_data.OtherData) as error:
        call()
    assert content(workdir) == before
    line = str(error.value)
    assert "\n" not in line and "fabricated" in line and str(workdir) in line
    return line


@pytest.mark.parametrize("name", OTHERS)
def test_other_data_are_refused_by_what_differs(
    monkeypatch: pytest.MonkeyPatch, workdir: epath.Path, name: str
):
    dataset, expected = OTHERS[name]
    provide(monkeypatch, dataset)
    line = refused(lambda: evaluate.run(workdir), workdir)
    assert f"was trained on: {expected};" in line


MODES = {
    # A place is no part of what makes a run the same; where it is refused, none is noted.
    "resume": lambda workdir: train.run(config(**{"data.cache_dir": "elsewhere"}), workdir),
    "finished": lambda workdir: train.run(config(), workdir, write_report=page.write),
    "evaluate": evaluate.run,
    "suite": lambda workdir: robustness.run(workdir, "corruptions", 2),
    "adversarial": lambda workdir: robustness.run(workdir, "adversarial", 2),
    "report": page.run,
    "int8": lambda workdir: export.run(workdir, "onnx-int8"),
}
MISSING = {"resume": "result.json", "finished": "report.html"}  # or the mode asks for no data


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_that_joins_a_run_with_data_refuses_others(
    monkeypatch: pytest.MonkeyPatch, workdir: epath.Path, mode: str
):
    if mode == "int8":
        pytest.importorskip("onnxruntime", reason="requirements-onnx.txt is not installed")
    if mode in MISSING:
        (workdir / MISSING[mode]).unlink()
    provide(monkeypatch, OTHERS["swapped names"][0])
    refused(lambda: MODES[mode](workdir), workdir)


def test_seeds_refuse_other_data_of_any_of_them(
    monkeypatch: pytest.MonkeyPatch, compass: epath.Path, tmp_path: pathlib.Path
):
    workdir = epath.Path(tmp_path)
    for seed in (0, 1):
        shutil.copytree(compass, tmp_path / f"seed-{seed}")
    data = json.loads((compass / "data.json").read_text())
    data["fingerprint"]["test"]["content"] = "0" * 64
    (tmp_path / "seed-1" / "data.json").write_text(json.dumps(data))
    provide(monkeypatch, tiny.dataset())
    before = content(workdir)
    with pytest.raises(run_data.OtherData, match="seed-1 was trained on: different labels"):
        train.run(config(seeds=2), workdir)
    assert content(workdir) == before


def test_the_demo_shows_no_examples_of_other_data(
    monkeypatch: pytest.MonkeyPatch, workdir: epath.Path, caplog: pytest.LogCaptureFixture
):
    provide(monkeypatch, tiny.dataset())
    network = trained.load(workdir)
    assert [example.truth for example in examples.find(network)] == list(NAMES)
    provide(monkeypatch, OTHERS["swapped names"][0])
    assert examples.find(network) == []
    assert "no examples of cifar10" in caplog.text and "order" in caplog.text
    assert network.class_names == NAMES


def test_a_finished_run_keeps_its_names_and_says_its_result(
    monkeypatch: pytest.MonkeyPatch, workdir: epath.Path
):
    provide(monkeypatch, OTHERS["swapped names"][0])
    before = content(workdir)
    result = train.run(config(), workdir)
    assert list(result["class_counts"]["test"]) == list(NAMES)
    assert content(workdir) == before


@pytest.mark.parametrize("changed", [0, 40])
def test_processes_with_different_data_refuse_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, changed: int
):
    def gather(value: np.ndarray):  # with another process' value
        other = value.copy()
        other[:changed] += 1
        return np.stack([value, other])

    provide(monkeypatch, tiny.dataset())
    monkeypatch.setattr(distributed, "several", lambda: True)
    monkeypatch.setattr(distributed.multihost_utils, "process_allgather", gather)
    workdir, data = epath.Path(tmp_path), config().data
    if changed:
        with pytest.raises(run_data.OtherData, match="have different data, this one from fabricat"):
            run_data.load(data, 0, workdir)
    else:
        assert run_data.load(data, 0, workdir).description == tiny.dataset().description


# ---------------------------------------------------------------------------- runs from before
@pytest.fixture
def old(workdir: epath.Path) -> epath.Path:
    """As runs were left before there were fingerprints."""
    path = workdir / "data.json"
    data = json.loads(path.read_text())
    del data["fingerprint"]
    path.write_text(json.dumps(data))
    return workdir


@pytest.mark.parametrize(
    "name", ["swapped names", "a new name", "more classes", "another shape", "another seed"]
)
def test_a_run_without_a_fingerprint_is_compared_by_what_it_has(
    monkeypatch: pytest.MonkeyPatch, old: epath.Path, name: str
):
    dataset, expected = OTHERS[name]
    provide(monkeypatch, dataset)
    if name == "another seed":
        expected = "channel means and standard deviations of the training images differ"
    assert expected in refused(lambda: evaluate.run(old), old)


def test_a_run_without_a_fingerprint_gets_one(
    monkeypatch: pytest.MonkeyPatch, compass: epath.Path, old: epath.Path
):
    provide(monkeypatch, tiny.dataset())
    assert trained.load(old).class_names == NAMES
    evaluate.run(old)
    assert (old / "data.json").read_text() == (compass / "data.json").read_text()
    provide(monkeypatch, OTHERS["a test pixel"][0])
    refused(lambda: evaluate.run(old), old)


# ---------------------------------------------------------------------------- the fingerprint
def test_the_fingerprint_is_of_all_content():
    whole = tiny.dataset().description
    assert fingerprint.differences(whole, tiny.dataset().description) == []
    found = [dataset.description for dataset, _ in OTHERS.values()]
    assert all(fingerprint.differences(whole, one) for one in found)
    assert json.loads(json.dumps(whole)) == whole
    assert whole["fingerprint"]["train"]["images"] == 64


def test_the_fingerprint_forgets_the_order_of_the_source():
    images, labels = tiny.images_and_labels(64)
    one = fingerprint.canonical(images, labels)
    other = fingerprint.canonical(images[::-1], labels[::-1])
    assert fingerprint.of_split(*one) == fingerprint.of_split(*other)
    assert fingerprint.of_split(*one) != fingerprint.of_split(images, labels)
