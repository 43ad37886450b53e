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
    further = {"robustness.json", "export"}
    runs = list((ROOT / "results").glob("*/seed-*"))
    assert runs and all({path.name for path in run.iterdir()} - further == names for run in runs)


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
    harder = results.harder_table(tmp_path / "results")
    readme = (
        f"head\n{results.BEGIN}\nold\n{results.END}\nmiddle\n"
        f"{results.SPEED_BEGIN}\n{results.SPEED_END}\nmiddle\n"
        f"{results.HARDER_BEGIN}\n{results.HARDER_END}\ntail\n"
    )
    assert results.updated(readme, tmp_path / "results") == (
        f"head\n{results.BEGIN}\n{after}\n{results.END}\nmiddle\n"
        f"{results.SPEED_BEGIN}\n{speed}\n{results.SPEED_END}\nmiddle\n"
        f"{results.HARDER_BEGIN}\n{harder}\n{results.HARDER_END}\ntail\n"
    )


def test_the_table_of_harder_images_has_what_was_measured(tmp_path):
    run = tmp_path / "final" / "seed-0"
    shutil.copytree(ROOT / "results" / "final" / "seed-0", run)
    assert len(results.harder_table(tmp_path).splitlines()) == 2  # only the title
    means = {str(severity): 0.9 - 0.1 * severity for severity in range(1, 6)}
    attacked = {"FGSM": {"2/255": 0.3, "8/255": 0.2}, "PGD": {"2/255": 0.1, "8/255": 0.0}}
    suites = {"corruptions": {"mean_accuracy": means}, "adversarial": {"accuracy": attacked}}
    (run / "robustness.json").write_text(json.dumps(suites))
    row = results.harder_table(tmp_path).splitlines()[2]
    clean = json.loads((run / "result.json").read_text())["test_accuracy"]
    figures = f"{100 * clean:.2f} | 60.00 | 80.00 | 40.00 | 30.00 | 20.00 | 10.00 | 0.00 | – |"
    assert row.endswith(f"seed 0 | {figures}")
    (run / "export").mkdir()
    (run / "export" / "model.int8.json").write_text(json.dumps({"test_accuracy": 0.8125}))
    assert results.harder_table(tmp_path).splitlines()[2].endswith(" 81.25 |")
