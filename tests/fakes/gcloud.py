"""A fake gcloud, whose TPUs are directories; tests/test_tpu_script.py puts it on PATH.

$FAKE_CLOUD has state.json (injected faults and recorded calls), bucket/ (the objects), and host0/
and host1/ (home directories of the TPU's hosts, new with each TPU). Commands over ssh really run
there. Exit statuses are those of gcloud: 255 for a broken connection, else that of the first host
that failed, in the hosts' order.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

CLOUD = pathlib.Path(os.environ["FAKE_CLOUD"])
HOSTS = ("host0", "host1")


@contextlib.contextmanager
def state():
    """Locks and yields the state, and writes it back at the end."""
    with open(CLOUD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        content = json.loads((CLOUD / "state.json").read_text())
        try:
            yield content
        finally:
            (CLOUD / "state.part").write_text(json.dumps(content))
            (CLOUD / "state.part").replace(CLOUD / "state.json")  # the test reads it meanwhile


def fail(message: str, status: int = 1):
    print(f"ERROR: (gcloud) {message}", file=sys.stderr)
    sys.exit(status)


def create(cloud: dict) -> None:
    if cloud["queue"]:
        fail("ALREADY_EXISTS: Resource already exists")
    if cloud["refusals"]:
        cloud["refusals"] -= 1
        fail("RESOURCE_EXHAUSTED: Quota limit 'TPUV6EPreemptible' has been exceeded. Limit: 0")
    cloud["queue"] = list(cloud["lives"].pop(0) if cloud["lives"] else ["ACTIVE"])
    for host in HOSTS:
        (CLOUD / host).mkdir()


def delete(cloud: dict) -> None:
    if not cloud["queue"]:
        fail("NOT_FOUND: Resource was not found")
    cloud["queue"] = []
    for host in HOSTS:
        shutil.rmtree(CLOUD / host)


def describe(cloud: dict) -> None:
    """Prints the state of the request. Each call advances it by one state, up to the last."""
    if cloud["silent"]:
        cloud["silent"] -= 1
        fail("UNAVAILABLE: The service is currently unavailable")
    if cloud["queue"]:
        queue = cloud["queue"]
        status = queue.pop(0) if len(queue) > 1 else queue[0]
        print(f"{status}\t{'no capacity' if status == 'FAILED' else ''}")


def ssh(arguments: list[str]) -> int:
    pairs = (a[2:].partition("=") for a in arguments if a.startswith("--"))
    options = {name: value for name, _, value in pairs}
    with state() as cloud:
        if cloud["broken"]:
            cloud["broken"] -= 1
            return 255
        repeats = cloud["repeats"] and " run " in options["command"]
        cloud["repeats"] -= bool(repeats)
    hosts = HOSTS if options["worker"] == "all" else [HOSTS[int(options["worker"])]]
    if repeats:  # the connection breaks while main.py runs, and gcloud repeats the command
        processes = [start(host, options["command"], alone=True) for host in hosts]
        while not all((CLOUD / host / "began").exists() for host in hosts):
            time.sleep(0.02)
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        (CLOUD / "repeats").touch()
    processes = [start(host, options["command"]) for host in hosts]
    statuses = [process.wait() for process in processes]
    with state() as cloud:
        if cloud["queue"] != ["ACTIVE"] or cloud["node"] != "READY":
            return 255
    return next((status for status in statuses if status), 0)


def start(host: str, command: str, alone: bool = False) -> subprocess.Popen:
    environment = {**os.environ, "HOME": str(CLOUD / host)}
    return subprocess.Popen(
        ["bash", "-c", command], cwd=CLOUD / host, env=environment, start_new_session=alone
    )


def main(arguments: list[str]) -> int:
    with state() as cloud:
        cloud["calls"].append(["gcloud", *arguments])
        match arguments:
            case ["compute", "tpus", "queued-resources", "list", *_]:
                describe(cloud)
            case ["compute", "tpus", "queued-resources", "create", *_]:
                create(cloud)
                cloud["node"] = "READY"
            case ["compute", "tpus", "queued-resources", "delete", *_]:
                delete(cloud)
            case ["compute", "tpus", "tpu-vm", "list", *_]:
                print(cloud["node"])
            case ["storage", "objects", "list", url, *_]:
                if not (CLOUD / "bucket").is_dir():
                    fail("gs://bucket not found: 404.")
                name = url.removeprefix("gs://bucket/")
                if (CLOUD / "bucket" / name).exists():
                    print(name)
            case ["compute", "tpus", "tpu-vm", "scp", source, target, *_]:
                for host in HOSTS:
                    shutil.copy(source, CLOUD / host / target.partition(":")[2])
            case ["compute", "tpus", "tpu-vm", "ssh", *_]:
                pass
            case _:
                fail(f"Invalid choice: {arguments}", 2)
    return ssh(arguments) if arguments[3] == "ssh" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
