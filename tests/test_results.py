"""The README's table is the one that its evidence gives."""

import json
import pathlib
import shutil

from benchmarks import chips, table
from cifar_jax import results

ROOT = pathlib.Path(__file__).parent.parent


def test_the_readme_shows_what_make_results_generates():
    readme = (ROOT / "README.md").read_text()
    assert results.updated(readme, ROOT / "results") == readme
    assert table.updated(readme, ROOT / "results" / "benchmarks") == readme
    scaling = (ROOT / "docs" / "scaling.md").read_text()
    assert chips.updated(scaling, ROOT / "results" / "benchmarks") == scaling
    reports = (ROOT / "results" / "README.md").read_text()
    assert results.classification_reports(ROOT / "results") == reports


def test_every_run_has_all_of_its_evidence():
    names = {"config.json", "environment.json", "metrics.jsonl", "result.json", "report.html"}
    runs = list((ROOT / "results").glob("*/seed-*"))
    assert runs and all({path.name for path in run.iterdir()} == names for run in runs)


def test_a_changed_result_changes_the_table(tmp_path):
    shutil.copytree(ROOT / "results", tmp_path / "results")
    path = next((tmp_path / "results/model1").glob("seed-*/result.json"))
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "test_accuracy": 0.123456}))
    before, after = results.table(ROOT / "results"), results.table(tmp_path / "results")
    assert before != after
    reports = (results.classification_reports(p / "results") for p in (ROOT, tmp_path))
    assert len(set(reports)) == 2
    speed = results.speed_table(tmp_path / "results")
    readme = (
        f"head\n{results.BEGIN}\nold\n{results.END}\nmiddle\n"
        f"{results.SPEED_BEGIN}\n{results.SPEED_END}\ntail\n"
    )
    assert results.updated(readme, tmp_path / "results") == (
        f"head\n{results.BEGIN}\n{after}\n{results.END}\nmiddle\n"
        f"{results.SPEED_BEGIN}\n{speed}\n{results.SPEED_END}\ntail\n"
    )
