"""The tour runs from the first cell to the last, and was committed with what it shows."""

import re

import command_line
import nbformat
import pytest

from tools import notebook

TOUR = notebook.NOTEBOOKS / "tour.ipynb"


def kinds(cells: list[nbformat.NotebookNode]) -> list[list[str]]:
    """What each code cell shows: names of streams and of kinds of output, each once."""
    return [
        sorted({output.get("name", output.output_type) for output in cell.outputs})
        for cell in cells
        if cell.cell_type == "code"
    ]


def test_tour_is_committed_as_it_ran() -> None:
    cells = nbformat.read(TOUR, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    shown = set().union(*kinds(cells))
    assert shown == {"stdout", "display_data"}  # no error, and no warning on standard error
    for cell in cells:
        if cell.cell_type == "markdown":  # figures come from the cells
            assert not re.search(r"\d\s*%|\d\.\d", re.sub(r"\(http\S+\)", "", cell.source))


@pytest.mark.slow
def test_tour_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", command_line.QUICK)  # on one device, as users have it
    committed = nbformat.read(TOUR, as_version=4)
    assert kinds(notebook.run(TOUR).cells) == kinds(committed.cells)
    assert nbformat.read(TOUR, as_version=4) == committed
