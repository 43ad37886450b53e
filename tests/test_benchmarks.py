"""The benchmark measures what it says, beside whom it can."""

import copy
import json
import pathlib
import shutil
import sys
from typing import Any

import pytest

from benchmarks import chips, machine, networks, peers, session, short_runs, table
from cifar_jax import models
from cifar_jax.errors import UserError
from cifar_jax.models import summary
from configs import quickstart


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_a_network_described_for_peers_is_the_one_we_train(name: str):
    config = networks.scaled(name, 1.0)
    model = models.build(config.model, (32, 32, 3), 10, resize=config.data.resize)
    rows = summary.layers(model, (32, 32, 3))
    ours = [row.shape[-1] for row in rows if row.multiply_adds]
    layers = [
        part for layer in networks.job(name)["layers"] for part in layer.get("layers", [layer])
    ]
    theirs = [layer.get("filters") or layer.get("units") for layer in layers]
    assert [width for width in theirs if width] == ours
    pools = sum(layer["kind"] == "max_pool" for layer in layers)
    assert pools == sum(row.kind == "MaxPool" for row in rows)
    forward = sum(row.multiply_adds for row in rows)
    assert forward < networks.train_flops(name) / 2 <= 3 * forward


@pytest.mark.slow
def test_workers_are_measured_in_turn_and_a_broken_one_is_named():
    job = {**networks.job("model1", batch_size=4, width=0.1)}
    broken = peers.Peer("broken", "no_such_worker.py")
    jobs = {
        "ours, tuned": (peers.PEERS["ours"], job, True),
        "flax": (peers.PEERS["flax"], job, False),
        "broken": (broken, job, False),
    }
    figures, failures = session.alternate(jobs, ("train", "infer"), rounds=2, seconds=0.01)
    assert set(figures) == {"ours, tuned", "flax"} and "no_such_worker.py" in failures["broken"]
    for figure in figures.values():
        assert len(figure["train"]) == len(figure["infer"]) == 2
        assert min(figure["train"] + figure["infer"]) > 0
        assert figure["peak_bytes"] > 50e6


def test_ratios_are_taken_round_by_round():
    assert session.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 1.0]) == (3.0, 2.0, 4.0)


@pytest.mark.slow
def test_two_checkouts_are_trained_in_turn_and_a_failure_is_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XLA_FLAGS", "")
    rows = short_runs.train(peers.ROOT, "quickstart", 256, tmp_path / "run")
    assert len(rows) == quickstart.get_config().epochs
    assert not (tmp_path / "run" / "result.json").exists()  # it was not tested
    assert short_runs.seconds(rows, 256) > 0
    rows = [{"images_per_second": speed} for speed in (1, 10, 20, 20)]
    assert short_runs.seconds(rows, 100) == pytest.approx((10 + 5 + 5) * 4 / 3)
    with pytest.raises(SystemExit, match="no_such_config does not train two epochs"):
        short_runs.train(peers.ROOT, "no_such_config", 256, tmp_path / "none")


def test_without_evidence_there_is_no_table(tmp_path: pathlib.Path):
    assert table.section(tmp_path) == ""


# ---------------------------------------------------------------------------- provenance
EVIDENCE = sorted(machine.RESULTS.glob("*.json"))
SCRIPTS = [
    path for path in (peers.ROOT / "benchmarks").glob("*.py") if "_OUTPUT = " in path.read_text()
]
BEGUN = {"processor": "a", "cpu_count": 2, "python": "3", "jax": "0", "time": "2026-11-27T01:02"}


@pytest.mark.parametrize("path", EVIDENCE, ids=lambda path: path.stem)
def test_each_figure_names_the_machine_and_commit_of_its_own_evidence(
    path: pathlib.Path, tmp_path: pathlib.Path
):
    for file in EVIDENCE:
        shutil.copy(file, tmp_path)
    report = json.loads(path.read_text())
    shown = "".join((peers.ROOT / page).read_text() for page in table.PAGES)
    assert machine.origin(report) in shown
    report["machine"] |= {"processor": "Z80", "git_commit": "f00" * 10, "git_dirty": False}
    (tmp_path / path.name).write_text(json.dumps(report))
    pages = {page: (peers.ROOT / page).read_text() for page in table.PAGES}
    made = "".join(update(pages[page], tmp_path) for page, update in table.PAGES.items())
    assert made.count("2-core Z80") == made.count("at commit f00f00f,") == 1


