"""The command line: reads the arguments, runs the subcommand, and says what went wrong."""

import difflib
import gc
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Union, get_args

import tyro

from flax_mnist import __version__
from flax_mnist.cli import flags
from flax_mnist.cli.completion import Completion
from flax_mnist.cli.doctor import Doctor
from flax_mnist.cli.evaluate import Evaluate
from flax_mnist.cli.export import Export
from flax_mnist.cli.import_ import Import
from flax_mnist.cli.inspect import Inspect
from flax_mnist.cli.plot import Plot
from flax_mnist.cli.predict import Predict
from flax_mnist.cli.report import Report
from flax_mnist.cli.runs import Runs
from flax_mnist.cli.sweep import Sweep
from flax_mnist.cli.train import Train
from flax_mnist.errors import FlaxMnistError, RequestError
from flax_mnist.show import terminal

#: All subcommands.
Command = (
    Train | Sweep | Evaluate | Predict | Plot | Runs | Report | Export | Import | Inspect | Doctor
    | Completion
)  # fmt: skip
COMMANDS = {command.__name__.lower(): command for command in get_args(Command)}
WHAT = """The PyTorch MNIST tutorial in JAX.

Besides:
    flax-mnist COMMAND --help          its flags, with examples
    flax-mnist --version               the version
    source <(flax-mnist completion bash)   completion; also zsh and fish"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line (by default that of the process) and returns its exit code."""
    if argv is not None:
        return _run(argv)
    terminal.prepare_streams()
    _clear_environment()
    # A start makes much that stays; looking through it for garbage, again and again, delays it.
    gc.set_threshold(100_000)
    # It would tell of its caches.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    code = _run(sys.argv[1:])
    # An ending process would look for garbage among all that it imported, for half a second.
    gc.freeze()
    return code


def _clear_environment() -> None:
    """Unsets variables with which libraries would fail, or make folders where nobody wants them."""
    # A notebook sets it for its commands too. matplotlib cannot be imported where it names what is
    # not installed; it is about windows, and none is opened.
    os.environ.pop("MPLBACKEND", None)
    # Each of them would take it for a place in the current folder. Without it they ask the system.
    if not os.path.isabs(os.environ.get("HOME", os.sep)):
        del os.environ["HOME"]


def _run(argv: Sequence[str]) -> int:
    try:
        if list(argv) == ["--version"]:
            terminal.say(f"flax-mnist {__version__}")
        else:
            command = parse(argv)
            if isinstance(command, Train | Sweep):
                command.run(argv)
            elif isinstance(command, Completion):
                command.run(COMMANDS)
            else:
                command.run()
        sys.stdout.flush()
    except SystemExit as stop:  # tyro has given help, or has said what is wrong with a flag
        return int(stop.code or 0)
    except Exception as error:
        if "--debug" in argv:
            traceback.print_exc()
        return explain(error, "flax-mnist")
    return 1 if terminal.lost_something() else 0


def parse(argv: Sequence[str]) -> Command:
    """The subcommand with its flags, which nothing but the command line decides.

    Raises:
        SystemExit: code 0 where help was asked for and given, 2 where a flag is wrong.
        RequestError: a value is out of its range, or there is no such subcommand.
    """
    name, *words = argv or [""]
    command: Command
    if name in COMMANDS:
        cls = COMMANDS[name]
        command = flags.parse(cls, f"flax-mnist {name}", words, describe(cls))
        return command
    if name and not name.startswith("-"):
        meant = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"Did you mean {meant[0]}?" if meant else f"There are {', '.join(COMMANDS)}."
        raise RequestError(f"{name}: there is no such command. {hint}")
    every = [Annotated[cls, tyro.conf.subcommand(name, description=_first_line(cls))]
             for name, cls in COMMANDS.items()]  # fmt: skip
    command = flags.parse(Union[tuple(every)], "flax-mnist", argv, WHAT)  # noqa: UP007
    return command


def describe(command: type) -> str:
    """What a subcommand does, with examples: as reStructuredText has it, but for its marks."""
    return (inspect.getdoc(command) or "").replace("::\n\n", ":\n")


def _first_line(command: type) -> str:
    return describe(command).partition("\n\n")[0]


def explain(error: Exception, prog: str) -> int:
    """Says in a line or two what went wrong in a program, and returns the exit code for it.

    An error that is none of a user's is raised again.
    """
    code, reason = 1, str(error)
    if isinstance(error, BrokenPipeError):
        terminal.silence()
        return 1
    if isinstance(error, FlaxMnistError):
        code = error.exit_code
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        reason = f"{where}{error.strerror or error}"
    elif isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in reason:
        reason = "out of memory. Try smaller --hidden-sizes or a smaller --batch-size."
    elif isinstance(error, ValueError) and (refusal := _refused_variable()):
        code, reason = 2, refusal
    else:
        raise error
    terminal.complain(f"{prog}: {reason}")
    return code


def _refused_variable() -> str | None:
    """Why JAX or Flax, which read their variables when they are imported, cannot be."""
    try:
        import flax  # noqa: F401
    except ValueError as error:
        given = sorted(name for name in os.environ if name.startswith(("JAX_", "FLAX_")))
        return f"{', '.join(given)}: a value in the environment is refused: {error}."
    return None
