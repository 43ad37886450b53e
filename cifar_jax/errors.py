"""The one exception that a user is meant to read."""


class UserError(Exception):
    """A mistake the user can mend.

    The message is one line that says what is wrong and what to do about it. `main.py` prints
    it on standard error without a traceback and leaves with exit status 2.
    """


def missing(error: ModuleNotFoundError, what: str, requirements: str) -> UserError:
    """The error that `what` needs a package which `requirements` has.

    Raises:
      ModuleNotFoundError: the module is one of ours: a fault that no installation mends.
    """
    if (error.name or "").partition(".")[0] in ("cifar_jax", "configs"):
        raise error
    return UserError(f"{what} needs {error.name}: pip install -r {requirements}")


# Exit statuses of main.py.
BAD_INPUT = 2  # after one line that says what to mend
SOME_FAILED = 65  # sysexits.h's EX_DATAERR: images that could not be read; the rest are predicted
CUT_OFF = 74  # sysexits.h's EX_IOERR: standard output took not all that was written
TRY_AGAIN = 75  # sysexits.h's EX_TEMPFAIL: all is saved, run again to go on
INTERRUPTED = 130  # as shells have it for SIGINT: at once, by a second Ctrl-C where training saves
