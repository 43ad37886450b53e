"""The worker's side of the benchmark: a process that makes steps when told to.

It runs in the environment of the library that it measures, so it imports the standard library only.
Standard input brings a job as one line of JSON, then one command a line. Each gets one line back.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(build: Callable[[dict], dict[str, Callable[..., Any]]]) -> None:
    """Builds the job's network, then times `n` steps of one kind at a time: "train", "infer".

    `build(job)` returns the kinds as functions that make n steps and return when they are done. A
    step of "serve" takes a batch from numpy and returns logits to numpy, one after the other.
    "peak_device_bytes", if it is among them, returns the peak of the device's memory.
    """
    # Output of libraries must not be mistaken for answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: dict) -> None:
        print(json.dumps(value), file=answers, flush=True)

    job = json.loads(sys.stdin.readline())
    began = time.perf_counter()
    run = build(job)
    peak_device_bytes = run.pop("peak_device_bytes", lambda: None)
    first = {}  # kind -> seconds
    for kind in job.get("kinds", run):
        start = time.perf_counter()
        run[kind](2)  # compiles
        first[kind] = time.perf_counter() - start
    answer({"build_seconds": time.perf_counter() - began, "first_seconds": first})
    for line in sys.stdin:
        command = json.loads(line)
        run[command["do"]](1)  # warm up: caches and clock belonged to others while it slept
        began = time.perf_counter()
        ends = []
        for steps in [1] * command["steps"] if command.get("each") else [command["steps"]]:
            run[command["do"]](steps)
            ends.append(time.perf_counter())
        each = [end - start for start, end in zip([began, *ends], ends, strict=False)]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        figures = {"seconds": sum(each), "each": each, "peak_bytes": peak}
        answer({**figures, "peak_device_bytes": peak_device_bytes()})
