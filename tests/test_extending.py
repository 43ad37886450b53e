"""docs/extending.md: each of its diffs applies to this code, and what it adds works."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
from unittest import mock

import command_line
import fabricate
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from cifar_jax.data import tfds_source

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text()
DIFFS = re.findall(r"^## (.*?)\n.*?^```diff\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
DIGITS = ("--config.data.name=digits", "--config.epochs=1", "--config.batch_size=64")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A copy of the code with everything on the page added to it."""
    home = tmp_path_factory.mktemp("checkout")
    for name in ("cifar_jax", "configs"):
        shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "main.py", home)
    for _, diff in DIFFS:
        subprocess.run(["git", "apply", "-"], cwd=home, input=diff, text=True, check=True)
    return home


def run(checkout: pathlib.Path, *arguments: str) -> str:
    """The standard output of main.py in the copy."""
    done = subprocess.run(
        [sys.executable, "main.py", *arguments],
        cwd=checkout,
        env={**os.environ, "XLA_FLAGS": command_line.QUICK},
        capture_output=True,
        text=True,
        timeout=command_line.HANGS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_of(diff: str) -> tuple[list[str], list[str]]:
    """The files that a diff adds, and those that it edits."""
    added = re.findall(r"^new file mode.*\n--- /dev/null\n\+\+\+ b/(.*)$", diff, re.MULTILINE)
    every = re.findall(r"^diff --git a/(\S+)", diff, re.MULTILINE)
    return added, [path for path in every if path not in added]


def test_each_addition_takes_as_few_files_as_the_page_says():
    assert [title for title, _ in DIFFS] == [
        "A network", "An augmentation", "An optimizer", "A data set", "A mode",
    ]  # fmt: skip
    network, augmentation, optimizer, data, mode = (files_of(diff) for _, diff in DIFFS)
    assert network == (["cifar_jax/models/resnet.py", "configs/resnet.py"], [])
    assert augmentation == ([], ["cifar_jax/config/schema.py", "cifar_jax/data/augment.py"])
    assert optimizer == ([], ["cifar_jax/config/schema.py", "cifar_jax/optim/chain.py"])
    assert data == (["configs/fashion.py"], [])
    assert mode == (["cifar_jax/summarize.py"], ["cifar_jax/modes.py"])


def test_a_network_of_nested_blocks_trains_predicts_and_is_exported(checkout: pathlib.Path):
    small = ("--config.model.widths=(8,16)", "--config.model.blocks=1")
    text = run(checkout, "--config=configs/resnet.py", "--workdir=resnet", *small, *DIGITS,
               "--config.augment.flip=False", "--config.epochs=3")  # fmt: skip
    rows = {line.split()[0]: line.split()[-1] for line in text.splitlines() if "/" in line}
    # 16x16 positions (digits come as 32x32 pixels), 3x3 kernels from 8 to 16 channels.
    assert rows["stage_1_block_0/first_conv"] == f"{16 * 16 * 9 * 8 * 16:,}"
    assert float(re.search(r"test accuracy (0\.\d+)", text)[1]) > 0.5  # pyright: ignore[reportOptionalSubscript]
    Image.fromarray(np.full((20, 20, 3), 200, np.uint8)).save(checkout / "one.png")
    assert "one.png" in run(checkout, "--mode=predict", "--workdir=resnet", "one.png")
    run(checkout, "--mode=export", "--workdir=resnet", "--format=stablehlo")
    assert "stage_1_block_0/shortcut_conv" in run(checkout, "--mode=summary", "--workdir=resnet")


def test_an_augmentation_and_an_optimizer_are_keys_of_any_config(checkout: pathlib.Path):
    text = run(checkout, "--config=configs/quickstart.py", "--workdir=lion", "--config.epochs=2",
               "--config.augment.noise=0.1", "--config.optimizer.name=lion",
               "--config.optimizer.learning_rate=3e-4")  # fmt: skip
    assert re.search(r"^noise +augmentation", text, re.MULTILINE)
    assert float(re.search(r"test accuracy (0\.\d+)", text)[1]) > 0.8  # pyright: ignore[reportOptionalSubscript]


def test_a_data_set_of_tfds_needs_its_name_alone(
    checkout: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    files, _, names = fabricate.download_of("fashion_mnist", checkout / "raw", monkeypatch)
    with (
        fabricate.every_host_answers(),
        mock.patch.object(
            tfds.download.DownloadManager, "download_and_extract", return_value=files
        ),
    ):
        tfds_source.read("fashion_mnist", checkout / "tfds", prepare=True)
    monkeypatch.setenv("TFDS_DATA_DIR", str(checkout / "tfds"))
    text = run(checkout, "--config=configs/fashion.py", "--workdir=fashion", "--config.epochs=1",
               "--config.batch_size=8", "--config.data.stratified=False",
               f"--config.data.cache_dir={checkout / 'cache'}")  # fmt: skip
    assert all(name in text for name in names)
