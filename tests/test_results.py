"""The tables of README and docs show the evidence, and the evidence is consistent."""

import importlib
import json
import pathlib
import re
import shutil
import statistics
import subprocess
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
import tiny
from etils import epath

from benchmarks import table
from cifar_jax import metrics, models, search
from cifar_jax.config.schema import Rule
from cifar_jax.errors import UserError
from cifar_jax.models import summary
from cifar_jax.pages import reference
from cifar_jax.report import page as report_page
from tools import flops, picture, published, results, run_tables, searches, studies, trust_tables

ROOT = pathlib.Path(__file__).parent.parent


def edit(path: pathlib.Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.slow
def test_the_pages_show_what_make_results_generates():
    for page in results.PAGES:
        text = (ROOT / page).read_text()
        assert results.updated(text, page, ROOT / "results") == text, page
    for page, update in table.PAGES.items():
        text = (ROOT / page).read_text()
        assert update(text, ROOT / "results" / "benchmarks") == text, page
    reports = (ROOT / "results" / "README.md").read_text()
    assert results.classification_reports(ROOT / "results") == reports


@pytest.mark.slow
def test_the_picture_shows_the_evidence(tmp_path: pathlib.Path):
    for page, draw in results.PICTURES.items():
        assert draw(ROOT / "results") == (ROOT / page).read_text(), page
    drawn = (ROOT / "docs/accuracy.svg").read_text()
    shown = re.findall(r">(\w+)  ([\d.]+) %<", drawn)
    names = {path.parent.parent.name for path in ROOT.glob("results/*/seed-*/result.json")}
    assert {name for name, _ in shown} == names and ("model3", "81.8") in shown
    for name in ("final", "model1"):
        shutil.copytree(ROOT / "results" / name, tmp_path / name)
    edit(tmp_path / "final/seed-1/result.json", test_accuracy=0.90)
    start = json.loads((tmp_path / "model1/seed-0/environment.json").read_text())
    for run in tmp_path.glob("model1/seed-*"):  # no two CPU cores: it is not in the picture
        edit(run / "environment.json", **{**start, "cpu_count": 8})
    assert re.findall(r">(\w+)  ([\d.]+) %<", picture.draw(tmp_path)) == [("final", "88.4")]


@pytest.mark.parametrize("color", [picture.TEXT, *picture.COLORS.values()])
def test_the_picture_reads_well_on_light_and_dark_pages(color: str):
    """WCAG's contrast ratio; it asks 3 of large text and of graphics."""

    def luminance(color: str) -> float:
        channels = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        red, green, blue = (
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for background in ("#ffffff", "#0d1117"):
        low, high = sorted((luminance(color), luminance(background)))
        assert (high + 0.05) / (low + 0.05) > 3.5


def test_every_run_has_all_of_its_evidence():
    runs = list((ROOT / "results").rglob("seed-*"))
    assert runs
    for run in runs:
        names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
        wanted = set(published.REQUIRED)
        began = json.loads((run / "environment.json").read_text())["starts"][0]["time"]
        if began < "2026-11-26":  # these were not kept, and docs/results.md says so
            wanted -= {"predictions.npz", "data.json"}
        assert names - set(published.OPTIONAL) - {"report.html"} == wanted, run


def test_no_run_comes_from_a_tree_with_changes():
    for path in (ROOT / "results").rglob("seed-*/environment.json"):
        starts = json.loads(path.read_text())["starts"]
        assert starts and all(s["git_commit"] and s["git_dirty"] is False for s in starts), path


@pytest.mark.slow
def test_a_changed_result_changes_the_table(tmp_path: pathlib.Path):
    shutil.copytree(ROOT / "results", tmp_path / "results")
    path = next((tmp_path / "results/model1").glob("seed-*/result.json"))
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "test_accuracy": 0.123456}))
    for make in (run_tables.short_table, run_tables.table, results.classification_reports):
        assert make(ROOT / "results") != make(tmp_path / "results")
    for page, blocks in results.PAGES.items():
        text = "".join(
            f"head\n<!-- {name}: begin, by `make results` -->\nold\n<!-- {name}: end -->\ntail\n"
            for name in blocks
        )
        made = text
        for make in blocks.values():
            made = made.replace("\nold\n", f"\n{make(tmp_path / 'results')}\n", 1)
        assert results.updated(text, page, tmp_path / "results") == made


