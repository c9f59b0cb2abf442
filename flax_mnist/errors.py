"""The errors a user can cause or meet, each with the exit code the command line gives it.

Every message is one or two lines: it names the thing that is wrong and the remedy.
Anything else that leaves the package is a bug in it.
"""

import contextlib
import sys


class FlaxMnistError(Exception):
    """Something failed while running: a download, a disk, the numbers. Exit code 1."""

    exit_code = 1


class FlaxMnistWarning(UserWarning):
    """Something the user did not ask for was done instead."""


class Verdict(FlaxMnistWarning):
    """A word on what has come to its end: said then, and not a second time."""


class RequestError(FlaxMnistError):
    """The request itself is wrong: a bad value, an unknown device, a missing file. Exit code 2."""

    exit_code = 2


class ArgumentError(RequestError, ValueError):
    """An argument of a function of arrays is not what it must be. The message names it."""


class DataError(FlaxMnistError):
    """A file that was found does not hold what it must hold. Exit code 1."""


class StoppedError(FlaxMnistError):
    """A signal ended it in good order. Exit code 128 and the signal's number."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def last_words(what: str) -> None:
    """Says on stderr why the process ends now, and gives a terminal its cursor back."""
    with contextlib.suppress(OSError, AttributeError):  # a stream that is full, closed or None
        sys.stdout.flush()
    with contextlib.suppress(OSError, AttributeError):
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
        print(f"{show_cursor}flax-mnist: {what}", file=sys.stderr, flush=True)
