"""The suites: attacks stay in bounds and get stronger with eps; results land in the workdir."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable

import command_line
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from fabricate import every_host_answers, random_splits
from test_report import read

from cifar_jax import options
from cifar_jax.config import schema
from cifar_jax.data import corruptions, sources, tfds_prepare, tfds_source
from cifar_jax.errors import UserError
from cifar_jax.evaluation import adversarial, suites, trained
from cifar_jax.report import page

pytestmark = pytest.mark.slow


def test_the_command_line_offers_every_suite():
    assert list(suites.SUITES) == options.SUITES


# ---------------------------------------------------------------------------- attacks
@pytest.fixture(scope="module")
def attacked(finished: epath.Path):
    """`attack(name, eps)` -> pixels, adversarial pixels, whether each is still classified right."""
    network = trained.load(finished)
    data = sources.load(network.config.data)
    pixels = jnp.asarray(data.test_images[:64].astype(np.float32) / 255)
    labels = jnp.asarray(data.test_labels[:64])
    step = adversarial.make_step(network.apply_pixels, network.variables)
    pgd = functools.partial(adversarial.pgd, key=jax.random.key(0))
    attacks = {"fgsm": adversarial.fgsm, "pgd": pgd}

    @functools.cache
    def attack(name: str, eps: float):
        found = attacks[name](step, pixels, labels, eps)
        logits = network.apply_pixels(network.variables, found)
        return np.asarray(pixels), np.asarray(found), np.asarray(logits).argmax(1) == labels

    return attack


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
@pytest.mark.parametrize("eps", [2 / 255, 32 / 255])
def test_an_attack_stays_within_eps_and_in_range(
    attacked: Callable[..., tuple[np.ndarray, ...]], name: str, eps: float
):
    pixels, found, _ = attacked(name, eps)
    assert np.abs(found - pixels).max() == pytest.approx(eps, abs=1e-6)
    assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_eps_0_changes_nothing(attacked: Callable[..., tuple[np.ndarray, ...]], name: str):
    pixels, found, _ = attacked(name, 0.0)
    np.testing.assert_array_equal(found, pixels)


def test_accuracy_falls_with_eps_and_pgd_beats_fgsm(
    attacked: Callable[..., tuple[np.ndarray, ...]],
):
    accuracy = {
        (name, eps): attacked(name, eps / 255)[2].mean()
        for name in ("fgsm", "pgd")
        for eps in (0, 2, 32)
    }
    for name in ("fgsm", "pgd"):
        assert accuracy[name, 0] >= accuracy[name, 2] > accuracy[name, 32]
    for eps in (0, 2, 32):
        assert accuracy["pgd", eps] <= accuracy["fgsm", eps]


def test_a_step_increases_the_loss(
    attacked: Callable[..., tuple[np.ndarray, ...]], finished: epath.Path
):
    """So the gradient runs through preprocessing and network, separately for each image."""
    pixels, found, _ = attacked("fgsm", 2 / 255)
    network = trained.load(finished)
    labels = sources.load(network.config.data).test_labels[:64]

    def loss(pixels: jax.Array | np.ndarray):
        log_p = jax.nn.log_softmax(network.apply_pixels(network.variables, jnp.asarray(pixels)))
        return -np.asarray(log_p)[np.arange(64), labels]

    assert (loss(found) >= loss(pixels)).mean() > 0.95


# ---------------------------------------------------------------------------- suites
def test_suites_share_one_file_and_appear_on_the_report_page(workdir: epath.Path):
    for suite, arguments in (("corruptions", ["--suite_images=16"]), ("adversarial", [])):
        status, output = command_line.run(
            "--mode=evaluate", f"--workdir={workdir}", f"--suite={suite}", *arguments
        )
        assert status == 0 and suites.SUITES[suite].title in output, output
    harder = json.loads((workdir / "robustness.json").read_text())
    assert list(harder) == ["corruptions", "adversarial"]
    result = json.loads((workdir / "result.json").read_text())

    entry = harder["corruptions"]
    assert tuple(entry["accuracy"]) == corruptions.NAMES and set(entry["images"].values()) == {16}
    rows = [list(row.values()) for row in entry["accuracy"].values()]
    np.testing.assert_allclose(list(entry["mean_accuracy"].values()), np.mean(rows, 0))
    assert np.shape(rows) == (15, 5)
    assert entry["epoch"] == result["best_epoch"] and entry["clean_images"] == 16

    entry = harder["adversarial"]
    assert entry["images"] == {"FGSM": 360, "PGD": 360}  # the whole test set, which is below 1,000
    assert entry["clean_accuracy"] == pytest.approx(result["test_accuracy"])
    assert entry["accuracy"]["PGD"]["8/255"] <= entry["accuracy"]["FGSM"]["2/255"]
    assert entry["accuracy"]["FGSM"]["2/255"] <= entry["clean_accuracy"]

    text, reader = read(page.run(workdir))
    for part in (
        "CIFAR-10-C style",
        "Elastic transform",
        "JPEG compression",
        "8/255",
        "on 16 images",
        "synthetic",
    ):
        assert part in text
    titles = [svg["aria-label"] for svg in reader.of("svg")]
    assert sum(title.startswith(("CIFAR-10-C style", "Adversarial")) for title in titles) == 2


def test_published_data_sets_are_read_from_tfds(
    workdir: epath.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    """CIFAR-10.1, prepared from random images; a network must have the same class names."""
    images, labels = random_splits()["test"]
    for name, array in (("images", images), ("labels", labels)):
        np.save(tmp_path / f"{name}.npy", array)
    paths = [tmp_path / "images.npy", tmp_path / "labels.npy"]
    monkeypatch.setattr(tfds.download.DownloadManager, "download", lambda *_: paths)
    root = tmp_path / "tfds"
    for version in ("v4", "v6"):
        name = f"cifar10_1/{version}"
        with every_host_answers():
            tfds_prepare.prepare(name, tfds.builder(name, data_dir=root))
    found = tfds_source.read_test("cifar10_1/v6", root)
    assert sorted(found[1]) == sorted(labels)

    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    with pytest.raises(UserError, match="classes of CIFAR-10.*--suite=corruptions"):
        suites.run(workdir, "cifar10_1")
    # Digits, but with the class names of CIFAR-10.
    data = json.loads((workdir / "data.json").read_text())
    data["class_names"] = list(sources.archive.CLASS_NAMES)
    (workdir / "data.json").write_text(json.dumps(data))
    named = dataclasses.replace(
        sources.load(schema.Data("digits")), class_names=sources.archive.CLASS_NAMES
    )
    monkeypatch.setattr(sources, "load", lambda _: named)
    entry = suites.run(workdir, "cifar10_1", 3)
    assert entry["images"] == {"v4": 3, "v6": 3} and "mean_accuracy" not in entry
    correct = trained.load(workdir).logits(found[0][:3]).argmax(1) == found[1][:3]
    assert entry["accuracy"]["v6"] == {"CIFAR-10.1": pytest.approx(correct.mean())}
    with pytest.raises(UserError, match="cifar10_corrupted/gaussian_noise_1.*tfds build") as error:
        suites.run(workdir, "cifar10_corrupted")
    assert "\n" not in str(error.value)


def test_an_unfinished_run_is_refused(workdir: epath.Path):
    (workdir / "result.json").unlink()
    with pytest.raises(UserError, match="has not finished"):
        suites.run(workdir, "adversarial")
