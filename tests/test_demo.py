"""The demo classifies pictures on a page that makes no request to other machines."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import command_line
import numpy as np
import pytest
import tiny
from demo_server import serving
from etils import epath
from PIL import Image
from playwright.sync_api import Browser, Page
from test_report_browser import browser  # noqa: F401 (fixture)

from cifar_jax import terminal
from cifar_jax.config import schema
from cifar_jax.data import images, sources
from cifar_jax.evaluation import trained

pytest.importorskip("gradio", reason="requirements-demo.txt is not installed")

from cifar_jax.demo import answers, drawing, examples

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataless(compass: epath.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run on smaller images with other classes; its data are not on this machine."""
    directory = shutil.copytree(compass, tmp_path_factory.mktemp("demo") / "compass")
    config = json.loads((directory / "config.json").read_text())
    config["data"]["dir"] = "nowhere"
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="module")
def test_set():
    return sources.load(schema.Data("digits"))


@pytest.fixture(scope="module")
def photos(
    finished: epath.Path, test_set: sources.Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, pathlib.Path]:
    """True class -> file of an enlarged test image that the network classifies correctly."""
    correct = trained.load(finished).predict(test_set.test_images).argmax(1) == test_set.test_labels
    files, directory = {}, tmp_path_factory.mktemp("photos")
    for label in (3, 7, 8):
        index = np.flatnonzero(correct & (test_set.test_labels == label))[1]
        path = directory / f"photo-{label}.png"
        Image.fromarray(test_set.test_images[index]).resize((96, 96)).save(path)
        files[test_set.class_names[label]] = path
    return files


# ---------------------------------------------------------------------------- in a browser
@pytest.fixture(scope="module")
def address(
    browser: Browser,  # noqa: F811
    finished: epath.Path,
    dataless: pathlib.Path,
    tmp_path_factory: pytest.TempPathFactory,
):
    """The address of a page with both runs."""
    temporary = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        with serving(f"--workdirs={finished},{dataless}") as (url, lines):
            note = "no examples of cifar10: config.data.dir=nowhere does not exist\n"
            assert note in lines
            yield url
    assert list(temporary.iterdir()) == []  # uploads are deleted


@contextlib.contextmanager
def opened(browser: Browser, address: str, width: int = 1200):  # noqa: F811
    """Opens the page: it must log no error, ask no other machine, and fit the width."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    page, logged, requested = context.new_page(), [], set()
    page.on("console", lambda message: logged.append((message.type, message.text)))
    page.on("pageerror", lambda error: logged.append(("error", str(error))))
    page.on("request", lambda request: requested.add(request.url))
    page.on(  # pyright: ignore[reportCallIssue]
        "response",
        lambda r: r.status >= 400 and logged.append(("error", f"{r.status} {r.url}")),  # pyright: ignore[reportArgumentType]
    )
    page.set_default_timeout(1000 * command_line.HANGS)
    page.goto(address)
    page.wait_for_selector("#picture input[type=file]", state="attached")
    yield page
    assert [text for kind, text in logged if kind == "error"] == []
    assert {url for url in requested if not url.startswith((address, "data:", "blob:"))} == set()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def upload(page: Page, path: pathlib.Path) -> None:
    page.set_input_files("#picture input[type=file]", path)


def shows(page: Page, name: str) -> None:
    """Waits until the first network's answer is the class `name`."""
    page.wait_for_selector(f".answer >> nth=0 >> h3 >> text=/^(perhaps )?{name}, /")


@pytest.mark.parametrize("width", [1200, 375])
def test_two_networks_classify_a_picture_side_by_side(
    browser: Browser,  # noqa: F811
    address: str,
    photos: dict[str, pathlib.Path],
    width: int,
):
    with opened(browser, address, width) as page:
        upload(page, photos["7"])
        shows(page, "7")
        panels = page.locator(".answer")
        assert panels.count() == 2
        assert panels.nth(0).locator("meter").count() == 10
        assert panels.nth(1).locator("meter").count() == len(tiny.CLASS_NAMES)
        values = panels.nth(0).locator("meter").evaluate_all("all => all.map(m => m.value)")
        assert sum(values) == pytest.approx(1, abs=1e-3) and values == sorted(values)[::-1]
        assert panels.nth(1).get_attribute("data-class") in tiny.CLASS_NAMES
        for alt in ("The picture as the network sees it", "SmoothGrad"):
            shown = page.locator(f"img[alt*='{alt}']")
            assert shown.count() == 2
            page.wait_for_function(
                "alt => [...document.querySelectorAll(`img[alt*='${alt}']`)].every("
                "i => i.naturalWidth == 256)",
                arg=alt,
            )
        for size in ("32 x 32", "8 x 8"):
            assert page.get_by_text(f"What the network sees, {size}").count() == 1
        sees = page.locator("img[alt*='as the network sees it']")
        tops = [image.bounding_box()["y"] for image in sees.all()]  # pyright: ignore[reportOptionalSubscript]
        assert (tops[0] == tops[1]) == (width == 1200)  # side by side, or one above the other
        # The answer stands right under the picture, above what else there is to see.
        picture, answer = (page.locator(at).first.bounding_box() for at in ("#picture", ".answer"))
        assert picture and answer and picture["y"] + picture["height"] < answer["y"]
        assert abs(picture["x"] - answer["x"]) < 30 and (width == 1200 or answer["y"] < tops[0])


