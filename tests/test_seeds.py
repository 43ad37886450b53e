"""Seeds trained side by side give the same runs as each seed alone."""

import json
import pathlib
import statistics
from typing import Any

import command_line
import numpy as np
import pytest
import tiny

from cifar_jax.errors import UserError
from cifar_jax.runtime.interrupt import Interrupted
from cifar_jax.training import seeds

pytestmark = pytest.mark.slow


def config_of(number: int):
    config = command_line.tiny_config()
    config.epochs, config.seed, config.seeds = 2, 3, number
    config.checkpoint.every_steps = 0
    config.data.standardize = True  # with statistics that differ between the splits
    config.augment.flip = config.augment.alternate_flips = True
    return config


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory):
    workdir = tmp_path_factory.mktemp("together")
    return workdir, tiny.train(config_of(2), workdir, report=True)


def test_each_seed_gives_the_run_of_that_seed_alone(
    together: tuple[pathlib.Path, dict[str, Any]], tmp_path: pathlib.Path
):
    workdir, summary = together
    assert summary["seeds"] == [3, 4]
    config = config_of(1)
    config.seed = 4
    alone = tiny.train(config, tmp_path)
    for row, wanted in zip(
        command_line.rows(workdir / "seed-4"), command_line.rows(tmp_path), strict=True
    ):
        for split, images in (("train", 38 * 32), ("validation", 216)):
            found, expected = (figures.pop(f"{split}_accuracy") for figures in (row, wanted))
            assert found == pytest.approx(expected, abs=2.5 / images)  # rounding turns few answers
        assert row == pytest.approx(wanted, rel=2e-3)
    found = json.loads((workdir / "seed-4" / "result.json").read_text())
    assert found["test_loss"] == pytest.approx(alone["test_loss"], rel=2e-3)
    assert found["best_epoch"] == alone["best_epoch"]
    # The other seed gives another run.
    other = json.loads((workdir / "seed-3" / "result.json").read_text())
    assert other["test_loss"] != pytest.approx(alone["test_loss"], rel=1e-2)
    # An ordinary workdir: it holds a finished run of that seed.
    assert tiny.train(config, workdir / "seed-4") == found


def test_the_summary_matches_the_results(together: tuple[pathlib.Path, dict[str, Any]]):
    workdir, summary = together
    results = [json.loads((workdir / f"seed-{n}" / "result.json").read_text()) for n in (3, 4)]
    values = [result["test_accuracy"] for result in results]
    figures = summary["test_accuracy"]
    assert figures["values"] == values and figures["mean"] == statistics.mean(values)
    assert figures["std"] == pytest.approx(np.std(values, ddof=1))
    assert json.loads((workdir / "seeds.json").read_text()) == summary
    assert (workdir / "seed-3/report.html").exists()


def test_two_seeds_are_shown_as_two_values_and_more_as_mean_and_spread():
    figures = {"mean": 0.8, "std": 0.1, "values": [0.7, 0.8, 0.9]}
    text = seeds.describe({"seeds": [3, 4, 5], "test_accuracy": figures})
    assert "standard deviation" in text and "test accuracy: 0.8000 +- 0.1000" in text
    figures["values"] = [0.7, 0.9]
    text = seeds.describe({"seeds": [3, 4], "test_accuracy": figures})
    assert "both values" in text and "test accuracy: 0.7000, 0.9000" in text and "+-" not in text


def test_finished_runs_say_so(
    together: tuple[pathlib.Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
):
    workdir, summary = together
    assert tiny.train(config_of(2), workdir) == summary
    assert "holds the finished run" in capsys.readouterr().out
    with pytest.raises(UserError, match="config.seeds: 2 -> 3"):
        tiny.train(config_of(3), workdir)


def test_evaluating_the_common_directory_points_to_the_seeds(
    together: tuple[pathlib.Path, dict[str, Any]],
):
    workdir, _ = together
    status, output = command_line.run("--mode=evaluate", f"--workdir={workdir}")
    assert status == 2 and f"{workdir}/seed-3" in output


def test_interrupted_seeds_resume_from_a_common_step(
    together: tuple[pathlib.Path, dict[str, Any]], tmp_path: pathlib.Path
):
    workdir, _ = together
    step = 51  # in the second epoch of 38 steps
    with tiny.stop_at(step), pytest.raises(Interrupted, match=f"saved step {step} in "):
        tiny.train(config_of(2), tmp_path)
    # As if killed between the saves of the two seeds.
    metrics = tmp_path / "seed-4" / "metrics.jsonl"
    metrics.write_text("")
    (tmp_path / "seed-4" / "checkpoints").rename(tmp_path / "away")
    tiny.train(config_of(2), tmp_path)
    for name in ("seed-3", "seed-4"):
        assert command_line.rows(tmp_path / name) == command_line.rows(workdir / name)
