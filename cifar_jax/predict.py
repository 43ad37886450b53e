"""`--mode=predict`: the classes of pictures that a user has, in a stream of batches."""

import collections
import csv
import glob
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from etils import epath
from tqdm import tqdm

from cifar_jax import images, places, trained
from cifar_jax.errors import UserError

FORMATS = ("table", "json", "csv")
_DECODERS = 4  # threads; each holds a picture within the limits of `images.decode`
_AHEAD = 2  # batches of small images that wait for the network, so that it waits for none

Result = np.ndarray | UserError


def run(
    workdir: epath.Path,
    arguments: Sequence[str],
    output_format: str = "table",
    top_k: int = 3,
    fit: str = "crop",
) -> tuple[int, int]:
    """Prints the most probable classes of each image.

    An image is a row of "table" or "csv", or an object of "json" (JSON Lines: one on each line),
    printed batch by batch. What fails is named on standard error, and the rest goes on.

    Args:
      arguments: see `find`.
      top_k: how many classes, at most all.
      fit: as `images.decode` takes it.

    Returns:
      The number of images tried; and that of failures: of images, and of arguments without any.

    Raises:
      UserError: nothing is asked for, the format is unknown, or there is no trained network.
    """
    if output_format not in FORMATS:
        raise UserError(f"--format={output_format} is none of {', '.join(FORMATS)}")
    if not arguments:
        raise UserError("no images: name files, directories, 'patterns*' or - for standard input")
    paths: list[str] = []
    failures = 0
    for argument in arguments:
        try:
            paths += find(argument)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            failures += 1
    if not paths:
        return 0, failures
    model = trained.load(workdir)

    def decode(path: str) -> Result:
        try:
            source = open(0, "rb", closefd=False) if path == "-" else path
            return images.decode(source, model.image_shape, fit)
        except UserError as error:
            return error

    write = _writer(output_format, min(top_k, len(model.class_names)), paths, model.class_names)
    # disable=None: only on a terminal.
    bar = tqdm(total=len(paths), unit=" images", file=sys.stderr, disable=None, leave=False)
    with bar, ThreadPoolExecutor(_DECODERS) as pool:
        for batch in _batches(pool, decode, paths, model.config.eval.batch_size):
            names, pixels = [], []
            for path, result in batch:
                bar.update()
                if isinstance(result, UserError):
                    tqdm.write(f"error: {_shown(path)}: {result}", file=sys.stderr)
                    failures += 1
                else:
                    names.append(_shown(path))
                    pixels.append(result)
            if names:
                probabilities = model.predict(np.stack(pixels))
                with tqdm.external_write_mode(sys.stdout):
                    for name, row in zip(names, probabilities, strict=True):
                        write(name, row)
                    sys.stdout.flush()
    return len(paths), failures


def find(argument: str) -> list[str]:
    """The paths of the images that an argument means.

    A file is itself, whatever its name, and "-" stands for standard input. A directory is its files
    of `images.SUFFIXES` at any depth, sorted, hidden ones aside. What does not exist is a pattern
    of files and directories, with * and **.

    Raises:
      UserError: there are none.
    """
    if argument == "-":
        return [argument]
    places.local(argument)
    roots = [argument]
    if not os.path.exists(argument):
        roots = sorted(glob.glob(argument, recursive=True))
    if not roots:
        raise UserError(f"{_shown(argument)} does not exist, nor matches anything as a pattern")
    paths = []
    for root in roots:
        paths += _inside(root) if os.path.isdir(root) else [root]
    if not paths:
        raise UserError(f"{_shown(argument)} holds no image ({', '.join(images.SUFFIXES)})")
    return paths


def _inside(directory: str) -> list[str]:
    paths: list[str] = []
    closed: list[OSError] = []
    for place, directories, names in os.walk(directory, onerror=closed.append):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(place, name)
            if name.lower().endswith(images.SUFFIXES) and not name.startswith("."):
                paths += [path] if os.path.isfile(path) else []  # no pipe, which would wait
    # A directory that cannot be listed is tried as an image, and so named with the reason.
    return paths + [error.filename for error in closed]


def _shown(path: str) -> str:
    """A path for a line of text: what cannot be printed, such as a line's end, is replaced."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in path)


def _batches(
    pool: ThreadPoolExecutor, decode: Callable[[str], Result], paths: Sequence[str], size: int
) -> Iterator[Iterator[tuple[str, Result]]]:
    """Paths with what `decode` makes of them, batch by batch; the next ones are under way."""
    batches = (paths[at : at + size] for at in range(0, len(paths), size))
    coming = (zip(batch, pool.map(decode, batch), strict=True) for batch in batches)
    ahead = collections.deque(itertools.islice(coming, _AHEAD))
    while ahead:
        now = ahead.popleft()
        ahead.extend(itertools.islice(coming, 1))
        yield now


def _writer(
    output_format: str, top_k: int, paths: Sequence[str], class_names: Sequence[str]
) -> Callable[[str, np.ndarray], None]:
    """Prints what stands above the rows; returns what prints an image's name and probabilities."""
    path_width, class_width = max(map(len, paths)), max(map(len, class_names))
    rows = csv.writer(sys.stdout, lineterminator="\n")
    if output_format == "csv":
        titles = ((f"class_{i}", f"probability_{i}") for i in range(1, top_k + 1))
        rows.writerow(["image", *itertools.chain(*titles)])

    def write(image: str, probabilities: np.ndarray) -> None:
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        best = [(class_names[i], round(float(probabilities[i]), 6)) for i in order]
        if output_format == "json":
            predictions = [{"class": name, "probability": p} for name, p in best]
            print(json.dumps({"image": image, "predictions": predictions}))
        elif output_format == "csv":
            rows.writerow([image, *itertools.chain(*best)])
        else:
            cells = [f"{name:{class_width}} {p:6.4f}" for name, p in best]
            print("  ".join([f"{image:{path_width}}", *cells]))

    return write
