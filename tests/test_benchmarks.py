"""The benchmark measures what it says, beside whom it can."""

import pytest

from benchmarks import chips, networks, peers, session, table
from cifar_jax import models
from cifar_jax.models import summary


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_a_network_described_for_peers_is_the_one_we_train(name):
    config = networks.scaled(name, 1.0)
    rows = summary.layers(models.build(config, (32, 32, 3), 10), (32, 32, 3))
    ours = [row.shape[-1] for row in rows if row.multiply_adds]
    layers = networks.job(name)["layers"]
    theirs = [layer.get("filters") or layer.get("units") for layer in layers]
    assert [width for width in theirs if width] == ours
    pools = sum(layer["kind"] == "max_pool" for layer in layers)
    assert pools == sum(row.kind == "MaxPool" for row in rows)
    assert networks.train_flops(name) > 5 * sum(row.multiply_adds for row in rows)


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


def test_without_evidence_there_is_no_table(tmp_path):
    assert table.section(tmp_path) == ""


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