def test_a_class_of_any_name_is_one_cell_of_the_table(tmp_path: pathlib.Path):
    shutil.copytree(ROOT / "results/model1", tmp_path / "results/model1")
    classes = ["a|b", "two\nlines", "<b>", "accuracy", *map(str, range(6))]
    for path in (tmp_path / "results/model1").glob("seed-*/result.json"):
        result = json.loads(path.read_text())
        report = result["classification_report"].values()
        edit(
            path,
            classification_report=dict(zip([*classes, "macro avg", "-"], report, strict=True)),
            class_counts={part: dict.fromkeys(classes, 1) for part in result["class_counts"]},
        )
    lines = results.classification_reports(tmp_path / "results").splitlines()
    rows = lines[max(i for i, line in enumerate(lines) if line.startswith("|---")) + 1 :]
    assert [row.split(" | ")[0] for row in rows[:4]] == [
        *("| a\\|b", r"| two\\nlines", "| \\<b\\>", "| accuracy")
    ]


def test_the_table_of_longer_training_has_the_best_so_far(tmp_path: pathlib.Path):
    for name, accuracies in {
        "final": [0.2] * 10 + [0.4, 0.3] * 15,
        "final_long": [0.5] * studies.LONGER[-1],
    }.items():
        run = tmp_path / name / "seed-0"
        shutil.copytree(ROOT / "results" / "final" / "seed-0", run)
        row = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
        rows = [
            json.dumps({**row, "epoch": epoch, "validation_accuracy": accuracy})
            for epoch, accuracy in enumerate(accuracies, 1)
        ]
        (run / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    final, longer = studies.longer_table(tmp_path).splitlines()[2:]
    assert "| 20.00 | 40.00 | 40.00 | 40.00 | – | – | – | – | – |" in final
    assert longer.count("| 50.00 ") == len(studies.LONGER)


def test_the_table_of_harder_images_has_what_was_measured(tmp_path: pathlib.Path):
    run = tmp_path / "final" / "seed-0"
    shutil.copytree(ROOT / "results" / "final" / "seed-0", run)
    assert len(trust_tables.harder_table(tmp_path).splitlines()) == 2  # only the title
    means = {str(severity): 0.9 - 0.1 * severity for severity in range(1, 6)}
    attacked = {"FGSM": {"2/255": 0.3, "8/255": 0.2}, "PGD": {"2/255": 0.1, "8/255": 0.0}}
    suites = json.loads((ROOT / "results/final/seed-1/robustness.json").read_text())
    suites["corruptions"]["mean_accuracy"] = means
    suites["adversarial"]["accuracy"] = attacked
    (run / "robustness.json").write_text(json.dumps(suites))
    row = trust_tables.harder_table(tmp_path).splitlines()[2]
    clean = json.loads((run / "result.json").read_text())["test_accuracy"]
    figures = f"{100 * clean:.2f} | 60.00 | 80.00 | 40.00 | 30.00 | 20.00 | 10.00 | 0.00 | – |"
    assert row.endswith(f"seed 0 | {figures} 2-core AMD EPYC |")
    (run / "export").mkdir()
    (run / "export" / "model.int8.json").write_text(json.dumps({"test_accuracy": 0.8125}))
    assert (
        trust_tables.harder_table(tmp_path).splitlines()[2].endswith(" 81.25 | 2-core AMD EPYC |")
    )


def test_the_table_of_calibration_has_what_the_seeds_say_together(
    workdir: pathlib.Path, tmp_path: pathlib.Path
):
    first = published.add(workdir, tmp_path)
    second = shutil.copytree(first, tmp_path / "tiny" / "seed-1")
    with np.load(first / "predictions.npz") as file:
        logits, labels = file["logits"], file["labels"]
    others = np.where(np.eye(10)[labels] == 1, -9.0, -logits).astype(np.float32)
    wrong = metrics.classification_figures(others, labels, tuple("0123456789"))
    scaled = metrics.calibration(others / 2, labels).expected_error
    edit(
        second / "result.json",
        test_accuracy=metrics.accuracy(others, labels),
        test_loss=metrics.cross_entropy(others, labels),
        **{**wrong, "temperature": 2.0, "scaled_calibration_error": scaled},
    )
    np.savez_compressed(second / "predictions.npz", logits=others, labels=labels)
    together = 100 * np.mean((logits + others).argmax(1) == labels)
    (row,) = trust_tables.calibration_table(tmp_path).splitlines()[2:]
    cells = row.split(" | ")
    assert cells[1] == "2" and cells[3] == f"{together:.2f}"
    alone = json.loads((first / "result.json").read_text())
    assert cells[5] == f"{alone['temperature']:.2f}, 2.00"
    assert cells[6].removesuffix(" |") == (
        f"{100 * alone['scaled_calibration_error']:.2f}, {100 * scaled:.2f}"
    )


def test_flops_count_three_products_a_kernel_but_two_for_the_first():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            x = nn.Conv(8, (3, 3), padding="SAME", name="conv")(x)
            return nn.Dense(10, name="dense")(x.reshape(len(x), -1))

    convolution, dense = 3 * 3 * 3 * 8 * 32 * 32, 32 * 32 * 8 * 10
    assert flops.train_flops(Net(), (32, 32, 3)) == 2 * (2 * convolution + 3 * dense)
    for path, expected in {
        "conv/.*": convolution + 2 * dense,  # no gradient before the first that is trained
        "dense/.*": 2 * convolution + 2 * dense,
    }.items():
        rules = (Rule(path, frozen=True),)
        assert flops.train_flops(Net(), (32, 32, 3), rules) == 2 * expected


@pytest.mark.parametrize("name", [*reference.REPORTED, *reference.SPEEDRUNS])
def test_what_pages_compare_with_is_what_the_configs_and_the_evidence_say(name: str):
    config = tiny.typed(importlib.import_module(f"configs.{name}").get_config())
    rows = summary.layers(models.build(config.model, (32, 32, 3), 10), (32, 32, 3))
    count = sum(row.multiply_adds for row in rows)
    if name in reference.REPORTED:
        assert reference.REPORTED[name].multiply_adds == count
        return
    runs = dict(run_tables.configs(ROOT / "results"))[name]
    mean = statistics.mean(run_tables.figures(runs, "test_accuracy"))
    assert reference.SPEEDRUNS[name] == (pytest.approx(mean, abs=5e-5), count)


# ---------------------------------------------------------------------------- notes and spreads
def test_fewer_than_three_values_have_no_spread():
    assert run_tables.spread([None]) == run_tables.spread([]) == "–"
    assert run_tables.spread([0.5, None]) == "50.00"
    assert run_tables.spread([0.9027, 0.9027]) == "90.27, 90.27"
    assert run_tables.spread([0.1, 0.2, 0.3]) == "20.00 ± 10.00"


def test_a_figure_links_to_the_notes_on_its_config(tmp_path: pathlib.Path):
    for name in ("model1", "model3", "speedrun90"):
        shutil.copytree(ROOT / "results" / name, tmp_path / name)
        (tmp_path / name / "notes.md").unlink()
    pages = (run_tables.short_table, run_tables.table, run_tables.speed_table, run_tables.notes)
    assert not any("notes" in make(tmp_path) for make in pages)
    for name in ("model1", "speedrun90"):
        (tmp_path / name / "notes.md").write_text(f"{name} read [twice](../../docs/log.md).\n")
    rows = run_tables.short_table(tmp_path).splitlines()[2:]
    for row, page in zip(rows, ("#notes-on-model1)", None, "#notes-on-speedrun90)"), strict=True):
        assert f"docs/results.md{page}" in row if page else "notes" not in row
    assert "(#notes-on-model1)" in run_tables.table(tmp_path)
    assert "(#notes-on-speedrun90)" in run_tables.speed_table(tmp_path)
    shown = run_tables.notes(tmp_path)
    assert "### Notes on model1\n\n- model1 read [twice](log.md)." in shown
    assert "### Notes on speedrun90\n\n- speedrun90 read" in shown
    reports = results.classification_reports(tmp_path)
    assert "model1 read [twice](../docs/log.md)." in reports


def test_times_are_those_of_a_machine(tmp_path: pathlib.Path):
    shutil.copytree(ROOT / "results" / "model1", tmp_path / "model1")
    seconds = {0: 60.0, 1: 600.0, 2: 120.0}
    for seed, time in seconds.items():
        edit(tmp_path / f"model1/seed-{seed}/result.json", train_seconds=time)
    row = run_tables.short_table(tmp_path).splitlines()[2]
    assert row.endswith("| 1.5 min on 2-core AMD EPYC, 10.0 min on 2-core Intel Xeon |")
    rows = run_tables.runs_table(tmp_path).splitlines()[2:]
    assert " | 10.0 | 4.0 | 2-core Intel Xeon | 2026-11-25 | 1314d8c | – |" in rows[1]


def git(*command: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *command], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def test_each_earlier_reading_of_the_test_set_stands_beside_the_figure():
    """Every test accuracy that git's history of results/ has, of a run that was replaced."""
    if git("rev-parse", "--is-shallow-repository").strip() != "false":
        pytest.skip("no checkout with its history")
    shown = run_tables.notes(ROOT / "results")
    pattern = ":(glob)results/*/seed-*/result.json"
    history = git("log", "--format=", "--raw", "--no-abbrev", "--no-renames", "--", pattern)
    replaced = set()
    for line in history.splitlines():
        _, _, _, blob, change, path = line.split()
        if change == "D":
            continue
        earlier = json.loads(git("cat-file", "blob", blob))["test_accuracy"]
        current = ROOT / path
        if not current.exists() or json.loads(current.read_text())["test_accuracy"] != earlier:
            replaced.add((current.parts[-3], f"{100 * earlier:.2f}"))
    assert replaced >= {("model1", "70.66"), ("model3", "79.34"), ("final_long", "89.19")}
    # And that of which docs/log.md alone tells.
    for name, accuracy in {*replaced, ("speedrun90", "91.21")}:
        notes = published.notes(ROOT / "results" / name, "")
        assert accuracy in " ".join(notes), f"results/{name}/notes.md must tell of {accuracy} %"
        assert all(f"- {note}" in shown for note in notes)


# ---------------------------------------------------------------------------- new evidence
OF_TINY = "main.py --config=configs/tiny.py"


@pytest.fixture
def workdir(workdir: pathlib.Path) -> pathlib.Path:
    """A finished run, of a command that a user could have typed on a clean commit."""
    environment = json.loads((workdir / "environment.json").read_text())
    free = "--config.seed=0 --config.data.dir=here --config.data.cache_dir=there"
    start = {**environment["starts"][0], "command": f"{OF_TINY} {free}"}
    start |= {"git_commit": "0" * 40, "git_dirty": False}
    edit(workdir / "environment.json", starts=[start])
    return pathlib.Path(workdir)


@pytest.mark.slow
def test_a_run_is_added_with_what_lets_anyone_recompute_its_figures(
    workdir: pathlib.Path, tmp_path: pathlib.Path
):
    home = published.add(workdir, tmp_path / "results")
    assert home == tmp_path / "results" / "tiny" / "seed-0"
    assert {path.name for path in home.iterdir()} == set(published.REQUIRED)
    shown = run_tables.runs_table(tmp_path / "results")
    accuracy = json.loads((workdir / "result.json").read_text())["test_accuracy"]
    assert f"| {100 * accuracy:.2f} |" in shown and shown.endswith("| kept |")
    assert report_page.run(epath.Path(home)).exists()  # a page can be made of it
    with pytest.raises(UserError, match="evidence already"):
        published.add(workdir, tmp_path / "results")


@pytest.mark.slow
def test_published_evidence_names_no_place_of_a_machine(
    workdir: pathlib.Path, tmp_path: pathlib.Path
):
    change_start(workdir, command=f"{OF_TINY} --workdir={workdir}")
    package = "a_model/weights.pth"
    (workdir / "init.json").write_text(
        json.dumps({"file": f"/opt/x/lib/python3.11/site-packages/{package}", "sha256": "0" * 64})
    )
    home = published.add(workdir, tmp_path / "results")
    environment = json.loads((home / "environment.json").read_text())
    assert environment["starts"][0]["command"] == f"{OF_TINY} --workdir=runs/{workdir.name}"
    assert json.loads((home / "init.json").read_text())["file"] == package
    for path in [*ROOT.glob("results/**/*.json"), *ROOT.glob("results/**/*.py")]:
        assert not re.search("(site-packages|=/)", path.read_text()), path


def test_a_run_of_a_study_is_apart_from_the_configs(workdir: pathlib.Path, tmp_path: pathlib.Path):
    for name in ("final", "model1"):
        shutil.copytree(ROOT / "results" / name, tmp_path / name)
    before = run_tables.table(tmp_path), results.classification_reports(tmp_path)
    for study, argument in {"resolution": "final,96", "fewer_images": "final,1221"}.items():
        change_start(workdir, command=f"main.py --config=configs/{study}.py:{argument}")
        home = published.add(workdir, tmp_path)
        assert home == tmp_path / study / argument / "seed-0"
        link = f"[`{study}:{argument}`, 0](../results/{study}/{argument}/seed-0)"
        assert link in run_tables.runs_table(tmp_path)
    assert before == (run_tables.table(tmp_path), results.classification_reports(tmp_path))
    accuracy = json.loads((workdir / "result.json").read_text())["test_accuracy"]
    titles, _, row = studies.images_table(tmp_path).splitlines()
    assert titles.endswith("| 1,221 | 42,500 |")  # the config's own runs are the last point
    assert row.startswith("| [`final`](../configs/final.py) ")
    assert row.endswith(f"| {100 * accuracy:.2f} | 86.80, 86.91 |")
    of_study, own = studies.resolution_table(tmp_path).splitlines()[2:]
    assert f"| {100 * accuracy:.2f} |" in of_study and "| 86.80, 86.91 |" in own


def test_the_table_says_whose_logits_are_kept(workdir: pathlib.Path, tmp_path: pathlib.Path):
    shutil.copytree(ROOT / "results" / "model3", tmp_path / "model3")
    published.add(workdir, tmp_path)
    model3, tiny = run_tables.runs_table(tmp_path).splitlines()[2:]
    assert "`model3`" in model3 and model3.endswith("| – |")
    assert "`tiny`" in tiny and tiny.endswith("| kept |")


def test_figures_that_the_predictions_do_not_give_are_refused(
    workdir: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    home = published.add(workdir, tmp_path / "results")
    result = json.loads((home / "result.json").read_text())
    confusion = np.roll(result["confusion_matrix"], 1, axis=0).tolist()
    report = result["classification_report"]
    shown = {"temperature": "scaled_calibration_error"}
    for key, value in {
        "test_accuracy": result["test_accuracy"] + 1 / 360,
        "test_loss": 1.001 * result["test_loss"],
        "test_examples": 361,
        "expected_calibration_error": result["expected_calibration_error"] + 1e-3,
        "temperature": 1.1 * result["temperature"],
        "scaled_calibration_error": result["scaled_calibration_error"] + 1e-3,
        "confusion_matrix": confusion,
        "classification_report": {**report, "9": {**report["9"], "recall": 0.123}},
    }.items():
        edit(home / "result.json", **{**result, key: value})
        with pytest.raises(UserError, match=f"disagree in {shown.get(key, key)}"):
            run_tables.table(tmp_path / "results")
    with np.load(home / "predictions.npz") as file:
        logits, labels = file["logits"], file["labels"]
    logits[0] = -logits[0]
    np.savez_compressed(home / "predictions.npz", logits=logits, labels=labels)
    edit(home / "result.json", **result)
    # The command says so in a line, and writes nothing.
    monkeypatch.setattr(results, "ROOT", tmp_path)
    pages = [tmp_path / page for page in results.PAGES]
    for page in pages:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("before")
    assert results.main([]) == 2 and all(page.read_text() == "before" for page in pages)


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda path: (path / "result.json").unlink(), "not finished"),
        (lambda path: (path / "predictions.npz").unlink(), "predictions.npz is missing"),
        (lambda path: change_start(path, git_dirty=True), "a clean commit"),
        (lambda path: change_start(path, git_dirty=None), "a clean commit"),
        (lambda path: change_start(path, git_commit=None), "a clean commit"),
        (lambda path: change_start(path, command="main.py"), "names no --config"),
        (lambda path: change_start(path, command=f"{OF_TINY} --config.epochs=3"), "config.epochs"),
        (lambda path: change_start(path, command=f"{OF_TINY} --noconfig.probe"), "config.probe"),
        (lambda path: edit(path / "result.json", test_accuracy=0.5), "disagree"),
    ],
)
def test_evidence_that_nobody_could_check_is_refused(
    workdir: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[..., Any],
    word: str,
):
    spoil(workdir)
    monkeypatch.setattr(results, "ROOT", tmp_path)
    assert results.main([f"--add={workdir}"]) == 2
    error = capsys.readouterr().err
    assert word in error and len(error.splitlines()) == 1
    assert not list(tmp_path.glob("results/*/seed-*"))


