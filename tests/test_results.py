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
    readme = "".join(
        f"head\n<!-- {name}: begin, by `make results` -->\nold\n<!-- {name}: end -->\ntail\n"
        for name in results.TABLES
    )
    made = readme
    for make in results.TABLES.values():
        made = made.replace("\nold\n", f"\n{make(tmp_path / 'results')}\n", 1)
    assert results.updated(readme, tmp_path / "results") == made


def test_the_table_of_longer_training_has_the_best_so_far(tmp_path):
    for name, accuracies in {
        "final": [0.2] * 10 + [0.4, 0.3] * 15,
        "final_long": [0.5] * results.LONGER[-1],
    }.items():
        run = tmp_path / name / "seed-0"
        shutil.copytree(ROOT / "results" / "final" / "seed-0", run)
        row = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
        rows = [
            json.dumps({**row, "epoch": epoch, "validation_accuracy": accuracy})
            for epoch, accuracy in enumerate(accuracies, 1)
        ]
        (run / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    final, longer = results.longer_table(tmp_path).splitlines()[2:]
    assert "| 20.00 | 40.00 | 40.00 | 40.00 | – | – | – | – | – |" in final
    assert longer.count("| 50.00 ") == len(results.LONGER)


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
