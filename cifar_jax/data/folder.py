"""A data set of the user's own: a directory of image files for each class.

DIR/train/cat/1.jpg, DIR/test/cat/2.png, ...   or, to have the test images chosen,   DIR/cat/...
"""

import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int32, UInt8

from cifar_jax.data import image_paths, images
from cifar_jax.data.archive import Splits
from cifar_jax.data.fingerprint import canonical
from cifar_jax.errors import UserError

NAME = "folder"  # in config.data.name
_TEST_SHARE = 5  # one of so many images of a class, if there is no directory of test images

Split = tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " n"]]


def read(directory: pathlib.Path, side: int) -> tuple[Splits, tuple[str, ...]]:
    """Decodes all images to `[N, side, side, 3]` uint8: the largest central square, resized.

    The names of the directories, sorted, are the classes. Without `test/`, every fifth image of a
    class is a test image, in an order that depends on the pixels alone. Copies of an image stay
    together, so that none is tested that was trained on.

    Raises:
      UserError: there are fewer than two classes, one has no image, or none left to train on,
        `test/` has other classes than `train/`, or a file cannot be decoded.
    """
    has_splits = (directory / "train").is_dir()
    names = classes(directory / "train" if has_splits else directory)
    if len(names) < 2:
        raise UserError(
            f"{directory} has {len(names)} directories of images: it needs one for each class, of "
            "at least two"
        )
    if not has_splits:
        splits = _split(*_decoded(directory, names, side))
        if untrained := set(range(len(names))) - set(splits["train"][1].tolist()):
            raise UserError(
                f"{directory / names[min(untrained)]} has no picture left to train on, since every "
                "fifth is for the test: add other pictures, or make train/ and test/ yourself"
            )
    elif not (directory / "test").is_dir():
        raise UserError(f"{directory} has train/, but no test/: add it, or remove train/")
    else:
        if strangers := set(classes(directory / "test")) ^ set(names):
            raise UserError(
                f"train/ and test/ of {directory} must have the same classes: "
                f"{min(strangers)} is in one of them only"
            )
        splits = {name: _decoded(directory / name, names, side) for name in ("train", "test")}
    return splits, names


def classes(directory: pathlib.Path) -> tuple[str, ...]:
    """The names of the directories in a directory, sorted, without hidden ones.

    Raises:
      UserError: it is no directory.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} is no directory")
    names = sorted(p.name for p in directory.iterdir() if p.is_dir() and p.name[0] != ".")
    return tuple(names)


def files(directory: pathlib.Path, names: Sequence[str]) -> list[tuple[str, int]]:
    """The path and the class of each image, an index into `names`."""
    return [(path, i) for i, n in enumerate(names) for path in image_paths.find(str(directory / n))]


def decode(paths: Sequence[str], image_shape: tuple[int, int, int]) -> UInt8[np.ndarray, "n h w c"]:
    """Decodes files as `images.decode` does, several at a time.

    Raises:
      UserError: a file cannot be decoded.
    """

    def one(path: str) -> np.ndarray:
        try:
            return images.decode(path, image_shape)
        except UserError as error:
            raise UserError(f"{path}: {error}: mend it or remove it") from error

    with ThreadPoolExecutor(images.DECODERS) as pool:
        return np.stack(list(pool.map(one, paths)))


def _decoded(directory: pathlib.Path, names: Sequence[str], side: int) -> Split:
    paths, labels = zip(*files(directory, names), strict=True)
    return decode(paths, (side, side, 3)), np.array(labels, np.int32)


def _split(all_images: UInt8[np.ndarray, "all h w c"], labels: Int32[np.ndarray, " all"]) -> Splits:
    all_images, labels = canonical(all_images, labels)
    is_new = [True, *(all_images[1:] != all_images[:-1]).any((1, 2, 3))]  # copies are neighbours
    picture = np.cumsum(is_new)
    tested = [np.unique(picture[labels == label])[::_TEST_SHARE] for label in np.unique(labels)]
    is_test = np.isin(picture, np.concatenate(tested))
    return {
        "train": (all_images[~is_test], labels[~is_test]),
        "test": (all_images[is_test], labels[is_test]),
    }
