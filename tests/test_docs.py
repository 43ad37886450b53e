"""README and docs: their links lead somewhere, and the README stays short."""

import pathlib
import re

import pytest

from tools import config_reference

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/**/*.md")]


def prose(page: pathlib.Path) -> str:
    """Its text without blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: pathlib.Path) -> set[str]:
    """What GitHub makes of the headings: letters, digits, `-` and `_`, in lower case."""
    headings = re.findall(r"^#+ (.*)", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_or_a_heading(page: pathlib.Path):
    text = prose(page)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    for target in targets:
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def test_a_heading_becomes_an_anchor(tmp_path: pathlib.Path):
    page = tmp_path / "page.md"
    page.write_text("# What's new: `final_long`, 2 x\n```\n# no heading\n```\n")
    assert anchors(page) == {"whats-new-final_long-2-x"}


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 130
    (table,) = re.findall(r"<!-- short: begin.*?-->\n(.*?)\n", "\n".join(lines))
    assert table.count("|") - 1 <= 6  # columns


def test_the_reference_of_all_keys_is_that_of_the_schema():
    assert config_reference.PATH.read_text() == config_reference.text(), "run `make results`"
