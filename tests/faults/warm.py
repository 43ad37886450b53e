"""Runs `main.py` often without importing everything each time, by forking a warm process.

Each child runs main.py as `__main__` with its own arguments, environment and working directory, and
ends as Python ends: with main.py's exit status, or with a traceback. It is forked before JAX
chooses a device.
"""

import gc
import json
import os
import pathlib
import resource
import runpy
import signal
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent.parent
TIMEOUT = 600  # seconds after which a call is killed


class Warm:
    """The warm process, a context manager."""

    def __enter__(self) -> "Warm":
        from command_line import QUICK

        from cifar_jax.runtime import memory

        environment = {**os.environ, "XLA_FLAGS": QUICK, "PYTHONPATH": str(ROOT)}
        # With the tunables set, main.py need not restart itself and import everything again.
        environment["GLIBC_TUNABLES"] = memory.tunables("")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_) -> None:
        self._process.communicate()

    def run(
        self,
        *arguments: str,
        directory: pathlib.Path = ROOT,
        environment: dict[str, str] | None = None,
        largest_file: int | None = None,
        user: int | None = None,
        redirect: dict[int, str] | dict[str, str] | None = None,
    ) -> tuple[int, str]:
        """Runs `main.py *arguments` in `directory`; returns exit status and output.

        Args:
          environment: added to the environment of the tests.
          largest_file: largest size of a file in bytes; writes beyond it fail as on a full disk,
            but with EFBIG.
          user: id of the user that main.py runs as, for tests of what root may always do.
          redirect: number of a standard stream -> the file it is redirected to; "": closed.
        """
        call = {
            "arguments": arguments,
            "directory": str(directory),
            "environment": environment or {},
            "largest_file": largest_file,
            "user": user,
            "redirect": redirect or {},
        }
        assert self._process.stdin and self._process.stdout
        print(json.dumps(call), file=self._process.stdin, flush=True)
        status, output = json.loads(self._process.stdout.readline())
        return status, output


def _become_main(call: dict[str, Any], output: int) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    signal.alarm(TIMEOUT)
    os.chdir(call["directory"])
    os.environ |= call["environment"]
    if call["largest_file"] is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (call["largest_file"],) * 2)
    if call["user"] is not None:
        os.setgroups([])
        os.setgid(call["user"])
        os.setuid(call["user"])
    for number, path in call["redirect"].items():
        os.close(int(number))
        if path:
            os.dup2(os.open(path, os.O_RDWR), int(number))
    sys.argv = ["main.py", *call["arguments"]]
    runpy.run_path(str(ROOT / "main.py"), run_name="__main__")


def _serve() -> None:
    # Import what main.py and the modes import, including their late imports.
    import sklearn.datasets
    import sklearn.model_selection  # noqa: F401
    from absl import app  # noqa: F401
    from ml_collections import config_flags  # noqa: F401

    from cifar_jax.data import tfds_source  # noqa: F401
    from cifar_jax.report import page  # noqa: F401
    from cifar_jax.training import run, test  # noqa: F401

    gc.freeze()  # else each child collects, and so copies, all modules: 1 s, not 0.2
    for line in sys.stdin:
        reading, writing = os.pipe()  # a pipe, because `largest_file` would limit a file
        child = os.fork()
        if not child:
            _become_main(json.loads(line), writing)
            return
        os.close(writing)
        with open(reading) as output:
            text = output.read()
        _, status = os.waitpid(child, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), text]), flush=True)


if __name__ == "__main__":
    _serve()
