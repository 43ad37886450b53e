"""The libraries that are measured, each in its own environment."""

import dataclasses
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
WORKERS = ROOT / "benchmarks" / "workers"
ENVIRONMENTS = ROOT / ".cache" / "benchmarks"


@dataclasses.dataclass(frozen=True)
class Peer:
    title: str
    worker: str
    arguments: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()  # of its environment; () for the current one
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def environment(self) -> str:
        return "-".join(name.partition("=")[0] for name in self.requirements)

    def python(self) -> str:
        if not self.requirements:
            return sys.executable
        return str(ENVIRONMENTS / self.environment / "bin" / "python")


_TORCH = ("torch==2.13.0", "numpy==2.4.6")
_TENSORFLOW = ("tensorflow-cpu==2.21.0", "keras==3.15.1")
PEERS = {
    "ours": Peer("cifar-jax", "jax_worker.py", ("ours",)),
    "flax": Peer("plain Flax", "jax_worker.py", ("flax",)),
    "keras-jax": Peer("Keras on JAX", "keras_worker.py", (), (), (("KERAS_BACKEND", "jax"),)),
    "keras-tensorflow": Peer(
        "Keras on TensorFlow",
        "keras_worker.py",
        (),
        _TENSORFLOW,
        (("KERAS_BACKEND", "tensorflow"),),
    ),
    "torch": Peer("PyTorch", "torch_worker.py", ("eager",), _TORCH),
    "torch-compile": Peer("PyTorch, torch.compile", "torch_worker.py", ("compile",), _TORCH),
}


def install() -> dict[str, str]:
    """Makes missing environments; returns the peers that cannot be installed, and why."""
    missing: dict[str, str] = {}
    for name, peer in PEERS.items():
        home = ENVIRONMENTS / peer.environment
        if not peer.requirements or (home / ".installed").exists():
            continue
        print(f"installing {', '.join(peer.requirements)} into {home}", file=sys.stderr)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        commands = [
            [sys.executable, "-m", "venv", "--clear", str(home)],
            [*pip, *peer.requirements],
        ]
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["no message"]
                missing[name] = f"cannot install {', '.join(peer.requirements)}: {lines[-1]}"
                break
        else:
            (home / ".installed").touch()
    return missing
