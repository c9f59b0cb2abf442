"""What a person reads: lines, bars and warnings. Plain text in a pipe."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import os
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, RenderableType

from flax_mnist.errors import FlaxMnistWarning

if TYPE_CHECKING:
    import jax
    import numpy as np
    from numpy.typing import NDArray

    from flax_mnist.config import Config
    from flax_mnist.data import Dataset
    from flax_mnist.model import Params
    from flax_mnist.prediction import Prediction
    from flax_mnist.sweep import Epoch, Outcome, Plan
    from flax_mnist.train import Metrics


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """`| head` has seen enough; a training goes on without a reader."""
        silence(sys.stderr if self.stderr else sys.stdout)


_Plain = functools.partial(_Console, highlight=False, markup=False, emoji=False, soft_wrap=True)
_out, _err = _Plain(), _Plain(stderr=True)

BAR_WIDTH = 40
WIDE_ENOUGH_FOR_IMAGE, WIDE_ENOUGH_FOR_LOSS = 60, 80
"""Columns."""
SHADES = " .:-=+*#%@"


_lost = False


def say(what: RenderableType) -> None:
    """Prints to stdout. Where that fails, on a full disk for one, the work goes on without it."""
    global _lost
    try:
        _out.print(what)
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
        _err.print(what, style=style)


def silence(stream: TextIO | None = None) -> None:
    """Sends all further output to nowhere: that of stdout, or of another stream."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, (stream or sys.stdout).fileno())


