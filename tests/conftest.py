"""Sets up the test process before anything imports jax.

Eight CPU devices stand in for an accelerator pod, so that every test really shards. New processes
inherit this environment; the test that starts one may choose other devices for it.
"""

import collections
import os
import sys
from pathlib import Path

import pytest

CACHE = Path(__file__).resolve().parent.parent / ".cache"  # ignored by git
DEVICES_FLAG = "--xla_force_host_platform_device_count=8"

if "jax" in sys.modules:
    raise RuntimeError("jax was imported before tests/conftest.py could choose its devices")

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES_FLAG}".strip()
# Keep compiled programs, so that the next run of the suite compiles almost nothing.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files with the most slow tests first.

    With `-n 2 --dist loadfile` a worker takes a file at a time: so none is left with a long one at
    the end. A file's tests stay together, for the fixtures that they share.
    """
    slow = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
