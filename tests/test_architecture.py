"""Packages import each other only as the map in README.md allows."""

import ast
import graphlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = sorted([ROOT / "main.py", *(ROOT / "cifar_jax").rglob("*.py")])


def package(path: pathlib.Path) -> str:
    """What the map calls a package: a package or a module of `cifar_jax`, or `main`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "cifar_jax" else parts[0]


def floors(readme: str) -> list[tuple[int, str]]:
    """Floor and package of each link in the second column of the map."""
    _, _, text = readme.partition("\n## A map of the code\n")
    rows = re.findall(r"^\| (\d) \| (.*?) \|", text, re.MULTILINE)
    links = [(floor, link) for floor, cell in rows for link in re.findall(r"\]\((.*?)\)", cell)]
    return [(int(floor), package(ROOT / link)) for floor, link in links]


FLOORS = floors((ROOT / "README.md").read_text())


def imported(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages_imported(path: pathlib.Path) -> set[str]:
    parts = [[*name.split("."), "__init__"] for name in imported(path)]
    return {names[1] for names in parts if names[0] == "cifar_jax"} - {package(path)}


def test_the_map_names_every_module_once():
    assert sorted(name for _, name in FLOORS) == sorted({package(path) for path in SOURCES}), (
        "README.md's map of the code must name each module of cifar_jax"
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_imports_only_from_floors_below(path: pathlib.Path):
    level = {name: floor for floor, name in FLOORS}
    # Floors 0 and 7 hold several files, which may import each other.
    own = {
        name for name, floor in level.items() if floor in (0, 7) and floor == level[package(path)]
    }
    others = {name for name in packages_imported(path) - own if level[name] >= level[package(path)]}
    assert not others, f"{package(path)} imports sideways or upwards, by README.md's map"


def test_the_library_does_not_import_its_users():
    users = {"configs", "benchmarks", "tools", "tests"}
    for path in SOURCES:
        assert not users & {name.split(".")[0] for name in imported(path)}, path


def test_a_benchmark_that_is_a_command_is_imported_by_nobody():
    # Its flags would be defined beside those of main.py, some of which have the same names.
    users = [
        path for name in ("benchmarks", "tools", "tests") for path in (ROOT / name).rglob("*.py")
    ]
    commands = {
        f"{path.parent.name}.{path.stem}"
        for path in users
        if "flags.DEFINE_" in path.read_text() and path.parts[-2] in ("benchmarks", "tools")
    }
    assert commands
    assert {path: names for path in users if (names := commands & imported(path))} == {}


def test_no_packages_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        graph.setdefault(package(path), set()).update(packages_imported(path))
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize(("library", "only"), [("orbax", "runtime"), ("tensorflow", None)])
def test_one_package_imports_orbax_and_none_tensorflow(library: str, only: str | None):
    importers = {
        package(p) for p in SOURCES for name in imported(p) if name.split(".")[0] == library
    }
    assert importers == ({only} if only else set())


def test_files_are_short():
    lengths = {path: len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: n for path, n in lengths.items() if n > 260} == {}


# The story of a run, what it is built into, and where its config is kept. Packages that are about
# whole configs: a trial of a search is one.
HOLD_THE_CONFIG = {f"training/{name}.py" for name in ("run", "experiment", "seeds", "claim")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_function_takes_the_section_that_it_needs_and_not_the_whole_config(path: pathlib.Path):
    place = path.relative_to(ROOT / "cifar_jax") if "cifar_jax" in path.parts else path
    if place.parts[0] in ("config", "search") or str(place) in HOLD_THE_CONFIG:
        return
    names = imported(path)
    assert not any(name.startswith("ml_collections.ConfigDict") for name in names)
    if "cifar_jax.config.schema.Config" not in names and "cifar_jax.config.schema" not in names:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            annotations = [ast.unparse(arg.annotation) for arg in every if arg.annotation]
            assert not {"Config", "schema.Config"} & set(annotations) - own_classes(path), node.name


def own_classes(path: pathlib.Path) -> set[str]:
    """Classes that a file defines: a network's own Config is one of its own."""
    return {n.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ClassDef)}
