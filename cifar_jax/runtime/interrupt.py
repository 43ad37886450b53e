"""Handles signals that stop a run: the loop checks for them between two steps."""

import os
import signal
import types

from cifar_jax.runtime import distributed


class Interrupted(Exception):
    """The run was asked to stop. It has saved its state and can be resumed."""


class StopRequest:
    """Sets `requested` on the first SIGTERM or SIGINT. Use as a context manager.

    The first signal restores the previous handlers, so a second one ends the process at once. In a
    run with several processes, any of them may get the signal: jax itself handles SIGTERM, and
    tells all processes at which poll to stop.
    """

    def __init__(self) -> None:
        self.requested = False
        self._polls = 0
        self._several = distributed.several()

    def __enter__(self) -> "StopRequest":
        numbers = (signal.SIGINT,) if self._several else (signal.SIGTERM, signal.SIGINT)
        self._previous = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def poll(self) -> None:
        """Updates `requested`. Every process must call this once before each dispatch."""
        self._polls += 1
        if self._several and distributed.stop_agreed(self._polls):
            self.requested = True

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        del number, frame
        self.__exit__()
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.requested = True
