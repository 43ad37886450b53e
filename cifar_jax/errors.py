"""The one exception whose message is for users, and the exit statuses."""

from collections.abc import Sequence


class UserError(Exception):
    """A problem that the user can fix.

    The message is one line that says what is wrong and what to do about it. `main.py` prints it to
    standard error without a traceback and exits with status 2.
    """


def missing(error: ModuleNotFoundError, what: str, requirements: str) -> UserError:
    """Returns the error that `what` needs a package from the file `requirements`.

    Raises:
      ModuleNotFoundError: the missing module is part of this project: a bug that installing
        packages cannot fix.
    """
    if (error.name or "").partition(".")[0] in ("cifar_jax", "configs"):
        raise error
    return UserError(f"{what} needs {error.name}: pip install -r {requirements}")


MOST_KEYS = 8  # that an error names with their values


def first_of(texts: Sequence[str], most: int = 1, separator: str = ", ") -> str:
    """The first `most` texts and how many more there are: "a, b, and 7 more"."""
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return separator.join([*texts[:most], *more])


# Exit statuses of main.py.
BAD_INPUT = 2  # a UserError
SOME_FAILED = 65  # EX_DATAERR in sysexits.h: some images were unreadable, the others are predicted
CUT_OFF = 74  # EX_IOERR in sysexits.h: standard output could not be written completely
TRY_AGAIN = 75  # EX_TEMPFAIL in sysexits.h: everything is saved, run again to continue
INTERRUPTED = 130  # as in shells for SIGINT: stopped at once (training: on the second Ctrl-C)
