"""Puts the network of a finished run into the box, `pretrained/`.

python -m tools.box WORKDIR

The box holds the project's own safetensors export, the evidence of its run, a card, and the first
test image of each class, which the demo shows.
"""

import argparse
import pathlib
import shutil
import sys
from collections.abc import Sequence

from etils import epath

from cifar_jax import export, places
from cifar_jax.demo import drawing, examples
from cifar_jax.errors import BAD_INPUT, UserError
from cifar_jax.evaluation import trained
from cifar_jax.report import evidence
from cifar_jax.runtime import workdir as files
from cifar_jax.terminal import printable, say
from tools import published, run_tables

CARD = "README.md"
HOME = pathlib.Path(__file__).parent.parent / places.BOX


def fill(workdir: pathlib.Path, home: pathlib.Path = HOME) -> str:
    """Replaces the network in the box, and keeps its card; returns a line that says so.

    Raises:
      UserError: see `published.publishable`; or it cannot be exported, or its data is not here.
    """
    run, _ = published.publishable(workdir)
    shown = examples.find(trained.load(workdir))
    if not shown:
        raise UserError(f"the data of {workdir} is not here, and the box needs pictures: see above")
    partial = home.with_name(f".{home.name}")  # so that there is never half a box
    shutil.rmtree(partial, ignore_errors=True)
    export.run(run.workdir, "safetensors", str(partial))
    shutil.copy(home / CARD, partial)
    for name in (files.ENVIRONMENT, files.RESULT):
        text = published.without_places((workdir / name).read_text(), workdir)
        (partial / name).write_text(text)
    pictures = partial / examples.DIRECTORY
    pictures.mkdir()
    for example in shown:
        (pictures / f"{example.truth}.png").write_bytes(drawing.png(drawing.picture(example.image)))
    shutil.rmtree(home)
    partial.rename(home)
    return f"{home} holds the network of {workdir}"


def table(home: pathlib.Path = HOME) -> str:
    """The card's figures, of the run whose network is in the box."""
    run = evidence.load(epath.Path(home))
    result, start = run.result, run.environment["starts"][0]
    assert result is not None
    rows = [
        ("test accuracy", f"{100 * result['test_accuracy']:.2f} %"),
        ("test loss", f"{result['test_loss']:.3f}"),
        ("expected calibration error", f"{result['expected_calibration_error']:.3f}"),
        ("test images", f"{result['test_examples']:,}"),
        ("parameters", f"{result['parameters']:,}"),
        ("epochs", str(result["epochs"])),
        ("seed", str(run.config.seed)),
        ("command", f"`{start['command']}`"),
        ("commit", start["git_commit"][:7]),
    ]
    if "test_accuracy_tta" in result:
        views = f"test accuracy with {run.config.eval.tta} test-time augmentation"
        rows.insert(1, (views, f"{100 * result['test_accuracy_tta']:.2f} %"))
    return run_tables.markdown(("figure", "value"), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.box", description=__doc__)
    parser.add_argument("workdir", type=pathlib.Path, help="a finished run")
    try:
        say(printable(fill(parser.parse_args(arguments).workdir)))
    except UserError as error:
        say(f"error: {printable(error)}", sys.stderr)
        return BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