BRING_FILE = """([event, target, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "photo.png", { type: "image/png" }));
  const init = { bubbles: true, cancelable: true };
  document.querySelector(target).dispatchEvent(event === "paste"
    ? new ClipboardEvent("paste", { ...init, clipboardData: data })
    : new DragEvent("drop", { ...init, dataTransfer: data }));
}"""


def test_it_opens_with_a_test_image_answered(
    browser: Browser,  # noqa: F811
    address: str,
    finished: epath.Path,
):
    first = examples.find(trained.load(finished))[0]
    with opened(browser, address, 390) as page:
        shows(page, str(trained.load(finished).predict(first.image[None])[0].argmax()))
        page.wait_for_selector(f"text=the test set says {first.truth}")
        page.wait_for_selector("#picture img")
        assert page.locator("img[alt*='SmoothGrad']").count() == 2


def test_pictures_can_be_dropped_pasted_or_taken_from_the_test_set(
    browser: Browser,  # noqa: F811
    address: str,
    photos: dict[str, pathlib.Path],
    finished: epath.Path,
):
    with opened(browser, address) as page:
        drop = ["drop", "#picture button[aria-dropeffect]", [*photos["3"].read_bytes()]]
        page.evaluate(BRING_FILE, drop)
        shows(page, "3")
        page.evaluate(BRING_FILE, ["paste", "body", [*photos["8"].read_bytes()]])
        shows(page, "8")
        example = examples.find(trained.load(finished))[4]
        page.locator(".examples button").nth(4).click()
        expected = str(trained.load(finished).predict(example.image[None])[0].argmax())
        shows(page, expected)
        kind = "right" if expected == example.truth else "wrong"
        page.wait_for_selector(f".{kind}[role=status] >> text=the test set says {example.truth}")
        page.get_by_label("Remove Image").click()
        page.wait_for_selector(".answer", state="detached")


def test_an_unreadable_file_is_reported_and_the_page_still_works(
    browser: Browser,  # noqa: F811
    address: str,
    photos: dict[str, pathlib.Path],
    tmp_path: pathlib.Path,
):
    broken, vector, text = (tmp_path / name for name in ("broken.png", "vector.svg", "notes.txt"))
    broken.write_bytes(photos["3"].read_bytes()[:200])
    vector.write_text("<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>")
    text.write_text("no picture")
    large = tmp_path / "large.png"
    large.touch()
    os.truncate(large, images.MAX_BYTES + 1)
    with opened(browser, address) as page:
        upload(page, photos["7"])
        shows(page, "7")
        assert page.locator(".output:visible").count() == 4
        upload(page, broken)
        page.wait_for_selector("[role=alert] >> text=Cannot read this picture: damaged")
        # It replaces the answer and the pictures.
        page.wait_for_selector(".answer", state="detached")
        page.wait_for_selector("#picture img, img[alt*='SmoothGrad']", state="detached")
        assert page.locator(".output:visible").count() == 0  # no empty boxes
        upload(page, vector)
        page.wait_for_selector("[role=alert] >> text=not a PNG, JPEG, WebP, GIF or BMP image")
        upload(page, text)
        page.wait_for_selector("text=Only image/* allowed")
        upload(page, large)
        page.wait_for_selector("text=exceed the maximum allowed size of 256")
        upload(page, photos["3"])
        shows(page, "3")


# ---------------------------------------------------------------------------- without a browser
def test_the_demo_serves_only_this_machine_until_sigterm(finished: epath.Path):
    with serving(f"--workdir={finished}", end=signal.SIGTERM) as (url, _):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{url}gradio_api/file={finished / 'config.json'}")
        port = int(url.split(":")[2].strip("/"))
        status, output = command_line.run("--mode=demo", f"--workdir={finished}", f"--port={port}")
        assert (status, output.count("\n")) == (2, 1)
        assert output.startswith(
            f"error: --port={port} is not available (Address already in use): "
        )
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", port)):
            pass