@pytest.mark.slow
def test_a_search_is_shown_beside_networks_that_are_trained_like_its_trials(
    searched: pathlib.Path, workdir: pathlib.Path, tmp_path: pathlib.Path
):
    home, evidence = shutil.copytree(searched, tmp_path / "run"), tmp_path / "results"
    (worker,) = json.loads((home / search.WORKERS).read_text())
    worker |= {"command": "main.py --mode=search --config=configs/search.py", "git_dirty": True}
    for clean, word in ((False, "a clean commit"), (True, "")):
        workers = [worker | {"git_dirty": not clean, "git_commit": "f" * 40}]
        (home / search.WORKERS).write_text(json.dumps(workers))
        if word:
            with pytest.raises(UserError, match=word):
                published.add_search(home, evidence)
    added = published.add_search(home, evidence)
    assert added == evidence / "search" / published.FOUND
    assert {path.name for path in added.iterdir()} == {*published.SEARCHED, search.FRONT}
    with pytest.raises(UserError, match="evidence already"):
        published.add_search(home, evidence)
    change_start(workdir, command="main.py --config=configs/search.py:final")
    published.add(workdir, evidence)
    accuracy = json.loads((workdir / "result.json").read_text())["validation_accuracy"]
    _, _, final, *found = searches.table(evidence, "search", "final").splitlines()
    assert (
        final.startswith("| [`final`](../configs/final.py) ") and f"{100 * accuracy:.2f}" in final
    )
    best = max(searches.trials(added / search.TABLE), key=lambda one: one.accuracy)
    assert f"| the best: {best.title} | {100 * best.accuracy:.2f} |" in found[0]


