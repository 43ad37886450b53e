"""Signals that stop a run: noted here, answered by the loop between two steps."""

import os
import signal
import types

from cifar_jax.runtime import distributed


class Interrupted(Exception):
    """The run was asked to stop, saved its state and can be resumed."""


class StopRequest:
    """Turns the first SIGTERM or SIGINT into `requested`. Use as a context manager.

    The first signal puts the former handlers back: a second one ends the process at once. In a run
    of several processes the signal may come to any of them: jax takes SIGTERM itself, and tells
    all at which poll to stop.
    """

    def __init__(self) -> None:
        self.requested = False
        self._polls = 0
        self._several = distributed.several()

    def __enter__(self) -> "StopRequest":
        numbers = (signal.SIGINT,) if self._several else (signal.SIGTERM, signal.SIGINT)
        self._former = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def poll(self) -> None:
        """Brings `requested` up to date. Every process calls it once before each dispatch."""
        self._polls += 1
        if self._several and distributed.stop_agreed(self._polls):
            self.requested = True

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        del number, frame
        self.__exit__()
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.requested = True
