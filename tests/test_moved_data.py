"""A run's data may move: it goes on wherever the same data are found."""

import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import tiny
from etils import epath
from fabricate import Splits, prepare_cifar10, random_splits, write_tar
from test_sources import official  # noqa: F401

from cifar_jax import export
from cifar_jax.data import archive, fingerprint, sources, tfds_prepare
from cifar_jax.demo import examples
from cifar_jax.errors import UserError
from cifar_jax.evaluation import suites as robustness
from cifar_jax.evaluation import trained
from cifar_jax.report import page
from cifar_jax.training import run as train
from cifar_jax.training import run_data
from cifar_jax.training import test as evaluate

pytestmark = pytest.mark.slow

SET = "cifar10:3.0.2"  # not in `sources.KNOWN`, like most data sets


@pytest.fixture(autouse=True)
def machine(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """A machine without caches and without a TFDS directory."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


def config(**data: Any):
    changes = {f"data.{key}": value for key, value in data.items()}
    changes = {"data.name": SET, "epochs": 1, "data.stratified": False, **changes}
    return tiny.typed(tiny.config(changes))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory):
    """A directory with a finished run, its data and its cache."""
    root = tmp_path_factory.mktemp("original")
    prepare_cifar10(root / "data", random_splits(per_batch=8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "xdg"))
        train.run(config(dir=str(root / "data")), epath.Path(root / "run"))
    return root


@pytest.fixture
def workdir(original: pathlib.Path, tmp_path: pathlib.Path) -> epath.Path:
    """A copy of the run whose config names a missing data directory."""
    workdir = epath.Path(shutil.copytree(original / "run", tmp_path / "run"))
    place(workdir, dir=str(tmp_path / "gone"))
    return workdir


def place(workdir: epath.Path, **data: Any) -> None:
    saved = json.loads((workdir / "config.json").read_text())
    saved["data"] |= data
    (workdir / "config.json").write_text(json.dumps(saved))


def unmounted(tmp_path: pathlib.Path, workdir: epath.Path):
    (tmp_path / "gone").mkdir()


def unwritable_cache(tmp_path: pathlib.Path, workdir: epath.Path):
    place(workdir, cache_dir="/proc/no/such/place")


def in_a_store(tmp_path: pathlib.Path, workdir: epath.Path):
    place(workdir, dir="gs://bucket/tfds", cache_dir="gs://bucket/cache")


@pytest.mark.parametrize("also", [None, unmounted, unwritable_cache, in_a_store])
@pytest.mark.parametrize("where", ["cache", "TFDS_DATA_DIR"])
def test_missing_data_are_reported_and_found_elsewhere(
    original: pathlib.Path,
    workdir: epath.Path,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    where: str,
    also: Callable[..., None] | None,
):
    if also:
        also(tmp_path, workdir)
    source, target = ("xdg", "xdg") if where == "cache" else ("data", "tfds")
    shutil.copytree(original / source, tmp_path / target)
    evaluate.run(workdir)
    assert f"; using the same data from {where[:4]}" in caplog.text.replace("\n", "")
    assert (workdir / "data.json").read_text() == (original / "run" / "data.json").read_text()


def resumed(workdir: epath.Path):
    (workdir / "result.json").unlink()
    return train.run(config(dir=str(workdir.parent / "gone")), workdir)


MODES = {
    "resume": resumed,
    "suite": lambda workdir: robustness.run(workdir, "adversarial", 2),
    "report": page.run,
    "int8": lambda workdir: export.run(workdir, "onnx-int8", str(workdir / "x.onnx")),
    "examples": lambda workdir: examples.find(trained.load(workdir)),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_finds_moved_data(
    original: pathlib.Path,
    workdir: epath.Path,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
):
    if mode == "int8":
        pytest.importorskip("onnxruntime", reason="requirements-onnx.txt is not installed")
        from cifar_jax.export import onnx_format, onnx_int8_format

        # These take seconds and come after the data are found.
        network = trained.load(workdir)
        monkeypatch.setattr(onnx_format, "to_model", lambda network: None)
        monkeypatch.setattr(onnx_int8_format, "quantize", lambda _, images: bytes(len(images)))
        monkeypatch.setattr(
            onnx_format,
            "call",
            lambda _, batches: {name: network.logits(batches[name]) for name in batches},
        )
    shutil.copytree(original / "xdg", tmp_path / "xdg", dirs_exist_ok=True)
    found = MODES[mode](workdir)
    assert "gone does not exist; using the same data from cache" in caplog.text
    assert found and "left out" not in caplog.text


def test_a_new_data_directory_can_be_given(
    original: pathlib.Path,
    workdir: epath.Path,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
):
    moved = shutil.copytree(original / "data", tmp_path / "moved")
    evaluate.run(workdir, str(moved))
    assert "instead" not in caplog.text
    shutil.rmtree(tmp_path / "xdg")
    (workdir / "result.json").unlink()
    train.run(config(dir=str(moved)), workdir)  # not a different config; the new directory is saved
    assert json.loads((workdir / "config.json").read_text())["data"]["dir"] == str(moved)
    evaluate.run(workdir)
    assert "instead" not in caplog.text


def test_data_found_elsewhere_must_be_the_same(workdir: epath.Path, tmp_path: pathlib.Path):
    prepare_cifar10(tmp_path / "tfds", random_splits(seed=1, per_batch=8))
    with pytest.raises(UserError, match=f"^config.data.dir={tmp_path}/gone does not exist$"):
        evaluate.run(workdir)
    with pytest.raises(run_data.OtherData, match="different pixels in the train images"):
        evaluate.run(workdir, str(tmp_path / "tfds"))


def test_without_a_fingerprint_no_data_are_taken_from_elsewhere(
    original: pathlib.Path, workdir: epath.Path, tmp_path: pathlib.Path
):
    data = json.loads((workdir / "data.json").read_text())
    del data["fingerprint"]
    (workdir / "data.json").write_text(json.dumps(data))
    shutil.copytree(original / "data", tmp_path / "tfds")
    with pytest.raises(UserError, match="gone does not exist$"):
        evaluate.run(workdir)
    evaluate.run(workdir, str(tmp_path / "tfds"))


def test_a_remote_cache_directory_is_reported(
    original: pathlib.Path,
    workdir: epath.Path,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
):
    place(workdir, dir="", cache_dir="gs://bucket/cache", download=False)
    shutil.copytree(original / "data", tmp_path / "tfds")
    evaluate.run(workdir)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("config.data.cache_dir=gs://bucket/cache is not on this machine")


def test_the_cache_is_preferred_to_a_download(
    original: pathlib.Path,
    workdir: epath.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """The TFDS directory is gone, and the config allows downloads."""
    place(workdir, dir="", download=True)
    shutil.copytree(original / "xdg", tmp_path / "xdg", dirs_exist_ok=True)
    monkeypatch.setattr(tfds_prepare, "prepare", None)
    evaluate.run(workdir)


def test_a_moved_archive_is_found(
    tmp_path: pathlib.Path,
    official: Splits,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
):
    path = write_tar(tmp_path, "binary", official)
    workdir = epath.Path(tmp_path / "run")
    begun = config(name="cifar10", archive=str(path))
    train.run(begun, workdir)
    data = json.loads((workdir / "data.json").read_text())
    assert data["class_names"] == list(archive.CLASS_NAMES)
    known = sources.KNOWN["cifar10"].description
    assert fingerprint.differences(known, data) == []
    moved = path.rename(tmp_path / "moved.tar.gz")
    evaluate.run(workdir)  # from the cache
    shutil.rmtree(tmp_path / "xdg")
    with pytest.raises(UserError, match="config.data.archive=.* does not exist"):
        evaluate.run(workdir)
    evaluate.run(workdir, str(moved))
    shutil.rmtree(tmp_path / "xdg")
    evaluate.run(workdir, str(tmp_path / "unpacked"))
    shutil.rmtree(tmp_path / "xdg")
    prepare_cifar10(tmp_path / "tfds", official)
    evaluate.run(workdir)
    assert "does not exist; using the same data from TFDS" in caplog.text


def test_published_data_sets_are_looked_for_on_this_machine(
    workdir: epath.Path, tmp_path: pathlib.Path
):
    (tmp_path / "tfds" / "cifar10_1").mkdir(parents=True)
    data = trained.load(workdir).config.data
    assert run_data.tfds_directory(data, "cifar10_1/v6") == tmp_path / "tfds"
    (tmp_path / "gone" / "cifar10_1").mkdir(parents=True)
    assert run_data.tfds_directory(data, "cifar10_1/v6") == tmp_path / "gone"
