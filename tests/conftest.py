"""Sets up the test process before anything imports jax.

Eight CPU devices stand in for an accelerator pod, so that every test really shards. New processes
inherit this environment; the test that starts one may choose other devices for it.
"""

import collections
import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import filelock
import pytest
from command_line import QUICK
from etils import epath

CACHE = Path(__file__).resolve().parent.parent / ".cache"  # ignored by git
DEVICES_FLAG = "--xla_force_host_platform_device_count=8"

if "jax" in sys.modules:
    raise RuntimeError("jax was imported before tests/conftest.py could choose its devices")

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), DEVICES_FLAG, QUICK])
# Keep compiled programs, so that the next run of the suite compiles almost nothing.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Tests never write to the user's own caches.
os.environ["XDG_CACHE_HOME"] = str(CACHE)
os.environ["KERAS_HOME"] = str(CACHE / "keras")
os.environ["KERAS_BACKEND"] = "jax"


@pytest.fixture(scope="session")
def real_cifar10_dir() -> Path:
    """$TFDS_DATA_DIR, if it has cifar10; otherwise the test is skipped."""
    data_dir = os.environ.get("TFDS_DATA_DIR")
    if not data_dir or not (Path(data_dir) / "cifar10").is_dir():
        pytest.skip("real CIFAR-10 not found: set TFDS_DATA_DIR")
    return Path(data_dir)


# ---------------------------------------------------------------------------- finished runs
@contextlib.contextmanager
def shared(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """The workdir of a run that all tests of a session share: the first to enter trains it.

    With pytest-xdist, processes enter one after the other and share a directory.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    with filelock.FileLock(base / f"{name}.lock"):
        yield base / "finished" / name


def times(directory: Path) -> dict[Path, int]:
    """When each file of a directory was changed last, in nanoseconds."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


def unchanged(workdir: Path) -> Iterator[epath.Path]:
    """Gives a shared run to the tests; fails at the end if one of them wrote into it."""
    before = times(workdir)
    yield epath.Path(workdir)
    assert times(workdir) == before, "a test changed a run that others read: copy it first"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[epath.Path]:
    """A finished run of tests/configs/tiny.py, trained as a user does, for tests that only read."""
    import command_line

    with shared(tmp_path_factory, "digits") as workdir:
        if not (workdir / "result.json").exists():
            status, output = command_line.run(command_line.TINY, f"--workdir={workdir}")
            assert status == 0, output
    yield from unchanged(workdir)


@pytest.fixture
def two_devices() -> Iterator[None]:
    """The test uses two of the eight devices: see `tiny.two_devices`."""
    import tiny

    with tiny.two_devices():
        yield


@pytest.fixture
def workdir(finished: epath.Path, tmp_path: Path) -> epath.Path:
    """A copy of `finished` for a test to change."""
    return epath.Path(shutil.copytree(finished, tmp_path / finished.name))


@pytest.fixture(scope="session")
def compass(tmp_path_factory: pytest.TempPathFactory) -> Iterator[epath.Path]:
    """A finished run of `tiny.compass()` on `tiny.dataset()`, for tests that only read."""
    import tiny

    from cifar_jax.data import sources

    with shared(tmp_path_factory, "compass") as workdir:
        if not (workdir / "report.html").exists():
            with mock.patch.object(sources, "load", return_value=tiny.dataset()):
                tiny.train(tiny.compass(), workdir, report=True)
    yield from unchanged(workdir)


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[epath.Path]:
    """The workdir of a finished search of tests/configs/search.py, for tests that only read."""
    import command_line

    with shared(tmp_path_factory, "search") as workdir:
        if not (workdir / "search.html").exists():
            search = ("--mode=search", "--config=tests/configs/search.py")
            status, output = command_line.run(*search, f"--workdir={workdir}")
            assert status == 0, output
            assert "4 of 4, about 0 s left" in output
    yield from unchanged(workdir)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files with the most slow tests first.

    With `-n 2 --dist loadfile` a worker takes a file at a time: so none is left with a long one at
    the end. A file's tests stay together, for the fixtures that they share.
    """
    slow = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
