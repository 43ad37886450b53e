"""A directory of image files for each class is a data set like any other."""

import json
import pathlib
import shutil

import command_line
import numpy as np
import pytest
from etils import epath
from PIL import Image

from cifar_jax.config import schema
from cifar_jax.data import folder, sources
from cifar_jax.errors import BAD_INPUT, UserError
from cifar_jax.evaluation import own_images, trained

COUNTS = {"square": 15, "stripes": 20}
SIDE = 16


def picture(name: str, rng: np.random.Generator) -> Image.Image:
    """A square or stripes, in a color of its own and a size of its own, with some noise."""
    width, height = (int(n) for n in rng.integers(20, 60, 2))
    pixels = rng.integers(0, 60, (height, width, 3))
    color = rng.integers(120, 195, 3)
    if name == "square":
        pixels[height // 4 : -height // 4, width // 4 : -width // 4] += color
    else:
        pixels[:, ::2] += color
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture
def pictures(tmp_path: pathlib.Path) -> pathlib.Path:
    """Both layouts: `all/CLASS` and `split/train/CLASS`, `split/test/CLASS`."""
    rng = np.random.default_rng(0)
    for name, count in COUNTS.items():
        for home in ("all", "split/train", "split/test"):
            (tmp_path / home / name).mkdir(parents=True)
        for i in range(count):
            image, suffix = picture(name, rng), (".png", ".jpg", ".webp")[i % 3]
            image.save(tmp_path / "all" / name / f"{i}{suffix}", lossless=True)
            home = "test" if i < 3 else "train"
            image.save(tmp_path / "split" / home / name / f"{i}{suffix}", lossless=True)
    (tmp_path / "all" / "readme.txt").write_text("no class")
    (tmp_path / "all" / ".hidden").mkdir()
    return tmp_path


def data(directory: pathlib.Path, **more: object) -> schema.Data:
    cache_dir = str(directory.parent / "cache")
    return schema.Data("folder", str(directory), cache_dir=cache_dir, side=SIDE, **more)  # pyright: ignore[reportArgumentType]


def test_classes_are_directories_and_a_fifth_is_for_the_test(pictures: pathlib.Path):
    found = sources.load(data(pictures / "all"))
    assert found.class_names == ("square", "stripes")
    assert found.train_images.shape == (28, SIDE, SIDE, 3)
    assert np.bincount(found.test_labels).tolist() == [3, 4]
    train, test = (set(map(bytes, x)) for x in (found.train_images, found.test_images))
    assert not train & test and len(train | test) == sum(COUNTS.values())


def test_copies_of_an_image_are_all_trained_on_or_all_tested(pictures: pathlib.Path):
    for path in sorted((pictures / "all").glob("s*/*")):
        for home in COUNTS:
            shutil.copy(path, pictures / "all" / home / f"copy of {path.parent.name} {path.name}")
    found = sources.load(data(pictures / "all"))
    train, test = (set(map(bytes, x)) for x in (found.train_images, found.test_images))
    assert not train & test and len(train | test) == sum(COUNTS.values())
    assert len(found.train_images) + len(found.test_images) == 3 * sum(COUNTS.values())


def test_a_class_of_one_picture_and_its_copies_is_named(pictures: pathlib.Path):
    one, *others = sorted((pictures / "all" / "square").iterdir())
    for path in others:
        shutil.copy(one, path.with_suffix(one.suffix))
        if path.suffix != one.suffix:
            path.unlink()
    with pytest.raises(UserError, match=r"all/square has no picture left to train on"):
        sources.load(data(pictures / "all"))


def test_its_own_split_is_kept(pictures: pathlib.Path):
    found = sources.load(data(pictures / "split"))
    assert np.bincount(found.test_labels).tolist() == [3, 3]
    assert np.bincount(found.train_labels).tolist() == [12, 17]


def test_the_split_depends_on_the_pixels_and_not_on_names(
    pictures: pathlib.Path, tmp_path: pathlib.Path
):
    first = sources.load(data(pictures / "all"))
    for i, path in enumerate(sorted((pictures / "all" / "stripes").iterdir())):
        path.rename(path.with_name(f"{(7 * i) % 20:03}{path.suffix}"))
    again = sources.load(data(pictures / "all"))
    assert first.description == again.description


def test_images_are_decoded_once_and_again_when_a_file_changes(
    pictures: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    first = sources.load(data(pictures / "all"))
    with monkeypatch.context() as patch:
        patch.setattr(folder, "read", lambda *_: pytest.fail("decoded again"))
        assert sources.load(data(pictures / "all")).description == first.description
    next((pictures / "all" / "square").iterdir()).unlink()
    changed = sources.load(data(pictures / "all"))
    assert len(changed.train_images) + len(changed.test_images) == 34
    small = schema.Data("folder", str(pictures / "all"), cache_dir=str(pictures / "cache"), side=8)
    assert sources.load(small).train_images.shape[1:] == (8, 8, 3)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda home: shutil.rmtree(home / "all/square"), "has 1 directories of images"),
        (lambda home: shutil.rmtree(home / "split/test"), "has train/, but no test/"),
        (lambda home: (home / "split/test/square").rename(home / "split/test/circle"), "circle"),
        (lambda home: (home / "all/empty").mkdir(), "empty holds no image"),
        (lambda home: (home / "all/square/bad.png").write_bytes(b"no"), r"bad\.png: .*mend it"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(pictures: pathlib.Path, spoil: object, message: str):
    assert callable(spoil)
    spoil(pictures)
    with pytest.raises(UserError, match=message):
        for name in ("all", "split"):
            sources.load(data(pictures / name))


@pytest.mark.slow
def test_it_is_trained_on_and_evaluated_after_it_has_moved(pictures: pathlib.Path):
    workdir, home = pictures / "run", pictures / "all"
    keys = {"name": "folder", "dir": str(home), "side": SIDE, "cache_dir": str(pictures / "cache")}
    options = [f"--config.data.{key}={value}" for key, value in keys.items()]
    status, output = command_line.run(
        command_line.TINY, f"--workdir={workdir}", "--config.batch_size=8", *options
    )
    assert status == 0, output
    result = json.loads((workdir / "result.json").read_text())
    assert result["class_counts"]["test"] == {"square": 3, "stripes": 4}
    shutil.rmtree(pictures / "cache")
    moved = home.rename(pictures / "moved")
    status, output = command_line.run(
        "--mode=evaluate", f"--workdir={workdir}", f"--data_dir={moved}"
    )
    assert status == 0 and "test accuracy" in output, output


@pytest.mark.slow
def test_a_run_is_tested_on_images_of_some_of_its_classes(
    finished: epath.Path, pictures: pathlib.Path
):
    digits = sources.load(schema.Data("digits"))
    home, wanted = pictures / "digits", {0: 9, 7: 5}
    for label, count in wanted.items():
        (home / str(label)).mkdir(parents=True)
        images = digits.test_images[digits.test_labels == label][:count]
        for i, image in enumerate(images):
            Image.fromarray(image).save(home / str(label) / f"{i}.png")
    network = trained.load(finished)
    right = 0
    for label, count in wanted.items():
        images = digits.test_images[digits.test_labels == label][:count]
        right += int((network.predict(images).argmax(1) == label).sum())
    found = own_images.run(finished, home)
    assert found["images"] == 14 and found["accuracy"] == right / 14
    status, output = command_line.run(
        "--mode=evaluate", f"--workdir={finished}", f"--images={home}"
    )
    assert status == 0 and f"accuracy {right / 14:.4f} on 14 images" in output, output
    *table, _ = [line.split()[0] for line in output.splitlines() if line[-1:].isdigit()]
    assert table[:2] == ["0", "7"] and "macro" not in output
    (home / "cat").mkdir()
    with pytest.raises(UserError, match="cat is no class of the run: its classes are 0, 1,"):
        own_images.run(finished, home)


def test_without_a_directory_the_key_is_named():
    status, output = command_line.run(
        command_line.TINY, "--workdir=/nowhere", "--config.data.name=folder"
    )
    assert status == BAD_INPUT and "needs config.data.dir" in output