def python(program: str, *arguments: str) -> tuple[int, str]:
    """Runs Python code in a new process; returns its exit status and output."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=command_line.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def test_gradio_is_imported_with_telemetry_off():
    program = (
        "import cifar_jax.demo.server; from gradio import analytics; from huggingface_hub import"
        " constants; print(analytics.analytics_enabled(), constants.HF_HUB_OFFLINE)"
    )
    assert python(program) == (0, "False True\n")


def test_a_missing_gradio_is_named(
    finished: epath.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    program = (
        "import runpy, sys; sys.modules['gradio'] = None;"
        " runpy.run_path('main.py', run_name='__main__')"
    )
    line = "error: --mode=demo needs gradio: pip install -r requirements-demo.txt\n"
    assert python(program, "--mode=demo", f"--workdir={finished}") == (2, line)
    assert list(tmp_path.iterdir()) == []


def test_every_class_has_an_example(finished: epath.Path, test_set: sources.Dataset):
    found = examples.find(trained.load(finished))
    assert tuple(example.truth for example in found) == test_set.class_names
    for example in found:
        (same,) = np.flatnonzero((test_set.test_images == example.image).all((1, 2, 3)))
        assert test_set.class_names[test_set.test_labels[same]] == example.truth


@pytest.mark.slow
def test_answers_come_in_the_order_of_the_questions(finished: epath.Path):
    """Else a slow answer could replace that to a picture dropped meanwhile.

    For the same reason the page comes with the answer to the first example: a page that asked for
    it when it opened would lose a file picked before the answer came.
    """
    program = (
        "import cifar_jax, sys; from cifar_jax.demo import examples, page\n"
        "network = cifar_jax.load(sys.argv[1])\n"
        "blocks = page.build([network], {'digits': examples.find(network)})\n"
        "print([event.concurrency_id for event in blocks.fns.values()])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, finished],
        cwd=command_line.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    # Upload, clear, an example chosen.
    assert done.stdout == f"{['answer'] * 3}\n"


@pytest.mark.parametrize(
    ("p", "shown"),
    [(1.0, "100 %"), (0.996, "> 99 %"), (0.46, "46 %"), (0.004, "< 1 %"), (0, "0 %")],
)
def test_percentages_claim_no_false_precision(p: float, shown: str):
    assert terminal.percent(p).replace("\N{NO-BREAK SPACE}", " ") == shown


def test_an_answer_hedges_below_a_half_and_says_whether_it_is_right():
    sure = answers.shown({"cat": 0.7, "<dog>": 0.3}, "a run", "cat")
    assert "<h3>cat, 70" in sure and 'class="right"' in sure and "&lt;dog&gt;" in sure
    unsure = answers.shown({"cat": 0.3, "dog": 0.4, "ship": 0.3}, "a run", "cat")
    assert "<h3>perhaps dog, 40" in unsure and "Wrong: the test set says cat" in unsure
    assert "the test set" not in answers.shown({"cat": 0.3, "dog": 0.7}, "a run")


@pytest.mark.parametrize(("size", "orientation"), [((60, 30), 1), ((30, 60), 6), ((20, 20), 1)])
def test_a_picture_is_dark_where_it_is_cut_off(size: tuple[int, int], orientation: int):
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[274] = orientation
    Image.new("RGB", size, "white").save(buffer, "PNG", exif=exif)
    shown = np.asarray(drawing.framed(buffer.getvalue(), (32, 32, 3)))
    upright = size if orientation == 1 else size[::-1]
    assert shown.shape[1] / shown.shape[0] == pytest.approx(upright[0] / upright[1], rel=0.01)
    bright = shown[..., 0] == 255
    assert bright.sum() == min(shown.shape[:2]) ** 2 and bright.any(0).sum() == bright.any(1).sum()
    assert (shown[~bright] == 85).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_overlay_is_gray_where_the_mask_is_zero_and_colored_elsewhere(channels: int):
    image = np.full((4, 8, channels), 100, np.uint8)
    image[0, 0] = 200
    mask = np.zeros((4, 8), np.float32)
    mask[3, 7] = 1
    large = np.asarray(drawing.enlarged(image)).reshape(128, 256, channels)
    assert (large[:32, :32] == 200).all() and (large[32:, 32:] == 100).all()
    marked = np.asarray(drawing.overlay(image, mask)).astype(int)
    assert (marked[:16, :16] == 200).all()  # gray where the mask is 0
    assert np.ptp(marked[-1, -1]) > 50  # colored where it is not
    assert (np.asarray(drawing.overlay(image, 0 * mask))[32:, 32:] == 100).all()
    decoded = images.decode(drawing.png(drawing.picture(image)), image.shape)
    np.testing.assert_array_equal(decoded, image)
