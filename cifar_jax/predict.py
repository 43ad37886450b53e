"""`--mode=predict`: classifies a user's image files, batch by batch."""

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
_AHEAD = 2  # decoded batches that wait for the network, so that it never waits for one

Result = np.ndarray | UserError


def run(
    workdir: epath.Path,
    arguments: Sequence[str],
    output_format: str = "table",
    top_k: int = 3,
    fit: str = "crop",
) -> tuple[int, int]:
    """Prints the most probable classes of each image.

    Each image is a row of "table" or "csv", or an object of "json" (JSON Lines, one per line),
    printed batch by batch. JSON and CSV contain the exact bytes of the path, the table a printable
    form. A file that cannot be read is reported on standard error, and the others are processed.

    Args:
      arguments: files, directories, patterns or "-"; see `image_paths.find`.
      output_format: one of `FORMATS`.
      top_k: how many classes to print per image; more than there are prints all.
      fit: see `images.decode`.

    Returns:
      The number of images tried, and the number of failures (images, and arguments without images).

    Raises:
      UserError: there are no arguments, the format is unknown, or there is no trained network.
    """
    if output_format not in FORMATS:
        raise UserError(f"--format={output_format} is not one of {', '.join(FORMATS)}")
    if not arguments:
        raise UserError("no images: pass files, directories, 'patterns*' or - for standard input")
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
    # disable=None: shows the bar only on a terminal.
    bar = tqdm(total=len(paths), unit=" images", file=sys.stderr, disable=None, leave=False)
    with bar, ThreadPoolExecutor(images.DECODERS) as pool:
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
    except OSError as error:  # closed, or a directory
        raise UserError(f"cannot be read ({error.strerror})") from error


def _batches(
    pool: ThreadPoolExecutor, decode: Callable[[str], Result], paths: Sequence[str], size: int
) -> Iterator[Iterator[tuple[str, Result]]]:
    """Yields batches of (path, decoded image or error), and decodes the next ones meanwhile."""
    batches = (paths[at : at + size] for at in range(0, len(paths), size))
    decoding = (zip(batch, pool.map(decode, batch), strict=True) for batch in batches)
    ahead = collections.deque(itertools.islice(decoding, _AHEAD))
    while ahead:
        batch = ahead.popleft()
        ahead.extend(itertools.islice(decoding, 1))
        yield batch


def _writer(
    output_format: str, top_k: int, paths: Sequence[str], class_names: Sequence[str]
) -> Callable[[str, np.ndarray], None]:
    """Prints the header, if any; returns a function that prints one image's top classes."""
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
            _write_csv(itertools.chain([_as_utf8(path)], *best))
        else:
            cells = [f"{name:{class_width}} {p:6.4f}" for name, p in best]
            print("  ".join([f"{printable(path):{path_width}}", *cells]))

    return write


def _named(path: str) -> dict[str, str]:
    """The path as JSON fields; if it is not valid UTF-8, also its exact bytes in base64."""
    data = os.fsencode(path)
    try:
        return {"image": data.decode()}
    except UnicodeDecodeError:
        exact = base64.b64encode(data).decode()
        return {"image": data.decode(errors="replace"), "image_base64": exact}


def _as_utf8(path: str) -> str:
    """The path decoded as UTF-8 whatever the locale; invalid bytes become surrogates."""
    return os.fsencode(path).decode(errors="surrogateescape")


def _write_csv(cells: Iterable[str | float]) -> None:
    """Writes a row in UTF-8; surrogates become the bytes that they stand for."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)  # so that Python 3.11 quotes "\r"
    row = line.getvalue().removesuffix("\r\n") + "\n"
    sys.stdout.buffer.write(row.encode(errors="surrogateescape"))
