"""Object stores and other addresses work or are refused: no local folder "gs:" is ever made."""

import os

import jax
import pytest
from test_sources import config

import cifar_jax
from cifar_jax import export, modes, places
from cifar_jax.data import image_paths, sources
from cifar_jax.errors import UserError
from cifar_jax.runtime import compilation

ELSEWHERE = ["gs://b/x", "s3://b/x", "az://b/x", "hf://u/x", "foo://x", "http://h/x", "GS://b",
             "gs:/b/x", "hdfs://h/x", "file:///tmp/x", "a+b://x", "gs://"]  # fmt: skip
HERE = ["a", "./gs:/b", "/tmp/a", "a:b", "a b/c", "x/gs://y", "2026:/12"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A directory in which nothing may be made."""
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


def load(**changes):
    return sources.load(config(**{"name": "cifar10:3.0.2", **changes}))


@pytest.fixture
def uses(tmp_path, monkeypatch):
    """What takes a path, by what the path is given as."""

    def with_variable(name, call):
        def use(path):
            monkeypatch.setenv(name, path)
            call()

        return use

    def compile_in(path):
        monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))  # put back at the end
        before = jax.config.values["jax_compilation_cache_dir"]
        jax.config.update("jax_compilation_cache_dir", path)
        try:
            compilation.set_up()
        finally:
            jax.config.update("jax_compilation_cache_dir", before)

    return {
        "config.data.dir": lambda path: load(dir=path),
        "config.data.archive": lambda path: load(name="cifar10", archive=path),
        "config.data.cache_dir": lambda path: load(cache_dir=path),
        "a cache_dir that is not used": lambda path: load(name="digits", cache_dir=path),
        "TFDS_DATA_DIR": with_variable("TFDS_DATA_DIR", load),
        "XDG_CACHE_HOME": with_variable("XDG_CACHE_HOME", lambda: load(name="cifar10")),
        "XDG_CACHE_HOME of programs": with_variable("XDG_CACHE_HOME", lambda: compile_in(None)),
        "JAX_COMPILATION_CACHE_DIR": compile_in,
        "--workdir": modes._directory,
        "--output": lambda path: export.run(modes._directory(str(tmp_path)), "stablehlo", path),
        "predict": image_paths.find,
        "load": cifar_jax.load,
    }


@pytest.mark.parametrize("path", ELSEWHERE)
def test_what_lies_elsewhere_is_refused_in_one_line(uses, path):
    lines = {}
    for name, use in uses.items():
        try:
            lines[name] = f"done: {use(path)}"
        except UserError as error:
            lines[name] = str(error)
    for name, line in lines.items():
        assert "\n" not in line and path in line, name
        # Of the stores no client is installed.
        assert "this machine" in line or "cannot be reached" in line, name


@pytest.mark.parametrize("path", HERE)
def test_what_lies_here_is_taken_as_it_is(path):
    assert str(places.local(path, "x")) == path.replace("//", "/").removeprefix("./")
    if "://" not in path:  # which etils would take for an address
        assert places.anywhere(path, "x") == modes._directory(path)


def test_home_is_replaced(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for place in (places.local, places.anywhere):
        assert str(place("~/a", "x")) == "/home/me/a"
        assert str(place("~nobody-of-that-name/a", "x")) == "~nobody-of-that-name/a"
