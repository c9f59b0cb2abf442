"""The command line: reads the arguments, runs the subcommand, and says what went wrong."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import re
import sys
import traceback
from collections.abc import Sequence

import tyro

from flax_mnist import __version__
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

Command = (
    Train | Sweep | Evaluate | Predict | Plot | Runs | Report | Export | Import | Inspect | Doctor
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line (by default that of the process) and returns its exit code."""
    if argv is not None:
        return _run(argv)
    terminal.never_without_streams()
    terminal.never_fail_to_encode()
    # It would tell of its caches.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    code = _run(sys.argv[1:])
    # An ending process would look for garbage among all that it imported, for half a second.
    gc.freeze()
    return code


def _run(argv: Sequence[str]) -> int:
    try:
        command = parse(argv)
        if command is not None:
            command.run()
        sys.stdout.flush()
    except Exception as error:
        if "--debug" in argv:
            traceback.print_exc()
        return _explain(error)
    return 1 if terminal.lost_something() else 0


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
    else:
        raise error
    terminal.complain(f"flax-mnist: {reason}")
    return code


LOOK = (tyro.conf.OmitArgPrefixes,)


def parse(argv: Sequence[str]) -> Command | None:
    """The command; None if help was asked for and given."""
    if list(argv) == ["--version"]:
        terminal.say(f"flax-mnist {__version__}")
        return None
    panel = io.StringIO()
    try:
        with contextlib.redirect_stderr(panel):
            command: Command = tyro.cli(
                Command,
                prog="flax-mnist",
                description="The PyTorch MNIST tutorial in JAX. --version prints the version.",
                args=argv,
                config=LOOK,
            )
            if isinstance(command, Train) and command.has_own_defaults:
                command = tyro.cli(
                    Train,
                    prog="flax-mnist train",
                    default=command.own_defaults(),
                    args=argv[1:],
                    config=LOOK,
                )
    except SystemExit as stop:
        if stop.code:
            raise RequestError(_one_line(panel.getvalue())) from None
        return None
    return command


def _one_line(panel: str) -> str:
    """tyro's error panel without its frame: what is wrong, what may be meant, where to look."""
    text = re.sub(r"\x1b\[[\d;]*m", "", panel)
    # Where the terminal has no UTF-8 there is no box, and the title is a row with a rule below.
    boxed = text.startswith("╭")
    rows = [row.strip("│ ") for row in text.splitlines() if row[:1] not in ("╭", "╰")]
    parts = [" ".join(part.split()) for part in re.split(r"\n[─-]{9,}\n", "\n".join(rows))]
    parts = parts if boxed else parts[1:]
    said = [part if part.endswith(".") else f"{part}." for part in parts if part]
    return "\n".join([" ".join(said[:-1]), said[-1]]) if len(said) > 1 else " ".join(said)
