"""The command line: reads the arguments, runs the subcommand, and says what went wrong."""

import gc
import logging
import os
import sys
import traceback
from collections.abc import Sequence

import tyro

from flax_mnist import __version__
from flax_mnist.cli.doctor import Doctor
from flax_mnist.cli.evaluate import Evaluate
from flax_mnist.cli.export import Export
from flax_mnist.cli.flags import LOOK, PATHS
from flax_mnist.cli.import_ import Import
from flax_mnist.cli.inspect import Inspect
from flax_mnist.cli.plot import Plot
from flax_mnist.cli.predict import Predict
from flax_mnist.cli.report import Report
from flax_mnist.cli.runs import Runs
from flax_mnist.cli.sweep import Sweep
from flax_mnist.cli.train import Train
from flax_mnist.errors import FlaxMnistError
from flax_mnist.show import terminal

#: All subcommands.
Command = (
    Train | Sweep | Evaluate | Predict | Plot | Runs | Report | Export | Import | Inspect | Doctor
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line (by default that of the process) and returns its exit code."""
    if argv is not None:
        return _run(argv)
    terminal.prepare_streams()
    _clear_environment()
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
            command.run(argv) if isinstance(command, Train) else command.run()
        sys.stdout.flush()
    except SystemExit as stop:  # tyro has given help, or has said what is wrong with a flag
        return int(stop.code or 0)
    except Exception as error:
        if "--debug" in argv:
            traceback.print_exc()
        return _explain(error)
    return 1 if terminal.lost_something() else 0


def parse(argv: Sequence[str]) -> Command:
    """The subcommand with its flags, which nothing but the command line decides.

    Raises:
        SystemExit: code 0 where help was asked for and given, 2 where a flag is wrong.
        RequestError: a value is out of its range.
    """
    what = "The PyTorch MNIST tutorial in JAX. --version prints the version."
    command: Command = tyro.cli(
        Command, prog="flax-mnist", description=what, args=argv, config=LOOK, registry=PATHS
    )
    return command


def _explain(error: Exception) -> int:
    """Says in a line or two what went wrong, and returns the exit code for it."""
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
    terminal.complain(f"flax-mnist: {reason}")
    return code


def _refused_variable() -> str | None:
    """Why JAX or Flax, which read their variables when they are imported, cannot be."""
    try:
        import flax  # noqa: F401
    except ValueError as error:
        given = sorted(name for name in os.environ if name.startswith(("JAX_", "FLAX_")))
        return f"{', '.join(given)}: a value in the environment is refused: {error}."
    return None
