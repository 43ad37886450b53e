"""Runs the notebooks and keeps what they show: `python -m tools.notebook`."""

import pathlib

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = pathlib.Path(__file__).parent.parent / "notebooks"
_SECONDS = 600  # for a cell, and for the start


def run(path: pathlib.Path) -> nbformat.NotebookNode:
    """Runs the cells of a notebook from the first to the last, in its own directory.

    Returns:
      The notebook with the outputs of this run; the file is left alone.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=_SECONDS,
        startup_timeout=_SECONDS,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    return notebook


def main() -> None:
    """Runs each notebook and writes it with its outputs."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        nbformat.write(run(path), path)


if __name__ == "__main__":
    main()
