"""Our train step and forward pass beside the peers': `make bench`.

python -m benchmarks.run [--networks=final,...] [--peers=torch,...] [--rounds=5] [--seconds=1]

Writes results/benchmarks/step.json; `make results` makes the README's table of it.
"""

import sys

from absl import app, flags

from benchmarks import machine, networks, peers, session

_NETWORKS = flags.DEFINE_list("networks", list(networks.NETWORKS), "which networks")
_PEERS = flags.DEFINE_list("peers", list(peers.PEERS), "which libraries; ours is always there")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "measurements of each", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 1.0, "length of a measurement", lower_bound=0.01)
_OUTPUT = flags.DEFINE_string("output", str(machine.RESULTS / "step.json"), "where to write")


def main(arguments: list[str]) -> None:
    del arguments
    missing = peers.install()
    chosen = {name: peer for name, peer in peers.PEERS.items() if name in _PEERS.value}
    chosen = {"ours": peers.PEERS["ours"], **chosen}
    report = {"machine": machine.describe(), "command": " ".join(sys.argv), "networks": {}}
    report["matmul_gflops"] = machine.matmul_gflops()
    for network in _NETWORKS.value:
        print(network, file=sys.stderr)
        job = networks.job(network)
        jobs = {
            f"{name}{', tuned' if tuned else ''}": (peer, job, tuned)
            for name, peer in chosen.items()
            if name not in missing
            for tuned in (False, True)
        }
        figures, failures = session.alternate(
            jobs, ("train", "infer"), _ROUNDS.value, _SECONDS.value
        )
        report["networks"][network] = {
            "batch_size": job["batch_size"],
            "train_flops_per_image": networks.train_flops(network),
            "figures": figures,
            "missing": {**missing, **failures},
        }
        for name, row in figures.items():
            line = []
            for what in ("train", "infer"):
                middle, low, high = session.ratio(figures["ours, tuned"][what], row[what])
                rate = sorted(row[what])[len(row[what]) // 2]
                line.append(
                    f"{what} {rate:6.0f} images/s, ours x{middle:.2f} [{low:.2f} {high:.2f}]"
                )
            print(f"  {name:26} {'; '.join(line)}; {row['peak_bytes'] / 2**30:.2f} GiB")
        for name, reason in report["networks"][network]["missing"].items():
            print(f"  {name:26} missing: {reason}")
        sys.stdout.flush()
    machine.write(_OUTPUT.value, report)


if __name__ == "__main__":
    app.run(main)
