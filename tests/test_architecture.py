"""The house: a floor imports only floors below it, and some doors are single."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# From the ground up. A module imports those of lower floors, and its own package's.
FLOORS = [
    {"errors", "memory", "compilation", "reference", "config_tree"},
    {"config", "distributed"},
    {"config_file", "workdir"},
    {"data", "models", "environment", "images", "metrics_writer"},
    {"muon", "adversarial"},
    {"optim", "lookahead", "callbacks", "checkpoint", "sharding", "interrupt", "weights"},
    {"state"},
    {"steps"},
    {"experiment"},
    {"evaluate", "trained"},
    {"robustness", "saliency"},
    {"loop", "predict", "report", "export", "demo"},
    {"train", "seeds"},
    {"modes", "results"},
    {"main"},
]
SOURCES = sorted([ROOT / "main.py", *(ROOT / "cifar_jax").rglob("*.py")])


def room(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "cifar_jax" else parts[0]


def imported(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_floor_imports_only_floors_below(path):
    if room(path) == "__init__":
        return
    level = {name: i for i, names in enumerate(FLOORS) for name in names}
    assert room(path) in level, "a new room needs a floor"
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "cifar_jax" and parts[1] != room(path):
            assert level[parts[1]] < level[room(path)], f"{room(path)} imports {parts[1]}"


@pytest.mark.parametrize(("library", "only"), [("orbax", "checkpoint"), ("tensorflow", None)])
def test_some_libraries_have_one_door(library, only):
    doors = {room(p) for p in SOURCES for name in imported(p) if name.split(".")[0] == library}
    assert doors == ({only} if only else set())


def test_files_hold_one_idea():
    lengths = {path: len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: n for path, n in lengths.items() if n > 260} == {}
