"""Runs a network from this package, or one of its exports read from the job's file."""

import pathlib
import sys
from collections.abc import Callable

import numpy as np
from protocol import serve


def _ours(path: str) -> Callable[[np.ndarray], np.ndarray]:
    sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent))
    from cifar_jax.evaluation import trained

    return trained.load(path).logits


def _stablehlo(path: str) -> Callable[[np.ndarray], np.ndarray]:
    import jax

    network = jax.export.deserialize(bytearray(pathlib.Path(path).read_bytes()))
    call = jax.jit(network.call)
    return lambda images: np.asarray(call(images))


def _onnx(path: str) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def build(job: dict) -> dict:
    network = {"ours": _ours, "stablehlo": _stablehlo, "onnx": _onnx}[sys.argv[1]](job["path"])
    images = np.random.default_rng(0).integers(0, 256, (job["batch_size"], 32, 32, 3), np.uint8)

    def calls(steps: int) -> None:
        for _ in range(steps):
            network(images)

    return {"serve": calls}


serve(build)
