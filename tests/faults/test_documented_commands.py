"""Runs the commands of README and docs as they are written, on one device and on many."""

import dataclasses
import multiprocessing
import os
import pathlib
import re
import shlex
import shutil
import sys
from unittest import mock

import command_line
import numpy as np
import pytest
from PIL import Image
from warm import ROOT, Warm

pytestmark = pytest.mark.slow

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["cifar_jax.training.run", "cifar_jax.modes", "tiny"])

DEVICES = (4, 8, 16, 32)
MANY = f"--xla_force_host_platform_device_count={max(DEVICES)} {command_line.QUICK}"
DOCUMENTS = [
    *ROOT.glob("*.md"),
    # test_extending.py runs the commands of extending.md, which needs the page's own changes.
    *({*(ROOT / "docs").glob("*.md")} - {ROOT / "docs" / "extending.md"}),
    *(ROOT / "configs").glob("*.py"),
    ROOT / "Makefile",
]
_COMMAND = re.compile(r"(?:python3?|/python) main\.py ([^`#|\n]*)")


def commands() -> list[tuple[str, ...]]:
    """The arguments of every `python main.py ...`, and of what tpu.sh and the JobSet start."""
    found = [
        tuple(shlex.split(line))
        for path in DOCUMENTS
        for line in _COMMAND.findall(path.read_text())
        if "..." not in line
        and "[" not in line.split("config.model")[0]
        and "best.py" not in line  # which a search writes: test_search.py trains one
    ]
    jobset = (ROOT / "k8s" / "jobset.yaml").read_text()
    found.append(tuple(re.findall(r"^ +- (--\S+)$", jobset, re.MULTILINE)))
    # `scripts/tpu.sh run -- --config.dtype=bfloat16` in docs/tpu.md adds to these.
    script, guide = (ROOT / path for path in ("scripts/tpu.sh", "docs/tpu.md"))
    (config,) = re.findall(r"^config=\$\{TPU_CONFIG:-(\S+)}", script.read_text(), re.MULTILINE)
    (more,) = re.findall(r"^scripts/tpu\.sh run -- (.*)$", guide.read_text(), re.MULTILINE)
    found.append((f"--config={config}", "--workdir=gs://BUCKET/final", *shlex.split(more)))
    return sorted(set(found))


# A search trains, too; what it trains is at first the config as it is.
TRAINING = [
    c for c in commands() if not any(a.startswith("--mode=") and a != "--mode=search" for a in c)
]
# The demo serves until someone ends it: test_demo.py starts it.
OTHERS = [c for c in commands() if c not in TRAINING and not re.search("gs://|=demo", str(c))]


def test_the_commands_are_found():
    configs = {path.stem for path in (ROOT / "configs").glob("*.py")} - {"base", "__init__"}
    shown = {pathlib.Path(a.partition("=")[2]).stem for c in TRAINING for a in c if "config=" in a}
    assert shown >= configs
    modes = {a.partition("=")[2] for c in OTHERS for a in c if a.startswith("--mode=")}
    assert modes == {"evaluate", "predict", "export", "report"}
    assert any("filters" in a for c in TRAINING for a in c)


def check_training(arguments: tuple[str, ...]) -> None:
    """Reads the config and traces a step on the devices of a pod, in a process of its own."""
    os.environ["XLA_FLAGS"] = MANY
    sys.path.insert(0, str(ROOT))
    import jax
    import tiny

    from cifar_jax import cli, models, options
    from cifar_jax.config import files
    from cifar_jax.data import sources
    from cifar_jax.runtime import sharding
    from cifar_jax.training import experiment, lanes

    cli.parse(["main.py", *arguments])
    chosen = files.typed(options.CONFIG.value, models, options.ARGUMENTS)
    data = dataclasses.replace(chosen.data, train_images=0)  # there are fewer images here
    chosen = dataclasses.replace(chosen, data=data)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (3000, 32, 32, 3), np.uint8), np.arange(3000) % 10
    dataset = sources.Dataset(
        "pictures", images, labels.astype(np.int32), images[:50], labels[:50].astype(np.int32),
        tuple("abcdefghij"), "made up",
    )  # fmt: skip
    for devices in DEVICES:
        with mock.patch.object(sharding, "make_mesh", return_value=tiny.mesh(devices)):
            exp = experiment.build(chosen, dataset)
    order = jax.ShapeDtypeStruct((exp.steps_per_epoch, chosen.batch_size), np.int32)  # pyright: ignore[reportPossiblyUnboundVariable]
    lanes.make_lanes([exp]).dispatch(0).trace(exp.abstract_state(), exp.train, order, 1)  # pyright: ignore[reportFunctionMemberAccess, reportPossiblyUnboundVariable]


@pytest.mark.parametrize("arguments", TRAINING, ids=" ".join)
def test_a_training_command_fits_4_to_32_devices(arguments: tuple[str, ...]):
    process = FORKS.Process(target=check_training, args=(arguments,))
    process.start()
    process.join(command_line.HANGS)
    assert process.exitcode == 0


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> pathlib.Path:
    """A user's directory: runs with the names in the documents, and images."""
    home = tmp_path_factory.mktemp("home")
    sizes = ("--config.batch_size=50", "--config.eval.batch_size=50", "--config.epochs=1")
    config = f"--config={ROOT}/{command_line.TINY.partition('=')[2]}"
    status, output = warm.run(
        config, "--workdir=runs/final", *sizes, directory=home, environment={"XLA_FLAGS": MANY}
    )
    assert status == 0, output
    shutil.copytree(home / "runs" / "final", home / "runs" / "model1")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    for name in ("cat.png", "photos/dog.png", "2026/may/a.jpg", "sorted/3/three.png"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(home / name)
    return home


@pytest.mark.parametrize("arguments", OTHERS, ids=" ".join)
def test_another_command_does_its_work_on_32_devices(
    arguments: tuple[str, ...], directory: pathlib.Path, warm: Warm
):
    more: tuple[str, ...] = ()
    if any(a.startswith("--suite=") for a in arguments):
        more = ("--suite_images=2",)
    files = {"0": str(directory / "cat.png")} if "-" in arguments else {}
    status, output = warm.run(
        *arguments, *more, directory=directory, environment={"XLA_FLAGS": MANY}, redirect=files
    )
    assert status == 0, output


def test_the_other_suites_do_their_work_on_32_devices(directory: pathlib.Path, warm: Warm):
    """docs/usage.md names them in a comment; the suites of published files need those files."""
    status, output = warm.run(
        "--mode=evaluate", "--workdir=runs/final", "--suite=adversarial", "--suite_images=7",
        directory=directory, environment={"XLA_FLAGS": MANY},
    )  # fmt: skip
    assert status == 0, output
