"""The house as README.md draws it: who may import whom; and some doors are single."""

import ast
import graphlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = sorted([ROOT / "main.py", *(ROOT / "cifar_jax").rglob("*.py")])


def room(path: pathlib.Path) -> str:
    """A module of `cifar_jax`, a package of it as a whole, or `main`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "cifar_jax" else parts[0]


def floors(readme: str) -> list[tuple[int, str]]:
    """Floor and room of each link in the second column of the map."""
    _, _, text = readme.partition("\n## A map of the code\n")
    rows = re.findall(r"^\| (\d) \| (.*?) \|", text, re.MULTILINE)
    links = [(floor, link) for floor, cell in rows for link in re.findall(r"\]\((.*?)\)", cell)]
    return [(int(floor), room(ROOT / link)) for floor, link in links]


FLOORS = floors((ROOT / "README.md").read_text())


def imported(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports by a relative name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(path: pathlib.Path) -> set[str]:
    parts = [[*name.split("."), "__init__"] for name in imported(path)]
    return {names[1] for names in parts if names[0] == "cifar_jax"} - {room(path)}


def test_every_module_stands_in_the_map_once():
    assert sorted(name for _, name in FLOORS) == sorted({room(path) for path in SOURCES}), (
        "README.md's map of the code must name each module of cifar_jax"
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_imports_only_from_floors_below(path):
    level = {name: floor for floor, name in FLOORS}
    # The ground floor and the entrance are several files of one idea each.
    own = {name for name, floor in level.items() if floor in (0, 7) and floor == level[room(path)]}
    others = {name for name in rooms_imported(path) - own if level[name] >= level[room(path)]}
    assert not others, f"{room(path)} imports sideways or upwards, by README.md's map"


def test_the_library_knows_nothing_of_what_stands_beside_it():
    beside = {"configs", "benchmarks", "tools", "tests"}
    for path in SOURCES:
        assert not beside & {name.split(".")[0] for name in imported(path)}, path


def test_no_rooms_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        graph.setdefault(room(path), set()).update(rooms_imported(path))
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize(("library", "only"), [("orbax", "runtime"), ("tensorflow", None)])
def test_some_libraries_have_one_door(library, only):
    doors = {room(p) for p in SOURCES for name in imported(p) if name.split(".")[0] == library}
    assert doors == ({only} if only else set())


def test_files_hold_one_idea():
    lengths = {path: len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: n for path, n in lengths.items() if n > 260} == {}