def test_a_tree_with_changes_and_the_load_are_told():
    report = {"command": "python -m x", "machine": BEGUN | {"git_commit": "1" * 40}}
    for dirty, told in ((True, True), (None, True), (False, False)):
        report["machine"]["git_dirty"] = dirty
        assert ("from a tree with changes" in machine.measured(report)) == told
    assert "load not recorded" in machine.measured(report)
    report["machine"]["load_average"] = 1.26
    assert "load at the start 1.3" in machine.measured(report)


@pytest.mark.parametrize("dirty", [True, None])
def test_evidence_is_not_written_from_a_tree_with_changes(
    dirty: bool | None, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    found = BEGUN | {"git_commit": "1" * 40, "git_dirty": dirty}
    monkeypatch.setattr(machine.environment, "collect", lambda: found)
    with pytest.raises(SystemExit, match="commit them"):
        machine.begin(str(machine.RESULTS / "step.json"))
    assert machine.begin(str(tmp_path / "step.json"))["machine"]["git_dirty"] is dirty
    found["git_dirty"] = False
    report = machine.begin(str(machine.RESULTS / "step.json"))
    assert report["machine"]["load_average"] >= 0 and report["command"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_benchmark_begins_with_where_it_runs(path: pathlib.Path):
    body = path.read_text().partition("\ndef main(")[2]
    begins = body.index("machine.begin(_OUTPUT.value)")
    for work in ("install()", "measure(", "_measure(", "subprocess", "_step(", "seconds_to(",
                 "_images_per_second(", "matmul_gflops()"):  # fmt: skip
        assert work not in body[:begins]
    assert (machine.RESULTS / f"{path.stem}.json").exists() or path.stem == "run"  # step.json


def test_a_command_names_no_place_of_this_machine(monkeypatch: pytest.MonkeyPatch):
    given = ["--other=/home/ann/before", "--rounds=3", "--output=/home/ann/x.json"]
    monkeypatch.setattr(sys, "argv", ["/home/ann/benchmarks/versions.py", *given])
    assert machine.command() == "python -m benchmarks.versions --other=../before --rounds=3"


# ---------------------------------------------------------------------------- damaged evidence
def leaves(value: Any, path: tuple[Any, ...] = ()):
    yield path
    for key, item in value.items() if isinstance(value, dict) else ():
        yield from leaves(item, (*path, key))


@pytest.mark.slow
@pytest.mark.parametrize("path", EVIDENCE, ids=lambda path: path.stem)
def test_evidence_of_another_form_is_named(path: pathlib.Path, tmp_path: pathlib.Path):
    """Up to 300 values in turn are null, and their keys missing: a line, or the same tables."""
    for file in EVIDENCE:
        shutil.copy(file, tmp_path)
    whole = json.loads(path.read_text())
    refused = 0
    places = list(leaves(whole))[1:]
    for place in places[:: len(places) // 300 + 1]:
        for drop in (False, True):
            value = copy.deepcopy(whole)
            inner = value
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = None
            if drop:
                del inner[place[-1]]
            (tmp_path / path.name).write_text(json.dumps(value))
            try:
                for update in table.PAGES.values():
                    update("", tmp_path)
            except UserError as error:
                refused += 1
                assert path.name in str(error) and "\n" not in str(error)
    assert refused > 10


# ---------------------------------------------------------------------------- roofline
def test_all_reduces_are_read_off_a_program():
    program = """
      %a = f32[3,4]{1,0} all-reduce(%x), replica_groups={}
      %b = (f32[2]{0}, s32[]) all-reduce-start(%y, %z), replica_groups={}
      %c = f32[9]{0} add(%a, %b)
    """
    assert list(chips.all_reduces(program)) == [48, 12]


def test_bounds_of_a_step_scale_with_the_chips():
    step = {"flops": 8e12, "bytes_accessed": 4e9, "all_reduces": 3, "all_reduce_bytes": 1e9}
    chip = {"flops": 1e12, "memory": 1e9, "links": 2e9}
    alone = {"compute": 8.0, "memory": 2.0, "exchange": 0.0, "latency": 0.0}
    assert chips.bounds(step, chip, 1) == alone
    four = chips.bounds(step, chip, 4)
    assert (four["compute"], four["memory"]) == (2.0, 0.5)
    assert four["exchange"] == 0.75  # each of 4 sends and receives 2 * 3 / 4 of the bytes
    assert four["latency"] == pytest.approx(3 * 2 * 2e-6)
