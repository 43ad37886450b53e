"""TFDS directories are read without TensorFlow; each failure gives one clear line."""

import json
import logging
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from fabricate import prepare_cifar10, random_splits

from cifar_jax.data import tfds_source
from cifar_jax.errors import UserError


def test_reading_logs_one_line_about_the_slow_decoding(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
):
    path = prepare_cifar10(tmp_path, random_splits())
    caplog.set_level(logging.INFO, "cifar_jax")
    caplog.clear()
    tfds_source.read("cifar10", tmp_path, prepare=False)
    (record,) = (r for r in caplog.records if r.name.startswith("cifar_jax"))
    expected = f"decoding 24 images of cifar10 from {path} (once; cached afterwards)"
    assert record.getMessage() == expected


def test_the_error_for_a_missing_data_set_says_where_it_was_looked_for(tmp_path: pathlib.Path):
    with pytest.raises(UserError, match="looked for .*cifar10/3.0.2") as error:
        tfds_source.read("cifar10", tmp_path, prepare=False)
    assert "config.data.archive" in str(error.value)


@pytest.mark.parametrize(
    ("typo", "suggestion"), [("cifar1O", "cifar10"), ("digit", "digits"), ("zzz", "cifar100")]
)
def test_an_unknown_name_gets_suggestions(tmp_path: pathlib.Path, typo: str, suggestion: str):
    with pytest.raises(UserError, match=f"name={typo} .*{suggestion}"):
        tfds_source.read(typo, tmp_path, prepare=True)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("imagenet2012", "not all one size"),
        ("beans", "at most 64 pixels"),
        ("eurosat/all", "8 bits"),
        ("imdb_reviews", "not an image"),
        ("wikipedia", "not an image classification set"),
        ("emnist/no_such_config", "no_such_config"),
        ("coco", "cannot open config.data.name=coco"),
    ],
)
def test_an_unsuitable_data_set_is_refused_before_any_download(
    tmp_path: pathlib.Path, name: str, fault: str
):
    with pytest.raises(UserError, match=fault) as error:
        tfds_source.read(name, tmp_path, prepare=True)
    assert name in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def edit_info(path: pathlib.Path, **changes: Any):
    file = path / "dataset_info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_the_error_for_a_tfrecord_directory_says_how_to_fix_it(tmp_path: pathlib.Path):
    path = prepare_cifar10(tmp_path, random_splits())
    edit_info(path, fileFormat="tfrecord")
    with pytest.raises(UserError, match="tfrecord.*TensorFlow.*config.data.archive") as error:
        tfds_source.read("cifar10", tmp_path, prepare=True)
    assert str(path) in str(error.value)


def test_a_data_set_without_a_test_split_is_refused(tmp_path: pathlib.Path):
    path = prepare_cifar10(tmp_path, random_splits())
    info = json.loads((path / "dataset_info.json").read_text())
    edit_info(path, splits=[s for s in info["splits"] if s["name"] == "train"])
    with pytest.raises(UserError, match="splits are train;"):
        tfds_source.read("cifar10", tmp_path, prepare=True)


def truncate(path: pathlib.Path):
    os.truncate(next(path.glob("*test.array_record*")), 60_000)


def flip(path: pathlib.Path):
    file = next(path.glob("*test.array_record*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    content[70_000:70_064] = bytes(range(64))
    file.write_bytes(content)


def remove(path: pathlib.Path):
    next(path.glob("*test.array_record*")).unlink()


@pytest.mark.parametrize("damage", [truncate, flip, remove])
def test_damaged_records_are_a_user_error(tmp_path: pathlib.Path, damage: Callable[..., Any]):
    splits = random_splits(per_batch=40)
    path = prepare_cifar10(tmp_path, splits)
    damage(path)
    with pytest.raises(UserError, match="the test split in .* is damaged") as error:
        tfds_source.read("cifar10", tmp_path, prepare=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["{", None])
def test_damaged_metadata_is_a_user_error(tmp_path: pathlib.Path, content: str | None):
    path = prepare_cifar10(tmp_path, random_splits())
    (path / "dataset_info.json").unlink()
    if content:
        (path / "dataset_info.json").write_text(content)
    with pytest.raises(UserError, match="cannot open|no dataset_info.json") as error:
        tfds_source.read("cifar10", tmp_path, prepare=True)
    assert "\n" not in str(error.value)


def test_no_tensorflow_and_few_slow_imports_are_needed(tmp_path: pathlib.Path):
    prepare_cifar10(tmp_path / "tfds", random_splits())
    script = f"""
import sys
from cifar_jax.config import schema
from cifar_jax.data import sources
sources.KNOWN.clear()  # this is not the official content
data = schema.Data("cifar10", cache_dir={str(tmp_path / "cache")!r}, download=False)
print(sources.load(data).source)
for module in ("tensorflow", "tensorflow_datasets", "sklearn", "jax"):
    print(module, module in sys.modules)
"""
    environment = os.environ | {"TFDS_DATA_DIR": str(tmp_path / "tfds")}
    command = [sys.executable, "-c", script]
    first, second = (
        subprocess.run(command, env=environment, text=True, capture_output=True, check=True).stdout
        for _ in range(2)
    )
    assert first.startswith("TFDS") and "tensorflow_datasets True" in first
    assert "tensorflow False" in first and "sklearn False" in first
    assert second.startswith("cache") and "True" not in second
