"""Remote addresses work or are refused; none ever creates a local directory "gs:"."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import pytest
from test_sources import config

import cifar_jax
from cifar_jax import export, places
from cifar_jax.data import image_paths, sources
from cifar_jax.errors import UserError
from cifar_jax.runtime import compilation

REMOTE = ["gs://b/x", "s3://b/x", "az://b/x", "hf://u/x", "foo://x", "http://h/x", "GS://b",
             "gs:/b/x", "hdfs://h/x", "file:///tmp/x", "a+b://x", "gs://"]  # fmt: skip
LOCAL = ["a", "./gs:/b", "/tmp/a", "a:b", "a b/c", "x/gs://y", "2026:/12"]


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """Runs in an empty directory, which must still be empty afterwards."""
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


def load(**changes: Any):
    return sources.load(config(**{"name": "cifar10:3.0.2", **changes}))


@pytest.fixture
def uses(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """Functions that use a path, by the option or variable that it comes from."""

    def with_variable(name: str, call: Callable[..., Any]):
        def use(path: str):
            monkeypatch.setenv(name, path)
            call()

        return use

    def compile_in(path: str | None):
        monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))  # restored at the end
        before = jax.config.values["jax_compilation_cache_dir"]
        jax.config.update("jax_compilation_cache_dir", path)
        try:
            compilation.set_up()
        finally:
            jax.config.update("jax_compilation_cache_dir", before)

    def workdir(path: str | pathlib.Path):
        return places.anywhere(path, "--workdir")

    return {
        "config.data.dir": lambda path: load(dir=path),
        "config.data.archive": lambda path: load(name="cifar10", archive=path),
        "config.data.cache_dir": lambda path: load(cache_dir=path),
        "unused cache_dir": lambda path: load(name="digits", cache_dir=path),
        "TFDS_DATA_DIR": with_variable("TFDS_DATA_DIR", load),
        "XDG_CACHE_HOME": with_variable("XDG_CACHE_HOME", lambda: load(name="cifar10")),
        "XDG_CACHE_HOME for programs": with_variable("XDG_CACHE_HOME", lambda: compile_in(None)),
        "JAX_COMPILATION_CACHE_DIR": compile_in,
        "--workdir": workdir,
        "--output": lambda path: export.run(workdir(tmp_path), "stablehlo", path),
        "predict": image_paths.find,
        "load": cifar_jax.load,
    }


@pytest.mark.parametrize("path", REMOTE)
def test_remote_addresses_are_refused_in_one_line(uses: dict[str, Callable[..., Any]], path: str):
    lines = {}
    for name, use in uses.items():
        try:
            lines[name] = f"done: {use(path)}"
        except UserError as error:
            lines[name] = str(error)
    for name, line in lines.items():
        assert "\n" not in line and path in line, name
        # No client of an object store is installed.
        assert "this machine" in line or "cannot be reached" in line, name


@pytest.mark.parametrize("path", LOCAL)
def test_local_paths_are_unchanged(path: str):
    assert str(places.local(path, "x")) == path.replace("//", "/").removeprefix("./")
    if "://" not in path:  # etils would take it for an address
        assert str(places.anywhere(path, "x")) == path.removeprefix("./")


def test_a_tilde_is_expanded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    for place in (places.local, places.anywhere):
        assert str(place("~/a", "x")) == "/home/me/a"
        assert str(place("~nobody-of-that-name/a", "x")) == "~nobody-of-that-name/a"
