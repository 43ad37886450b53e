"""A power cut loses no finished file: each is on the disk before it is renamed."""

import contextlib
import errno
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import command_line
import numpy as np
import pytest
import test_checkpoint
import tiny
from etils import epath

from cifar_jax import export
from cifar_jax.errors import UserError
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checkpoint import Checkpoints
from cifar_jax.runtime.metrics_writer import MetricsWriter

pytestmark = pytest.mark.slow

# These may be lost: TensorBoard's numbers are also in metrics.jsonl, and the lock is empty.
UNIMPORTANT = ("tensorboard", ".lock")


class Recorder:
    """Records the order in which files and directories are synced and renamed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.synced: dict[tuple[int, int], tuple[int, int]] = {}  # inode -> (time, size)
        self.renamed: dict[str, tuple[int, int, int]] = {}  # path -> (time, inode)
        self.now = 0
        sync = os.fsync
        monkeypatch.setattr(os, "fsync", lambda descriptor: self._sync(sync, descriptor))
        for name in ("rename", "replace"):
            rename = getattr(os, name)
            monkeypatch.setattr(
                os, name, lambda src, dst, rename=rename, **kw: self._rename(rename, src, dst, **kw)
            )

    def _sync(self, sync: Callable[[int], None], descriptor: int) -> None:
        self.now += 1
        sync(descriptor)
        found = os.fstat(descriptor)
        self.synced[found.st_dev, found.st_ino] = self.now, found.st_size

    def _rename(
        self,
        rename: Callable[..., None],
        source: str | os.PathLike[str],
        target: str | os.PathLike[str],
        **arguments: Any,
    ) -> None:
        self.now += 1
        rename(source, target, **arguments)
        found = os.stat(target)
        self.renamed[os.fspath(target)] = (self.now, found.st_dev, found.st_ino)

    def assert_durable(self, path: pathlib.Path) -> None:
        """Asserts that the file was synced before its last rename, and its directory after it."""
        renamed, *inode = self.renamed[str(path)]
        when, size = self.synced[tuple(inode)]  # pyright: ignore[reportArgumentType]
        assert when < renamed and size == path.stat().st_size, f"{path}: renamed, then written"
        assert self.when(path.parent) > renamed, f"{path}: its directory is not on the disk"

    def when(self, path: pathlib.Path) -> int:
        found = path.stat()
        return self.synced.get((found.st_dev, found.st_ino), (0, 0))[0]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


WRITERS = {
    "bytes": lambda path: files.write_bytes(path, b"content"),
    "json": lambda path: files.write_json(path, {"a": 1}),
    "npz": lambda path: files.write_npz(path, {"a": np.arange(9)}),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_is_on_the_disk_before_it_is_renamed(
    tmp_path: pathlib.Path, recorder: "Recorder", writer: str
):
    for _ in range(2):  # a new file, then a replacement
        WRITERS[writer](epath.Path(tmp_path) / "file")
        recorder.assert_durable(tmp_path / "file")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: pathlib.Path):
    path = epath.Path(tmp_path) / "result.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        files.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    files.write_npz(epath.Path(tmp_path) / "a.npz", {"x": np.arange(3)})
    with np.load(tmp_path / "a.npz") as file:
        assert file["x"].tolist() == [0, 1, 2]
    assert {p.name for p in tmp_path.iterdir()} == {"result.json", "a.npz"}


def test_a_row_is_on_the_disk_when_the_next_epoch_begins(
    tmp_path: pathlib.Path, recorder: "Recorder"
):
    row = {"epoch": 1, "step": 10, "train_loss": 0.5}
    with MetricsWriter(epath.Path(tmp_path), 0) as writer:
        writer.append(row)
        recorder.assert_durable(tmp_path / "metrics.jsonl")
        writer.append(row | {"epoch": 2, "step": 20})
        recorder.assert_durable(tmp_path / "metrics.jsonl")
    with MetricsWriter(epath.Path(tmp_path), 10):  # drops the later row
        recorder.assert_durable(tmp_path / "metrics.jsonl")


def test_a_checkpoint_is_on_the_disk_before_the_next_is_saved(
    tmp_path: pathlib.Path, recorder: "Recorder"
):
    directory = tmp_path / "checkpoints"
    with Checkpoints(epath.Path(directory)) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, test_checkpoint.state_of(step), 1.5, 0.5)
            checkpoints.wait()
            path = directory / str(step)
            everything = [path, *path.rglob("*")]
            assert all(recorder.when(each) for each in everything)
            assert recorder.when(directory) > recorder.renamed[str(path)][0]
            recorder.assert_durable(path / "crc32.txt")


def test_directories_that_a_run_creates_are_on_the_disk(
    tmp_path: pathlib.Path, recorder: "Recorder"
):
    files.make_directory(epath.Path(tmp_path) / "a" / "b" / "c")
    for name in (".", "a", "a/b"):
        assert recorder.when(tmp_path / name), f"what {name} holds"


def test_every_file_of_a_finished_run_is_on_the_disk(tmp_path: pathlib.Path, recorder: "Recorder"):
    config = command_line.tiny_config()
    config.epochs = 1
    workdir = epath.Path(tmp_path)
    tiny.train(config, workdir, report=True)
    export.run(workdir, "safetensors")
    export.run(workdir, "stablehlo")
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    important = [p for p in left if not {*p.relative_to(tmp_path).parts} & {*UNIMPORTANT}]
    names = {path.name for path in important}
    assert {"result.json", "metrics.jsonl", "config.json", "report.html"} <= names
    for path in important:
        assert recorder.when(path), f"{path} may be empty after a power cut"
        if "checkpoints" not in path.parts and "safetensors" not in path.parts:
            recorder.assert_durable(path)


# Modules that write by other means than `workdir.write_bytes`, and what.
WRITE_BY_THEMSELVES = {
    "runtime/workdir.py": "write_bytes itself",
    "export/stablehlo_format.py": "a copy that another process tries",
    "data/cache.py": "a cache, which has checksums and is made again",
}


def test_there_is_one_way_to_write_a_file():
    sources = command_line.ROOT / "cifar_jax"
    writes = re.compile(r"(?<!\bfiles)\.write_(bytes|text)\(|\bopen\([^)]*[\"'][wax]|json\.dump\(")
    found = {
        str(p.relative_to(sources)) for p in sources.rglob("*.py") if writes.search(p.read_text())
    }
    assert found == {*WRITE_BY_THEMSELVES}


def test_an_object_store_is_left_to_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "open", None)
    files.sync(epath.Path("gs://bucket/run/config.json"))


@pytest.mark.parametrize("code", ["EINVAL", "ENOTSUP"])
def test_a_file_system_that_cannot_sync_directories_will_do(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, code: str
):
    with refusing(monkeypatch, getattr(errno, code)):
        files.write_json(epath.Path(tmp_path) / "file", {})
    assert (tmp_path / "file").exists()


def test_a_disk_that_fails_is_named_and_the_old_file_stays(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    path = epath.Path(tmp_path) / "file"
    files.write_json(path, {"a": 1})
    with refusing(monkeypatch, errno.EIO), pytest.raises(UserError, match="cannot write"):
        files.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@contextlib.contextmanager
def refusing(monkeypatch: pytest.MonkeyPatch, code: int) -> Iterator[None]:
    def refuse(descriptor: int):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        yield
