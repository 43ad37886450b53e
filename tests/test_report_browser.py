"""Report pages in a real browser: desktop and phone widths, light and dark theme."""

import shutil
from collections.abc import Iterator
from typing import Literal

import command_line
import pytest
from etils import epath
from playwright.sync_api import Browser, sync_playwright
from test_report import with_100_classes

from cifar_jax.report import page

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), "")
# No sandbox because containers run as root; no background traffic of the browser's own.
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine: install chromium to test the pages in it")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield chromium
        chromium.close()


def check(browser: Browser, path: epath.Path, width: int, scheme: Literal["light", "dark"]) -> None:
    """Opens a page offline: it must log nothing, request nothing else, and fit the width."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    opened, logged, requested = context.new_page(), [], []
    opened.set_default_timeout(1000 * command_line.HANGS)
    opened.on("console", lambda message: logged.append(message.text))
    opened.on("pageerror", lambda error: logged.append(str(error)))
    opened.on("request", lambda request: requested.append(request.url))
    opened.goto(f"file://{path}")
    assert logged == []
    assert [url for url in requested if not url.startswith("data:")] == [f"file://{path}"]
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    figures = opened.query_selector_all("svg[role=img]:not(.scroll svg)")
    boxes = [figure.bounding_box() for figure in figures]
    assert boxes
    for box in boxes:
        assert box is not None  # None: not visible
        assert box["width"] > 250 and box["height"] > 60
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    # The labels of a log scale are formulas by default, which only matplotlib can draw.
    assert "mathdefault" not in opened.content()
    loaded = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
    assert opened.evaluate(loaded)
    background, text = (
        opened.evaluate(f"getComputedStyle(document.body).{name}")
        for name in ("backgroundColor", "color")
    )
    dark = sum(map(int, background[4:-1].split(","))) < sum(map(int, text[4:-1].split(",")))
    assert dark == (scheme == "dark")
    context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (375, "dark")])
def test_the_pages_open_offline_and_fit(
    browser: Browser,
    finished: epath.Path,
    workdir: epath.Path,
    searched: epath.Path,
    width: int,
    scheme: Literal["light", "dark"],
):
    check(browser, searched / "search.html", width, scheme)
    check(browser, finished / "report.html", width, scheme)
    check(browser, page.compare([finished, workdir], workdir.parent), width, scheme)
    check(browser, page.run(with_100_classes(workdir)), width, scheme)
