"""How the commands of the benchmarks start, and what they say where they cannot go on.

As in `flax_mnist.cli`: a mistake is told in a line, without a traceback unless `--debug` asks for
it, and the exit codes are 0 done, 1 failed while running, 2 wrong request or something is not
installed, 129 hung up, 130 interrupted, 143 terminated.
"""

import contextlib
import importlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flax_mnist.errors import RequestError, StoppedError

OURS = ("benchmarks", "flax_mnist", "tests")


#: A dataclass of flags with a method `run`, or a function whose arguments are the flags: either
#: returns an exit code, or None, which is 0. As `module:name` it is imported when it is run, so
#: that what is missing for it can be told.
Command = str | Callable[..., Any]


def run(command: Command, prog: str, argv: Sequence[str] | None = None) -> int:
    """Runs a command with these words, by default the process's; its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        with stoppable():
            given = parse(command, prog, [word for word in argv if word != "--debug"])
            return int((given.run() if hasattr(given, "run") else given) or 0)
    except SystemExit as stop:  # tyro has given help, or has said what is wrong with a flag
        return int(stop.code or 0)
    except Exception as error:
        if "--debug" in argv:
            traceback.print_exc()
        return _explain(error, prog)


def load(command: Command) -> Any:
    """What a command's name stands for."""
    if not isinstance(command, str):
        return command
    module, name = command.split(":")
    return getattr(importlib.import_module(module), name)


def parse(command: Command, prog: str, argv: Sequence[str]) -> Any:
    """The dataclass as these words fill it in, or what the function returns of them.

    Raises:
        SystemExit: code 0 where help was asked for and given, 2 where a flag is wrong.
        RequestError: a value is out of its range.
        ModuleNotFoundError: the command needs a package that is not installed.
    """
    from flax_mnist.cli import flags  # it needs tyro

    target = load(command)
    return flags.parse(target, prog, argv, (target.__doc__ or "").partition("\n\n")[0])


def _explain(error: Exception, prog: str) -> int:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] not in OURS:
        # Not by the terminal of `flax_mnist.show`, which is what may be missing.
        print(f"{prog}: {error.name} is not installed: pip install {error.name}.", file=sys.stderr)
        return RequestError.exit_code
    from flax_mnist.cli.main import explain

    return explain(error, prog)


def require_at_least(least: int, flag: str, value: int) -> None:
    """Raises `RequestError` unless the value of a flag is so large."""
    if value < least:
        raise RequestError(f"--{flag} is {value}; it must be at least {least}.")


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within, the first SIGINT, SIGTERM or SIGHUP raises a `StoppedError`; the second one ends."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may listen
        return
    before: dict[int, Any] = {}

    def stop(signum: int, _frame: Any) -> None:
        from flax_mnist.runs import signals

        for number in before:
            signal.signal(number, signal.SIG_DFL)
        raise StoppedError(f"{signals.word(signum)}.", 128 + signum)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows lacks one
        # `nohup`, or a shell that starts a job in the background, wants it to be of no effect.
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
