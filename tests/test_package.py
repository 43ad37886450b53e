"""The package as `pip install .` makes it: what is inside, what it needs, what it starts."""

import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import command_line
import pytest
import yaml
from packaging import requirements, specifiers, utils

from cifar_jax import places

ROOT = pathlib.Path(__file__).parent.parent
LISTS = {path.stem: path for path in (ROOT / "requirements").glob("*.txt")}
EXTRAS = sorted(set(LISTS) - {"run"})
NOT_COPIED = shutil.ignore_patterns(
    ".*", "__pycache__", "build", "*.egg-info", "results", "runs", "shared"
)


def pip(*arguments: str | pathlib.Path) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--no-deps", "--no-index"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    home = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, home / "source", ignore=NOT_COPIED)
    pip("wheel", "--no-build-isolation", "--wheel-dir", home, home / "source")
    (path,) = home.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A prefix with the package and its command, inside a git repository that ignores it."""
    repository = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "--quiet", repository], check=True)
    (repository / ".gitignore").write_text("prefix")
    pip("install", "--prefix", repository / "prefix", wheel)
    return repository / "prefix"


@pytest.fixture(scope="module")
def environment(installed: pathlib.Path) -> dict[str, str]:
    """The variables with which Python finds the installed package."""
    (packages,) = installed.glob("lib/python*/site-packages")
    return {
        **os.environ,
        "XLA_FLAGS": command_line.QUICK,
        "PYTHONPATH": str(packages),
        "PYTHONSAFEPATH": "1",
    }


def parsed(lines: list[str]) -> list[requirements.Requirement]:
    """The requirements of a file's or a wheel's lines; a comment starts after a space."""
    bare = (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines)
    return [requirements.Requirement(line) for line in bare if line]


def listed(name: str) -> list[requirements.Requirement]:
    return parsed(LISTS[name].read_text().splitlines())


def instructions(path: pathlib.Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: pathlib.Path):
    source = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cifar_jax").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = zipfile.ZipFile(wheel).namelist()
    beside = {name.partition("/share/cifar-jax/")[2] for name in names if ".data/data/" in name}
    packed = {name for name in names if ".dist-info/" not in name and ".data/" not in name}
    assert packed == source
    box = ROOT / places.BOX
    kept = {path.relative_to(ROOT).as_posix() for path in box.rglob("*") if path.is_file()}
    assert beside == kept and f"{places.BOX}/model.safetensors" in beside
    for page in ("report/templates/run", "pages/templates/base", "search/templates/search"):
        assert f"cifar_jax/{page}.html" in packed


def test_the_wheel_needs_what_the_requirements_files_install(installed: pathlib.Path):
    (path,) = installed.glob("lib/python*/site-packages/*.dist-info")
    needed = parsed(importlib.metadata.PathDistribution(path).requires or [])
    for extra in ("", *EXTRAS):
        for version in ("3.11", "3.13"):
            chosen = {"python_version": version, "extra": extra}
            wanted = listed("run") + (listed(extra) if extra else [])
            assert {
                (r.name, *sorted(r.extras), str(r.specifier))
                for r in needed
                if r.marker is None or r.marker.evaluate(chosen)
            } == {
                (r.name, *sorted(r.extras), str(r.specifier))
                for r in wanted
                if r.marker is None or r.marker.evaluate(chosen)
            }, (extra, version)


def test_each_list_is_written_once_and_installed_by_a_file_of_its_name():
    assert instructions(ROOT / "requirements.txt") == [
        "-c constraints.txt",
        "-r requirements/run.txt",
    ]
    files = {path.name for path in ROOT.glob("requirements-*.txt")}
    assert files == {f"requirements-{name}.txt" for name in (*EXTRAS, "dev")}
    for name in EXTRAS:
        lines = instructions(ROOT / f"requirements-{name}.txt")
        assert lines == ["-r requirements.txt", f"-r requirements/{name}.txt"]


@pytest.mark.parametrize(
    ("stamp", "list_"),
    [
        ("run", "requirements.txt"),
        ("demo", "requirements-demo.txt"),
        ("dev", "requirements-dev.txt"),
    ],
)
def test_make_installs_again_when_a_list_has_changed(stamp: str, list_: str):
    def included(name: str) -> set[str]:
        more = {line.split()[1] for line in instructions(ROOT / name) if line[:2] in ("-r", "-c")}
        return {name}.union(*map(included, more))

    for changed in included(list_):
        target = [f"--what-if={changed}", f".venv/.installed-{stamp}"]
        done = subprocess.run(
            ["make", "--dry-run", *target], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert f"-r {list_}" in done.stdout, changed


def test_what_is_listed_has_the_version_that_is_pinned():
    """So whoever changes a list and forgets `make constraints` hears of it here."""
    pins = parsed(instructions(ROOT / "constraints.txt"))
    pinned = {(utils.canonicalize_name(pin.name), str(pin.specifier)) for pin in pins}
    for name in LISTS:
        for requirement in listed(name):
            wanted = (utils.canonicalize_name(requirement.name), str(requirement.specifier))
            assert wanted in pinned, requirement


@pytest.mark.slow
def test_the_command_reads_a_config_of_the_checkout_from_anywhere(
    installed: pathlib.Path, environment: dict[str, str], tmp_path: pathlib.Path
):
    # The key is refused after the config was read, so nothing trains.
    command, more = installed / "bin" / "cifar-jax", ["--config.epochs=0", "--workdir=run"]
    for directory, config in ((ROOT, "configs/final.py"), (tmp_path, ROOT / "configs/final.py")):
        done = subprocess.run(
            [command, f"--config={config}", *more],
            cwd=directory, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 2
        assert "error: config.epochs must be an integer from 1" in done.stderr


def test_an_installed_package_claims_no_commit_of_the_repository_around_it(
    installed: pathlib.Path, environment: dict[str, str]
):
    program = (
        "import json; from cifar_jax.runtime import environment; import cifar_jax;"
        "print(json.dumps([cifar_jax.__file__, environment.collect()['git_commit']]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=installed, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    file, commit = json.loads(done.stdout)
    assert pathlib.Path(file).is_relative_to(installed)
    assert commit is None


@pytest.mark.slow
def test_an_installed_package_brings_its_network(
    installed: pathlib.Path, environment: dict[str, str], tmp_path: pathlib.Path
):
    program = "import cifar_jax; print(cifar_jax.load().workdir)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = pathlib.Path(done.stdout.strip()).resolve()
    assert found == (installed / "share" / "cifar-jax" / places.BOX).resolve()


def test_the_changelog_begins_with_the_version_of_the_package():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == version


def test_ci_calls_existing_make_targets_on_each_supported_python():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    job = workflow["jobs"]["test"]
    supported = specifiers.SpecifierSet(project["requires-python"])
    versions = job["strategy"]["matrix"]["python"]
    assert versions == [f"3.{i}" for i in range(30) if f"3.{i}" in supported]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == ["make lint", "make test"]
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {command.split()[1] for command in commands} <= set(targets)
