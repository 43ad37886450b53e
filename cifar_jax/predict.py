"""`--mode=predict`: the classes of pictures that a user has, in a stream of batches."""

import base64
import collections
import csv
import io
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from etils import epath
from tqdm import tqdm

from cifar_jax.data import images
from cifar_jax.data.image_paths import find
from cifar_jax.errors import UserError
from cifar_jax.evaluation import trained
from cifar_jax.terminal import printable, say

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
    printed batch by batch. The last two carry the path to the byte, the table a printable form of
    it. What fails is named on standard error, and the rest goes on.

    Args:
      arguments: see `image_paths.find`.
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
            say(f"error: {printable(error)}", sys.stderr)
            failures += 1
    if not paths:
        return 0, failures
    model = trained.load(workdir)

    def decode(path: str) -> Result:
        try:
            source = _standard_input() if path == "-" else path
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
                    tqdm.write(f"error: {printable(f'{path}: {result}')}", file=sys.stderr)
                    failures += 1
                else:
                    names.append(path)
                    pixels.append(result)
            if names:
                probabilities = model.predict(np.stack(pixels))
                with tqdm.external_write_mode(sys.stdout):
                    for name, row in zip(names, probabilities, strict=True):
                        write(name, row)
                    sys.stdout.flush()
    return len(paths), failures


def _standard_input() -> io.BufferedReader:
    try:
        return open(0, "rb", closefd=False)
    except OSError as error:  # it is closed, or a directory
        raise UserError(f"cannot be read ({error.strerror})") from error


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
    """Prints what stands above the rows; returns what prints an image's path and probabilities."""
    if output_format == "table":
        class_names = [printable(name) for name in class_names]
    path_width = max(len(printable(path)) for path in paths)
    class_width = max(map(len, class_names))
    if output_format == "csv":
        titles = ((f"class_{i}", f"probability_{i}") for i in range(1, top_k + 1))
        _write_csv(itertools.chain(["image"], *titles))

    def write(path: str, probabilities: np.ndarray) -> None:
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        best = [(class_names[int(i)], round(float(probabilities[i]), 6)) for i in order]
        if output_format == "json":
            predictions = [{"class": name, "probability": p} for name, p in best]
            print(json.dumps({**_named(path), "predictions": predictions}, allow_nan=False))
        elif output_format == "csv":
            _write_csv(itertools.chain([_in_utf8(path)], *best))
        else:
            cells = [f"{name:{class_width}} {p:6.4f}" for name, p in best]
            print("  ".join([f"{printable(path):{path_width}}", *cells]))

    return write


def _named(path: str) -> dict[str, str]:
    """The exact path for JSON, which has no bytes: those that are no UTF-8 come in base64."""
    data = os.fsencode(path)
    try:
        return {"image": data.decode()}
    except UnicodeDecodeError:
        exact = base64.b64encode(data).decode()
        return {"image": data.decode(errors="replace"), "image_base64": exact}


def _in_utf8(path: str) -> str:
    """The path as UTF-8 has it, whatever the locale."""
    return os.fsencode(path).decode(errors="surrogateescape")


def _write_csv(cells: Iterable[str | float]) -> None:
    """A row in UTF-8; of a path that is none the bytes as they are."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)  # so a "\r" is quoted on Python 3.11
    row = line.getvalue().removesuffix("\r\n") + "\n"
    sys.stdout.buffer.write(row.encode(errors="surrogateescape"))
