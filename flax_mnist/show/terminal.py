"""How the program speaks to a person: lines, warnings and a progress bar; plain text in a pipe."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, RenderableType

from flax_mnist.errors import FlaxMnistWarning, Verdict
from flax_mnist.show import text

if TYPE_CHECKING:
    from flax_mnist.store.metrics import Metrics

WIDE_ENOUGH_FOR_LOSS = 80  #: Columns.


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """`| head` has seen enough; a training goes on without a reader."""
        silence(sys.stderr if self.stderr else sys.stdout)


_Plain = functools.partial(_Console, highlight=False, markup=False, emoji=False, soft_wrap=True)
out, err = _Plain(), _Plain(stderr=True)

_lost = False


def say(what: RenderableType) -> None:
    """Prints to stdout. Where that fails, on a full disk for one, the work goes on without it."""
    global _lost
    try:
        out.print(what)
    except OSError as error:
        _lost = True
        complain(f"flax-mnist: stdout: {error.strerror}. Going on without it.")
        silence()


def lost_something() -> bool:
    """Whether something that was said could not be written."""
    return _lost


def complain(what: str, style: str | None = None) -> None:
    """Prints to stderr, if that can be written."""
    with contextlib.suppress(OSError):
        err.print(what, style=style)


def silence(stream: TextIO | None = None) -> None:
    """Sends all further output to nowhere: that of stdout, or of another stream."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), (stream or sys.stdout).fileno())


def prepare_streams() -> None:
    """Makes stdout and stderr such that no line of text makes them fail.

    One that the process was started without, `>&-` in a shell, goes to nowhere; what the encoding
    of another lacks is written as an escape.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def warnings_at_both_ends() -> Iterator[None]:
    """Shows the block's warnings as they come and, but verdicts, again when it has ended well."""
    shown: list[str] = []

    def show(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        if issubclass(category, FlaxMnistWarning):
            warning = f"WARNING: {message}"
            complain(warning, style="bold yellow")
            if not issubclass(category, Verdict):
                shown.append(warning)
        else:
            others(message, category, *args, **kwargs)

    with warnings.catch_warnings():
        warnings.simplefilter("always", FlaxMnistWarning)
        others, warnings.showwarning = warnings.showwarning, show
        yield
    for warning in shown:
        complain(warning, style="bold yellow")


@contextlib.contextmanager
def progress_bar(steps: int, done: int) -> Iterator[Callable[[int, Metrics | None], None]]:
    """A bar of so many steps, the first of them done; nothing where there is no terminal.

    The yielded function sets it to a step, and tells loss and images/s of an epoch that has ended.
    """
    from rich import progress  # only a training needs it

    bar = progress.Progress(
        "Steps",
        progress.BarColumn(20),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        *(["{task.fields[last]}"] if out.width >= WIDE_ENOUGH_FOR_LOSS else []),
        console=out,
        transient=True,
        disable=not sys.stdout.isatty(),
    )
    task = bar.add_task("", total=steps, completed=done, last="")

    def advance(step: int, metrics: Metrics | None) -> None:
        if metrics:
            rate = text.rate(metrics.images_per_second)
            bar.update(task, last=f"loss {text.loss(metrics.train_loss)}  {rate}")
        bar.update(task, completed=step)

    bar.start()
    try:
        yield advance
    finally:
        # Why the block ends is to be heard of, even where the terminal is gone.
        with contextlib.suppress(OSError):
            bar.stop()
