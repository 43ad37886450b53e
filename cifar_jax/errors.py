"""The one exception that a user is meant to read."""


class UserError(Exception):
    """A mistake the user can mend.

    The message is one line that says what is wrong and what to do about it. `main.py` prints
    it on standard error without a traceback and leaves with exit status 2.
    """