def never_without_streams() -> None:
    """Opens to nowhere what the process was started without: `>&-` in a shell."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def leave(what: str) -> None:
    """Last words: gives the terminal its cursor back, and flushes."""
    sys.stderr = sys.__stderr__ or sys.stderr  # the main thread may be catching a library's words
    _out.show_cursor()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    complain(what)


def never_fail_to_encode() -> None:
    """Writes what the terminal's encoding lacks as an escape, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def warnings_at_both_ends() -> Iterator[None]:
    """Shows the block's warnings as they come and again when it has ended well."""
    shown: list[str] = []

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, FlaxMnistWarning):
            shown.append(f"WARNING: {message}")
            complain(shown[-1], style="bold yellow")
        else:
            others(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.simplefilter("always", FlaxMnistWarning)
        others, warnings.showwarning = warnings.showwarning, show
        yield
    for text in shown:
        complain(text, style="bold yellow")


@contextlib.contextmanager
def progress_bar(
    steps: int, done: int, is_shown: bool = True
) -> Iterator[Callable[[int, Metrics | None], None]]:
    """A bar; nothing where it is not to be shown or there is no terminal.

    The yielded function sets it to a step, and tells loss and images/s of an epoch that has ended.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns: list[str | ProgressColumn]
    columns = ["Steps", BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn()]
    if _out.width >= WIDE_ENOUGH_FOR_LOSS:
        columns.append(TextColumn("{task.fields[last]}"))
    is_off = not (is_shown and sys.stdout.isatty())
    with Progress(*columns, console=_out, transient=True, disable=is_off) as progress:
        task = progress.add_task("", total=steps, completed=done, last="")

        def advance(step: int, metrics: Metrics | None) -> None:
            if metrics:
                rate = f"{metrics.images_per_second:,.0f} images/s"
                progress.update(task, last=f"loss {metrics.train_loss:.4f}  {rate}")
            progress.update(task, completed=step)

        yield advance


def header(config: Config, dataset: Dataset, params: Params, device: jax.Device) -> str:
    """What is trained, on what, and where."""
    n_train, n_test = len(dataset.train.labels), len(dataset.test.labels)
    sizes = [28 * 28, *(len(layer["bias"]) for layer in params.values())]
    count = sum(array.size for layer in params.values() for array in layer.values())
    kind = "" if device.device_kind == device.platform else f" ({device.device_kind})"
    momentum = f", momentum {config.momentum:g}" if config.momentum else ""
    return (
        f"{dataset.name}: {n_train:,} training and {n_test:,} test images from {dataset.source}\n"
        f"{'-'.join(map(str, sizes))} MLP, {count:,} parameters, {config.init} initialisation, "
        f"{config.precision}, seed {config.seed}\n"
        f"SGD, learning rate {config.learning_rate:g}{momentum}, batches of {config.batch_size}, "
        f"on {device.platform}{kind}"
    )


def epoch_line(metrics: Metrics, epochs: int) -> str:
    """An epoch's metrics; the tutorial's `Training loss: ...` among them."""
    return (
        f"Epoch {metrics.epoch}/{epochs}  Training loss: {metrics.train_loss:.4f}  "
        f"test loss {metrics.test_loss:.4f}  test accuracy {metrics.test_accuracy:.2%}  "
        f"{metrics.seconds:.2f} s  {metrics.images_per_second:,.0f} images/s"
    )


def score(dataset: Dataset, loss: float, accuracy: float) -> str:
    """Test loss and accuracy."""
    n = len(dataset.test.labels)
    return (
        f"{dataset.name}: {n:,} test images from {dataset.source}\n"
        f"test loss {loss:.4f}  test accuracy {accuracy:.2%}"
    )


def prediction_chart(prediction: Prediction) -> str:
    """The likeliest class, and a bar for each; beside them the image, on a terminal with room."""
    blocks = (_out.encoding or "").lower().startswith("utf")
    truth = "" if prediction.label is None else f" (label: {prediction.label})"
    title = f"{prediction.title}: {prediction.likeliest}{truth}"
    if not _out.file.isatty():
        return "\n".join([title, *_bars(prediction, blocks, BAR_WIDTH)])
    image = _image(prediction.image, blocks) if _out.width >= WIDE_ENOUGH_FOR_IMAGE else []
    beside = len(image[0]) + 2 if image else 0
    # All that is in a bar's line but the bar.
    text = beside + max(map(len, prediction.names)) + len("    100.00%  ")
    bars = _bars(prediction, blocks, min(BAR_WIDTH, max(0, _out.width - text)))
    if image:
        above = (len(image) - len(bars)) // 2
        bars = [""] * above + bars + [""] * (len(image) - len(bars) - above)
        bars = [f"{row}  {bar}".rstrip() for row, bar in zip(image, bars, strict=True)]
    return "\n".join([title, *bars])


def _bars(prediction: Prediction, blocks: bool, longest: int) -> list[str]:
    bar = "█" if blocks else "#"
    width = max(map(len, prediction.names))
    return [
        f"  {name:>{width}}  {p:7.2%}  {bar * round(longest * p)}".rstrip()
        for name, p in zip(prediction.names, prediction.probabilities, strict=True)
    ]


def _image(image: NDArray[np.uint8], blocks: bool) -> list[str]:
    """28x28 pixels as 14 rows of 28 characters: half blocks, or shades where there are none."""
    pairs = image.astype(int).reshape(14, 2, 28)
    if blocks:
        # A third: lower, and the holes of digits close; higher, and dark clothes vanish.
        ink = 3 * pairs > image.max()
        codes, characters = 2 * ink[:, 0] + ink[:, 1], " ▄▀█"
    else:
        codes, characters = pairs.sum(axis=1) * len(SHADES) // 511, SHADES
    return ["".join(characters[code] for code in row) for row in codes]


def prediction_json(prediction: Prediction) -> str:
    """The same as one JSON object."""
    probabilities = zip(prediction.names, prediction.probabilities, strict=True)
    return json.dumps(
        {
            "image": prediction.title,
            "prediction": prediction.likeliest,
            "label": prediction.label,
            "probabilities": dict(probabilities),
        }
    )


# ---- sweep ----------------------------------------------------------------------------------


def sweep_header(plan: Plan, dataset: Dataset) -> str:
    """What is trained, on what, and where."""
    n_train, n_test = len(dataset.train.labels), len(dataset.test.labels)
    members = [config for group in plan.groups for config in group]
    config, device = members[0], plan.mesh.devices[0]
    rates = dict.fromkeys(f"{member.learning_rate:g}" for member in members)
    momenta = dict.fromkeys(f"{member.momentum:g}" for member in members)
    groups = f"in {len(plan.groups)} groups" if len(plan.groups) > 1 else "at once"
    return (
        f"{dataset.name}: {n_train:,} training and {n_test:,} test images from {dataset.source}\n"
        f"{'-'.join(map(str, (28 * 28, *config.hidden_sizes, 10)))} MLP, {config.init} "
        f"initialisation, {config.precision}, seeds {config.seed} to {members[-1].seed}\n"
        f"SGD, learning rates {', '.join(rates)}, momentum {', '.join(momenta)}, "
        f"batches of {config.batch_size}\n"
        f"{len(members)} members {groups} on {plan.mesh.size} x {device.device_kind}, "
        f"in about {plan.bytes / 1e6:,.0f} MB"
    )


def sweep_line(epoch: Epoch, plan: Plan) -> str:
    """An epoch of a group: the range of its members' test losses."""
    group = f"Group {epoch.group + 1}/{len(plan.groups)}  " if len(plan.groups) > 1 else ""
    metrics = [metrics for _, metrics in epoch.rows]
    losses = [m.test_loss for m in metrics if not math.isnan(m.test_loss)]
    diverged = len(metrics) - len(losses)
    return "  ".join(
        [
            f"{group}Epoch {metrics[0].epoch}/{plan.template.epochs}",
            *([f"test loss {min(losses):.4f} to {max(losses):.4f}"] if losses else []),
            *([f"{diverged} diverged"] if diverged else []),
            f"{metrics[0].seconds * len(metrics):.2f} s",
            f"{metrics[0].images_per_second:,.0f} images/s",
        ]
    )


SWEEP_HEADER = ("learning rate", "momentum", "test loss", "sd", "correct", "sd", "ensemble", "")
SWEEP_LEGEND = """
Means over the seeds, and their standard deviations. correct: of the test images. ensemble:
correct by the mean of the seeds' probabilities. The best has the lowest test loss; since it
is chosen by the test images, its own results on them flatter it a little."""


def sweep_table(outcomes: Sequence[Outcome], best: Outcome, labels: NDArray[np.int32]) -> str:
    """A line for each setting, with mean and spread over its seeds."""
    rows = [SWEEP_HEADER]
    for outcome in outcomes:
        losses, accuracies = outcome.test_losses, outcome.test_accuracies
        marks = ["best"] if outcome is best and losses else []
        if outcome.diverged:
            marks.append(f"{outcome.diverged} of {outcome.diverged + len(losses)} diverged")
        rows.append(
            (
                f"{outcome.learning_rate:g}",
                f"{outcome.momentum:g}",
                f"{statistics.fmean(losses):.4f}" if losses else "-",
                f"{statistics.stdev(losses):.4f}" if len(losses) > 1 else "-",
                f"{statistics.fmean(accuracies):.2%}" if losses else "-",
                f"{statistics.stdev(accuracies):.2%}" if len(losses) > 1 else "-",
                f"{outcome.ensemble_accuracy(labels):.2%}" if losses else "-",
                ", ".join(marks),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, ">>>>>>><", widths, strict=True)
        lines.append("  ".join(f"{cell:{side}{width}}" for cell, side, width in cells).rstrip())
    return "\n".join([*lines, SWEEP_LEGEND])
