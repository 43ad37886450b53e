"""A bug gives a traceback: no code catches the exceptions of bugs and blames the input."""

import ast
import pathlib
import pickle
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from fabricate import every_host_answers
from PIL import Image

from cifar_jax import errors
from cifar_jax.config import files as config_file
from cifar_jax.data import archive, cache, image_formats, images, tfds_prepare
from cifar_jax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = sorted(
    [ROOT / "main.py", *(ROOT / "cifar_jax").rglob("*.py"), *(ROOT / "configs").rglob("*.py")]
)
# What bugs in our own code raise. OSError, from a failed system call, is not among them.
BROAD = {
    *("BaseException", "Exception", "ArithmeticError", "AssertionError", "AttributeError"),
    *("IndexError", "KeyError", "LookupError", "NameError", "RuntimeError", "TypeError"),
    "ValueError",
}
# Places where a library raises these, and the `try` holds only the call of the library.
ALLOWED = {
    "cifar_jax/cli.py:parse": "ValueError: absl's flags, as documented",
    "cifar_jax/runtime/checked.py:_arrays": "KeyError, RuntimeError, ValueError: zipfile, numpy",
    "cifar_jax/runtime/checkpoint/reading.py:_whole": "KeyError, ValueError: orbax, tensorstore",
    "cifar_jax/runtime/checkpoint/saving.py:_writing": "ValueError: tensorstore on a full disk",
    "cifar_jax/runtime/checkpoint/saving.py:_set_aside_damaged": "ValueError: json, orbax",
    "cifar_jax/runtime/checkpoint/saving.py:_read_back": "KeyError, ValueError: orbax, tensorstore",
    "cifar_jax/config/files.py:load": "Exception: the user's own code",
    "cifar_jax/config/files.py:_check_key": "ValueError: the path's parser of ml_collections",
    "cifar_jax/data/archive.py:_parse_python": "as `pickle` documents of damaged bytes",
    "cifar_jax/data/cache.py:_read": "KeyError, RuntimeError, ValueError: zipfile and numpy",
    "cifar_jax/data/cache.py:recall": "ValueError: json",
    "cifar_jax/data/splits.py:_parts": "ValueError: scikit-learn's split",
    "cifar_jax/data/tfds_prepare.py:prepare": "AssertionError, ValueError: TFDS",
    "cifar_jax/data/tfds_source.py:_open": "AssertionError, KeyError, ValueError: TFDS",
    "cifar_jax/data/tfds_source.py:_decode": "TFDS, array_record",
    "cifar_jax/runtime/distributed.py:device_count": "AssertionError, RuntimeError: JAX",
    "cifar_jax/forms.py:parse": "ValueError: json",
    "cifar_jax/data/image_formats.py:reading": "Pillow on damaged files",
    "cifar_jax/data/images.py:_read_file": "ValueError: a path with a NUL",
    "cifar_jax/evaluation/trained.py:_checked": "ValueError: numpy on a list of several shapes",
    "cifar_jax/runtime/torch_files.py:_load": "as `pickle` documents of damaged bytes",
    "cifar_jax/runtime/weights.py:read_flat": "KeyError: safetensors on a dtype that NumPy lacks",
}


def names(node: ast.expr | None, constants: Mapping[str, ast.expr]) -> Iterator[str]:
    """The classes that an `except` names; looks up named tuples of classes."""
    if node is None:
        yield "BaseException"
    elif isinstance(node, ast.Tuple):
        for element in node.elts:
            yield from names(element, constants)
    elif isinstance(node, ast.Starred):
        yield from names(node.value, constants)
    else:
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "?")
        yield from names(constants[name], constants) if name in constants else (name,)


