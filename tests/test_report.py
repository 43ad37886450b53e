"""Report pages: of a finished run, an unfinished one, a damaged one, and of several runs."""

import html.parser
import json
import pathlib
import re
import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import command_line
import markupsafe
import numpy as np
import pytest
import tiny
from etils import epath

from cifar_jax import metrics, terminal
from cifar_jax.errors import UserError
from cifar_jax.report import evidence, figures, galleries, page
from cifar_jax.training import test as evaluate

pytestmark = pytest.mark.slow


def edit(path: epath.Path, change: Callable[[Any], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def with_100_classes(workdir: epath.Path) -> epath.Path:
    """Rewrites a workdir as that of a data set with 100 classes that is not on this machine."""
    names = tuple(f"a class called {i}" for i in range(100))
    rng = np.random.default_rng(0)
    labels = np.arange(2000) % 100
    logits = rng.normal(size=(2000, 100)).astype(np.float32) + 3 * np.eye(100)[labels]
    logits = logits.astype(np.float32)
    np.savez(workdir / "predictions.npz", logits=logits, labels=labels)
    counts = {split: dict.fromkeys(names, 20) for split in ("train", "validation", "test")}
    report = metrics.classification_figures(logits, labels, names)
    edit(workdir / "result.json", lambda r: r.update(report, class_counts=counts))
    edit(workdir / "config.json", lambda c: c["data"].update(name="not_on_this_machine"))
    return workdir


class Reader(html.parser.HTMLParser):
    """Collects the tags of a page and checks that they are closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "wbr", "link", "br", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str):
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(path: epath.Path) -> tuple[str, Reader]:
    text = path.read_text()
    reader = Reader(text)
    text = text.replace("\N{NO-BREAK SPACE}", " ")  # which keep a number and its % together
    assert reader.open == []
    assert all(svg["aria-label"] for svg in reader.of("svg"))
    assert all(image["alt"] for image in reader.of("img"))
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in reader.tags:
        for key in ("src", "href", "xlink:href"):
            assert attributes.get(key, "#").startswith(("data:", "#"))
    assert "url(http" not in text and "@import" not in text
    return text, reader


# ---------------------------------------------------------------------------- one run
def test_training_ends_with_a_complete_report_page(finished: epath.Path):
    result = json.loads((finished / "result.json").read_text())
    text, reader = read(finished / "report.html")
    assert f"{100 * result['test_accuracy']:.2f} %" in text
    assert f"{result['test_objective']:.4f}" in text
    for part in ("macro avg", "conv2d_0", "random_crop", "86.37 %", "optimizer.learning_rate"):
        assert part in text
    # Accuracy, loss, objective, learning rate, confusion, reliability, class distribution.
    assert len(reader.of("svg")) == 7
    wrong = 360 - np.trace(np.array(result["confusion_matrix"]))
    assert len(reader.of("img")) == min(30, wrong) + 10 * 8
    assert "Unfinished" not in text


def test_the_page_shows_the_gap_with_and_without_augmentation_and_dropout(workdir: epath.Path):
    edit(workdir / "result.json", lambda r: r.update(train_accuracy_clean=0.9876))
    run = evidence.load(workdir)
    gaps = {"without": run.clean_gap, "with": run.gap(run.best_row)}
    assert run.clean_gap == 0.9876 - run.best_row["validation_accuracy"]
    shown = {f"{100 * gap:.2f} points" for gap in gaps.values()}  # pyright: ignore[reportOperatorIssue]
    text, _ = read(page.run(workdir))
    assert len(shown) == 2 and all(gap in text for gap in shown) and "98.76 %" in text
    comparison, _ = read(page.compare([workdir], workdir))
    assert f"{100 * run.clean_gap:.2f}" in comparison  # pyright: ignore[reportOperatorIssue]
    # Results of earlier versions lack it.
    edit(workdir / "result.json", lambda r: r.pop("train_accuracy_clean"))
    assert evidence.load(workdir).clean_gap is None
    page.compare([workdir], workdir)
    assert "without augmentation and dropout" not in page.run(workdir).read_text()


def test_writing_the_page_again_gives_the_same_page(finished: epath.Path, workdir: epath.Path):
    before = (finished / "report.html").read_text()
    (workdir / "report.html").unlink()
    assert page.run(workdir).read_text() == before


def test_a_finished_run_without_its_page_gets_it_back(workdir: epath.Path):
    (workdir / "report.html").unlink()
    tiny.train(command_line.tiny_config(), workdir, report=True)
    assert (workdir / "report.html").exists()


def test_an_unfinished_run_is_marked_and_shows_what_it_has_so_far(workdir: epath.Path):
    (workdir / "result.json").unlink()
    (workdir / "predictions.npz").unlink()
    rows = (workdir / "metrics.jsonl").read_text().splitlines()
    (workdir / "metrics.jsonl").write_text("\n".join(rows[:2]) + "\n")
    text, reader = read(page.run(workdir))
    assert "Unfinished" in text and "2 of at most 3 epochs" in text
    assert "test accuracy" not in text.lower().replace("report: test accuracy", "")
    assert len(reader.of("svg")) == 5 and not reader.of("img")


def test_a_run_without_a_finished_epoch_is_refused_in_one_line(workdir: epath.Path):
    (workdir / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="has not finished an epoch yet"):
        page.run(workdir)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04cut short"])
def test_damaged_predictions_are_named_with_the_remedy(workdir: epath.Path, content: bytes):
    (workdir / "predictions.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"predictions.npz is damaged .*--mode=evaluate"):
        page.run(workdir)


def test_without_predictions_only_pictures_and_calibration_are_left_out(workdir: epath.Path):
    (workdir / "predictions.npz").unlink()
    text, reader = read(page.run(workdir))
    assert "predictions.npz is missing" in text and "conv2d_0" in text
    assert not reader.of("img") and len(reader.of("svg")) == 6


def test_without_the_data_set_only_layers_and_pictures_are_left_out(workdir: epath.Path):
    text, reader = read(page.run(with_100_classes(workdir)))
    assert "Layers and pictures are left out" in text
    assert not reader.of("img") and len(reader.of("svg")) == 7
    assert "a class called 99" in text


def test_html_in_a_recorded_command_is_escaped(workdir: epath.Path):
    edit(
        workdir / "environment.json",
        lambda e: e["starts"][0].update(command="main.py '<script>alert(1)</script>'"),
    )
    text, reader = read(page.run(workdir))
    assert not reader.of("script") and "&lt;script&gt;" in text


@pytest.mark.parametrize(
    ("command", "reported", "departures"),
    [
        ("main.py --config=configs/final.py", "final", []),
        ("main.py --config=configs/final.py --config.seed=3 --config.data.dir=/d", "final", []),
        ("main.py --config=configs/final.py --config.epochs=1", None, ["epochs"]),
        (
            "main.py -config configs/final.py --noconfig.augment.flip --config.note='it's",
            None,
            ["augment.flip", "note"],
        ),
        ("main.py --config=configs/speedrun94.py", None, []),
    ],
)
def test_only_a_run_of_the_reports_config_claims_to_reproduce_it(
    command: str, reported: str | None, departures: list[str], workdir: epath.Path
):
    edit(workdir / "environment.json", lambda e: e["starts"][0].update(command=command))
    run = evidence.load(workdir)
    assert run.reported == reported and run.departures == departures
    text, _ = read(page.run(workdir))
    assert (f"departs from its config in {', '.join(departures)}." in text) == bool(departures)


def test_every_part_is_in_the_table_of_contents_and_folds(finished: epath.Path):
    _, reader = read(finished / "report.html")
    parts = [part["id"] for part in reader.of("details") if part.get("class") == "part"]
    assert [link["href"] for link in reader.of("a")] == [f"#{part}" for part in parts]
    assert len(parts) == 6 and len(reader.of("summary")) == len(reader.of("details")) == 8


# ---------------------------------------------------------------------------- its parts
def run_of(rates: Sequence[float], plateau: bool = True, **overrides: Any) -> evidence.Run:
    rows = [
        {"epoch": i + 1, "learning_rate": rate, "validation_accuracy": 0.1} | overrides
        for i, rate in enumerate(rates)
    ]
    config = tiny.typed(tiny.config({"plateau.enabled": plateau}))
    return evidence.Run(epath.Path("runs/final/seed-3"), config, {}, rows, None, None)


NAMES = (
    *("a $ b $ c", "$x^2$", "under_score", "back\\slash", "a < b & c", '"quoted"', "#010101"),
    *("two\nlines", "red \x1b[31m", "nul\0", "", "  ", "שלום", "\N{RIGHT-TO-LEFT OVERRIDE}abc"),
    *("犬", "long " * 200, "1", "1.0", "nan", "macro avg", "accuracy", "_hidden", ' id="a_1"'),
)


def test_every_class_has_its_row_whatever_its_name(workdir: epath.Path):
    rng = np.random.default_rng(0)
    labels = np.arange(10 * len(NAMES)) % len(NAMES)
    logits = (rng.normal(size=(len(labels), len(NAMES))) + 3 * np.eye(len(NAMES))[labels]).astype(
        np.float32
    )
    counts = {split: dict.fromkeys(NAMES, 10) for split in ("train", "validation", "test")}
    report = metrics.classification_figures(logits, labels, NAMES)
    edit(workdir / "result.json", lambda r: r.update(report, class_counts=counts))
    (workdir / "predictions.npz").unlink()
    edit(workdir / "config.json", lambda c: c["data"].update(name="not_on_this_machine"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # for instance about missing glyphs
        text, reader = read(page.run(workdir))
    (classes,) = re.findall(r"<h2>Classes</h2>.*?</table>", text, re.DOTALL)
    shown = re.findall(r"<tr><td>(.*?)</td><td>", classes, re.DOTALL)
    assert len(shown) == len(NAMES) + 2
    assert [markupsafe.escape(terminal.label(name)) for name in NAMES] == shown[:-2]
    assert all(c.isprintable() or c == "\n" for c in text)
    (confusion,) = re.findall(r'<svg role="img" aria-label="Confusion matrix.*?</svg>', text, re.S)
    for name in NAMES:
        inside = str(markupsafe.escape(terminal.label(name))).replace("&#34;", '"')
        assert confusion.count(f">{inside}</text>") >= 2, name  # on both axes
    result = json.loads((workdir / "result.json").read_text())
    table = evaluate.describe(result)
    assert len(table.splitlines()) == len(NAMES) + 2 + 5 and "\x1b" not in table


def test_a_run_whose_name_begins_with_an_underscore_is_in_the_legend(
    finished: epath.Path, workdir: epath.Path
):
    other = workdir.rename(workdir.parent / "_hidden")
    text, _ = read(page.compare([finished, other], workdir.parent))
    assert text.count("_hidden</text>") == 2  # in each figure


def test_learning_rate_drops_are_the_epochs_of_the_lower_rate():
    rates = [1.0, 1.0, 0.5, 0.5, 0.25]
    run = run_of(rates)
    assert run.rate_drops == [3, 5]
    assert run_of(rates, plateau=False).rate_drops == []  # a smooth schedule falls all the time
    assert run.name == "final/seed-3"


def test_the_axis_of_a_single_epoch_has_one_tick():
    drawn = figures.learning_rate(run_of([0.01]))
    epochs, _, rates = drawn.partition(">epoch<")
    assert re.findall(r">([\d.]+)</text>", epochs) == ["1"] and ">0.01</text>" in rates


def test_the_learning_rates_are_labelled_in_plain_numbers():
    drawn = figures.learning_rate(run_of([1e-2, 5e-3, 1e-3]))
    assert {"0.01", "0.005", "0.001"} <= set(re.findall(r">([\d.]+)</text>", drawn))
    assert "mathdefault" not in drawn  # a formula, which only matplotlib can draw


def test_pictures_are_chosen_by_confidence():
    logits = np.log(
        np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.6, 0.4], [0.05, 0.95]], np.float32)
    )
    labels = np.array([0, 0, 0, 1, 1])
    images = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
    gallery = galleries.Gallery(images, logits, labels, ("cat", "dog"))
    assert [p.uri for p in gallery.mistakes()] == [galleries.data_uri(images[i]) for i in (2, 1, 3)]
    assert [p.confidence for p in gallery.mistakes()] == pytest.approx([0.8, 0.7, 0.6])
    best, worst = gallery.extremes()["cat"]
    assert [p.probability for p in best] == pytest.approx([0.9, 0.3, 0.2])
    assert [p.probability for p in worst] == pytest.approx([0.2, 0.3, 0.9])
    assert [p.right for p in best] == [True, False, False]


def test_the_confusion_figure_has_every_number_and_a_description():
    text = figures.confusion([[7, 13], [0, 29]], ("cat", "dog"))
    for part in (">7<", ">13<", ">29<", "36 of 49 images on the diagonal"):
        assert part in text
    assert not re.search(r"#0[1-3]0[1-2]0\d", text)  # placeholder colors left in


# ---------------------------------------------------------------------------- several
def test_a_comparison_never_overwrites_a_page_of_the_user(
    finished: epath.Path, tmp_path: pathlib.Path
):
    """It does replace its own pages, including those of earlier versions."""
    path = page.compare([finished], epath.Path(tmp_path))
    assert page.compare([finished], epath.Path(tmp_path)) == path
    (tmp_path / "comparison.html").write_text(
        "<title>Comparison of runs</title>, of an earlier version"
    )
    page.compare([finished], epath.Path(tmp_path))
    (tmp_path / "comparison.html").write_text("<title>My comparison</title>")
    with pytest.raises(
        UserError, match=r"comparison.html is not a page of this program: move it, or"
    ):
        page.compare([finished], epath.Path(tmp_path))
    assert (tmp_path / "comparison.html").read_text() == "<title>My comparison</title>"


def test_a_comparison_overlays_the_curves_and_lists_config_differences(
    finished: epath.Path, workdir: epath.Path
):
    edit(workdir / "config.json", lambda c: c["optimizer"].update(learning_rate=0.02))
    edit(workdir / "result.json", lambda r: r["classification_report"]["3"].update(recall=0.125))
    unfinished = epath.Path(shutil.copytree(workdir, workdir.parent / "unfinished"))
    (unfinished / "result.json").unlink()
    path = page.compare([finished, workdir, unfinished], workdir.parent)
    text, reader = read(path)
    assert path.name == "comparison.html" and len(reader.of("svg")) == 2
    recall = json.loads((finished / "result.json").read_text())["classification_report"]["3"]
    assert f"{100 * (0.125 - recall['recall']):+.1f}" in text
    (config,) = re.findall(r"<h2>Config</h2>.*?</table>", text, re.DOTALL)
    assert (
        "<tr><td>optimizer.<wbr>learning_rate</td><td>0.01</td><td>0.02</td><td>0.02</td></tr>"
        in config
    )
    assert config.count("<tr>") == 2
    assert text.count(">unfinished<") >= 2


def test_runs_with_different_classes_are_not_compared(finished: epath.Path, workdir: epath.Path):
    with pytest.raises(UserError, match="different classes"):
        page.compare([finished, with_100_classes(workdir)], workdir.parent)


def test_the_config_of_a_workdir_is_not_changed_by_a_report(workdir: epath.Path):
    before = (workdir / "config.json").read_bytes()
    page.run(workdir)
    assert (workdir / "config.json").read_bytes() == before
