"""SIGTERM and Ctrl-C as a request that the loop answers at its next step."""

import signal


class Interrupted(Exception):
    """The run was asked to stop, saved its state and can be resumed."""


class StopRequest:
    """Turns the first SIGTERM or SIGINT into `requested`. Use as a context manager.

    The first signal puts the former handlers back: a second one ends the process at once.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "StopRequest":
        self._former = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number, frame) -> None:
        del number, frame
        self.requested = True
        self.__exit__()
