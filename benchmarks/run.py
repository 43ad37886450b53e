"""Measures our train step and forward pass beside the peers': `make bench`.

python -m benchmarks.run [--networks=final,...] [--peers=torch,...] [--rounds=5] [--seconds=1]

Writes results/benchmarks/step.json; `make results` puts it in docs/speed.md. `make bench` measures
fine-tuning apart, into step_transfer.json, since some peers need minutes a round for it.
"""

import statistics
import sys

from absl import app, flags

from benchmarks import machine, networks, peers, session

_NETWORKS = flags.DEFINE_list("networks", list(networks.FROM_SCRATCH), "which networks")
_PEERS = flags.DEFINE_list("peers", list(peers.PEERS), "which libraries; ours is always measured")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "measurements of each", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 1.0, "length of a measurement", lower_bound=0.01)
_OUTPUT = flags.DEFINE_string("output", str(machine.RESULTS / "step.json"), "where to write")


def main(arguments: list[str]) -> None:
    del arguments
    report = {**machine.begin(_OUTPUT.value), "networks": {}}
    missing = peers.install()
    chosen = {name: peer for name, peer in peers.PEERS.items() if name in _PEERS.value}
    chosen = {"ours": peers.PEERS["ours"], **chosen}
    report["matmul_gflops"] = machine.matmul_gflops()
    for network in _NETWORKS.value:
        print(network, file=sys.stderr)
        job = networks.job(network)
        entry = {
            "batch_size": job["batch_size"],
            "train_flops_per_image": networks.train_flops(network),
            "figures": {},
            "missing": dict(missing),
        }
        # Ours always as main.py starts it. The peers as they come, then with our memory settings.
        for settings in session.SETTINGS:
            tuned = settings != "as they come"
            jobs = {
                name: (peer, job, tuned or name == "ours")
                for name, peer in chosen.items()
                if name not in missing
            }
            figures, failures = session.alternate(
                jobs, ("train", "infer"), _ROUNDS.value, _SECONDS.value
            )
            entry["figures"][settings] = figures
            entry["missing"] |= failures
            _show(settings, figures)
        for name, reason in entry["missing"].items():
            print(f"  {name} is missing: {reason}")
        report["networks"][network] = entry
        sys.stdout.flush()
    machine.write(_OUTPUT.value, report)


def _show(settings: str, figures: dict[str, session.Figures]) -> None:
    for name, row in figures.items():
        line = []
        for what in ("train", "infer"):
            middle, low, high = session.ratio(figures["ours"][what], row[what])
            rate = statistics.median(row[what])
            line.append(f"{what} {rate:6.0f} images/s, ours x{middle:.2f} [{low:.2f} {high:.2f}]")
        print(f"  {settings}: {name:17} {'; '.join(line)}; {row['peak_bytes'] / 2**30:.2f} GiB")


if __name__ == "__main__":
    app.run(main)