@pytest.mark.parametrize("worker", [b"", b"{}", b"[{}]", b"[1]", b"\xff"])
def test_damaged_notes_of_workers_are_one_line(worker: bytes, tmp_path: pathlib.Path):
    (tmp_path / search.WORKERS).write_bytes(worker)
    with pytest.raises(UserError, match=rf"{search.WORKERS} is damaged .*writes it again"):
        published.add_search(tmp_path, tmp_path / "results")


@pytest.mark.parametrize(
    "row",
    [
        "0,complete,0.5,1",
        "0,complete,0.5,,",
        "0,complete,1.5e9,1,1",
        "0,complete,1.5,1,1",
        f"0,complete,0.5,{'9' * 5000},1",
        "\xff,complete,0.5,1,1",
    ],
)
def test_a_damaged_table_of_trials_is_one_line(row: str, tmp_path: pathlib.Path):
    path = tmp_path / search.TABLE
    titles = "trial,state,accuracy,multiply_adds,parameters"
    path.write_bytes(f"{titles}\n1,complete,0.5,2,3\n2,infeasible,,,\n".encode())
    assert searches.trials(path) == [searches.Network("trial 1", 0.5, 2, 3)]
    path.write_text(f"{titles}\n1,complete,5e-05,2,3\n")
    assert searches.trials(path) == [searches.Network("trial 1", 5e-05, 2, 3)]
    path.write_bytes(f"{titles}\n{row}\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"trials.csv is damaged .*write it again"):
        searches.trials(path)


def change_start(workdir: pathlib.Path, **changes: Any) -> None:
    starts = json.loads((workdir / "environment.json").read_text())["starts"]
    edit(workdir / "environment.json", starts=[starts[0] | changes])