def catches() -> Iterator[tuple[str, set[str]]]:
    """Yields each place that catches exceptions, and their classes."""
    trees = {path: ast.parse(path.read_text()) for path in SOURCES}
    constants = {
        target.id: node.value
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for path, tree in trees.items():
        functions = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        for node in ast.walk(tree):
            caught: list[ast.expr | None] = []
            if isinstance(node, ast.ExceptHandler):
                caught = [node.type]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
                caught = [*node.args]
            for expression in caught:
                around = [f for f in functions if f.lineno <= node.lineno <= (f.end_lineno or 0)]  # pyright: ignore[reportAttributeAccessIssue]
                function = max(around, key=lambda f: f.lineno).name if around else "at its top"
                yield f"{path.relative_to(ROOT)}:{function}", set(names(expression, constants))


def test_broad_classes_are_caught_only_where_a_library_raises_them():
    broad = {place: sorted(classes & BROAD) for place, classes in catches() if classes & BROAD}
    assert {place: classes for place, classes in broad.items() if place not in ALLOWED} == {}
    assert set(ALLOWED) <= set(broad)  # the list has no superfluous entry


def test_the_search_handles_named_tuples_and_nesting():
    found = dict(catches())
    assert "TypeError" in found["cifar_jax/data/image_formats.py:reading"]
    assert "OSError" in found["cifar_jax/data/tfds_prepare.py:lock"]  # from contextlib.suppress


# ---------------------------------------------------------------------------- bugs
def bug(*_, **__: Any):
    raise TypeError("a bug")


@pytest.fixture
def png(tmp_path: pathlib.Path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize(("module", "name"), [(images, "_to_color"), (image_formats, "_check_bmp")])
def test_a_bug_in_reading_images_is_not_reported_as_damage(
    monkeypatch: pytest.MonkeyPatch, png: pathlib.Path, module: types.ModuleType, name: str
):
    Image.open(png).save(png.with_suffix(".bmp"))
    monkeypatch.setattr(module, name, bug)
    with pytest.raises(TypeError, match="a bug"):
        images.decode(png.with_suffix(".bmp"), (8, 8, 3))


@pytest.mark.parametrize("kind", [ValueError, KeyError, RuntimeError])
def test_a_bug_in_checking_the_cache_is_not_reported_as_damage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, kind: type
):
    arrays = {field: np.zeros((1, 2, 2, 3), np.uint8) for field in cache.FIELDS}
    np.savez(tmp_path / "set.npz", allow_pickle=False, **arrays)

    def fault(_):
        raise kind("a bug")

    monkeypatch.setattr(cache, "_fault", fault)
    with pytest.raises(kind, match="a bug"):
        cache.read(tmp_path / "set.npz")


@pytest.mark.parametrize("kind", [TypeError, ValueError, AttributeError])
@pytest.mark.parametrize("suffix", ["", ".bin"])
def test_a_bug_in_reading_the_archive_is_not_reported_as_damage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, kind: type, suffix: str
):
    rows = np.zeros((2, 3072), np.uint8)
    content = pickle.dumps({"data": rows, "labels": [0, 1]}, protocol=2)
    for name in (*archive._TRAIN, archive._TEST):
        (tmp_path / f"{name}{suffix}").write_bytes(bytes(2 * 3073) if suffix else content)

    def to_images(_):
        raise kind("a bug")

    assert archive.read(tmp_path)["train"][0].shape == (10, 32, 32, 3)
    monkeypatch.setattr(archive, "_to_images", to_images)
    with pytest.raises(kind, match="a bug"):
        archive.read(tmp_path)


@pytest.mark.parametrize("kind", [TypeError, AttributeError])
def test_a_bug_in_preparing_does_not_ask_for_tensorflow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, kind: type
):
    def download_and_prepare(**_):
        raise kind("a bug")

    builder = tfds.builder("cifar10", data_dir=tmp_path)
    monkeypatch.setattr(builder, "download_and_prepare", download_and_prepare)
    with every_host_answers(), pytest.raises(kind, match="a bug"):
        tfds_prepare.prepare("cifar10", builder)


def test_a_missing_module_of_this_project_is_a_bug():
    theirs = ModuleNotFoundError("No module", name="gradio.blocks")
    assert "needs gradio.blocks: pip" in str(errors.missing(theirs, "--mode=demo", "r.txt"))
    ours = ModuleNotFoundError("No module", name="cifar_jax.demo.nosuch")
    with pytest.raises(ModuleNotFoundError):
        errors.missing(ours, "--mode=demo", "r.txt")


def test_a_bug_in_reading_a_config_is_not_a_user_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
):
    (tmp_path / "mine.py").write_text("from configs import base\nget_config = base.get_config\n")
    monkeypatch.setattr(config_file, "_split", bug)
    with pytest.raises(TypeError, match="a bug"):
        config_file.load(str(tmp_path / "mine.py"))


def test_only_errors_of_pillow_become_user_errors():
    with pytest.raises(UserError, match="damaged"), image_formats.reading():
        raise SyntaxError("broken PNG file")
    with pytest.raises(ZeroDivisionError), image_formats.reading():
        raise ZeroDivisionError
