"""A fake main.py; each start takes the next word of $FAKE_CLOUD/HOST.endings and ends that way.

A number is the exit status. "queue" and "vm" are preemptions, first visible in the queue or in the
VM list. "waits" runs until $FAKE_CLOUD/release exists, then finishes.
"""

import json
import os
import pathlib
import sys
import time

sys.path.insert(0, os.environ["FAKE_GCLOUD"])
import gcloud

host = pathlib.Path.home()
with open(gcloud.CLOUD / "starts", "a") as starts:
    starts.write(json.dumps([host.name, *sys.argv[1:]]) + "\n")
print(f"training on {host.name}", flush=True)

run = gcloud.CLOUD / "bucket" / "run"
run.mkdir(exist_ok=True)
(run / "config.json").touch()

endings = gcloud.CLOUD / f"{host.name}.endings"
ending, *rest = endings.read_text().split()
endings.write_text(" ".join(rest))
if ending == "waits":
    (host / "began").touch()
    while not (gcloud.CLOUD / "release").exists():
        time.sleep(0.02)
    ending = "0"
if ending in ("queue", "vm"):
    with gcloud.state() as cloud:
        cloud.update({"queue": ["SUSPENDED"]} if ending == "queue" else {"node": "PREEMPTED"})
    ending = "143"
if ending == "0":
    (run / "result.json").touch()
sys.exit(int(ending))
