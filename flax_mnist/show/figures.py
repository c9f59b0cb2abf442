"""Loss and accuracy against the epoch, and what these pictures have in common with all others."""

import io
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from flax_mnist.errors import RequestError
from flax_mnist.files import write_atomically
from flax_mnist.store.metrics import Metrics

#: Okabe and Ito's, safe for the colour-blind, https://jfly.uni-koeln.de/color/, but for their
#: yellow, which white ground swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, VERMILION, GREY = *COLOURS[:2], "#BBBBBB"
MARKERS = "osD^vP*X<>p"  #: 11, beside 7 colours: no pair of them comes twice in 77 runs.

LONGEST_NAME = 40  #: Characters.
MOST_MARKERS = 10  #: On a curve.
MOST_MEMBERS = 30  #: Of a setting that are drawn; the others are in its mean alone.

LINE: dict[str, Any] = {"linewidth": 1.2, "markersize": 4, "clip_on": False}
TRAINING: dict[str, Any] = {"linestyle": "--", "markerfacecolor": "white"}
MEMBER: dict[str, Any] = {"linewidth": 0.7, "markersize": 3, "alpha": 0.45}
MEAN: dict[str, Any] = {"linewidth": 2, "markersize": 5}
BELOW: dict[str, Any] = {"loc": "outside lower center", "frameon": False}  #: Of a legend.


def open_axes(axes: Axes) -> None:
    """Axes with a faint grid, open above and to the right."""
    axes.grid(color="#E6E6E6")
    axes.spines[["top", "right"]].set_visible(False)


def percent(share: float, _: object) -> str:
    """How an axis writes a share: matplotlib's formatter of a value and its position."""
    return f"{100 * share:.6g}%"


def shortened(name: str) -> str:
    """The name; a long one without its middle."""
    name = name.encode(errors="replace").decode()  # that of a file need not be text
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[1 - half :]}"


def save(figure: Figure, path: Path) -> None:
    """Writes a figure in the format that the name's ending says, all of it or nothing.

    Raises:
        RequestError: matplotlib writes no such format.
    """
    file = io.BytesIO()
    with warnings.catch_warnings():
        # What matplotlib's font lacks, it draws as a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        try:
            figure.savefig(file, format=path.suffix.lstrip(".") or "png", dpi=150)
        except ValueError as error:
            raise RequestError(f"{path}: {error}.") from error
    write_atomically(path, file.getvalue())


def draw_curves(runs: Mapping[str, Sequence[Metrics]]) -> Figure:
    """Training and test loss, and test accuracy, against the epoch.

    `runs` are the epochs of each run, one or more, by the name that the legend gives it.
    """
    figure = Figure(figsize=(8, 3.4 + 0.2 * math.ceil(len(runs) / 2)), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    handles = [
        _draw_run(loss, accuracy, rows, look)
        for rows, look in zip(runs.values(), _looks(), strict=False)
    ]
    kinds = [Line2D([], [], color="black", marker="o", **LINE, **kind) for kind in (TRAINING, {})]
    loss.legend(
        kinds, ("training", "test"), loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False
    )
    last = max(row.epoch for rows in runs.values() for row in rows)
    pad = max(0.5, last / 30)
    for axes in (loss, accuracy):
        axes.set_xlim(1 - pad, last + pad)
        _finish_epochs(axes)
    loss.set(ylabel="loss, nats", ylim=(0, None))
    accuracy.set(ylabel="test accuracy", ylim=(None, min(accuracy.get_ylim()[1], 1)))
    accuracy.yaxis.set_major_formatter(percent)
    names = [shortened(name) for name in runs]
    legend = figure.legend(handles, names, ncols=min(len(runs), 2), **BELOW)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _draw_run(loss: Axes, accuracy: Axes, rows: Sequence[Metrics], look: dict[str, Any]) -> Line2D:
    """The lines of a run; the one that stands for it in the legend."""
    epochs = [row.epoch for row in rows]
    every = math.ceil(len(rows) / MOST_MARKERS)
    look = look | LINE | {"markevery": ((len(rows) - 1) % every, every)}  # the last one among them
    loss.plot(epochs, [row.train_loss for row in rows], **look, **TRAINING)
    loss.plot(epochs, [row.test_loss for row in rows], **look)
    (line,) = accuracy.plot(epochs, [row.test_accuracy for row in rows], **look)
    return line


def draw_sweep(settings: Mapping[str, Float[np.ndarray, "members epochs 2"]]) -> Figure:
    """Training and test loss against the epoch: thin of members, bold the mean of a setting.

    `settings` has by name the two losses of its members after each epoch. A member that diverged,
    from where they are NaN on, has the epochs before, and no part in the mean.
    """
    columns = min(len(settings), 3)
    lines = 1 + math.ceil(len(settings) / columns)
    figure = Figure(figsize=(9, 4 + 0.22 * lines), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    handles = []
    for (name, losses), look in zip(settings.items(), _looks(), strict=False):
        for axes, of_split in zip(panels, np.moveaxis(losses, -1, 0), strict=True):
            _draw_setting(axes, of_split, look)
        diverged = int(np.isnan(losses[:, -1, 1]).sum())
        label = name + (f" ({diverged} diverged)" if diverged else "")
        handles.append(Line2D([], [], **look, **MEAN, label=label))
    for axes, title in zip(panels, ("training", "test"), strict=True):
        axes.set_title(title, fontsize=10)
        axes.set_yscale("log")
        _finish_epochs(axes)
    panels[0].set_ylabel("loss, nats")
    panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    panels[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panels[0].yaxis.set_minor_formatter(NullFormatter())
    title = "learning rate: the mean over its seeds, and each of them"
    figure.legend(handles=handles, title=title, ncols=columns, **BELOW)
    return figure


def draw_histogram(settings: Mapping[str, Float[np.ndarray, " members"]]) -> Figure:
    """How many members of each setting have which test accuracy; NaN of those that diverged."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    found = {name: values[~np.isnan(values)] for name, values in settings.items()}
    bins = np.histogram_bin_edges(np.concatenate([*found.values()]), bins="auto").tolist()
    for (name, values), look in zip(found.items(), _looks(), strict=False):
        axes.hist(values, bins, histtype="stepfilled", color=look["color"], alpha=0.5, label=name)
    axes.set_xlabel("test accuracy")
    axes.xaxis.set_major_formatter(percent)
    axes.set_ylabel("members")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    open_axes(axes)
    figure.legend(title="learning rate", ncols=min(len(settings), 3), **BELOW)
    return figure


def _draw_setting(
    axes: Axes, losses: Float[np.ndarray, "members epochs"], look: dict[str, Any]
) -> None:
    epochs = np.arange(1, losses.shape[1] + 1)
    axes.plot(epochs, losses[:MOST_MEMBERS].T, ".-", color=look["color"], **MEMBER)
    healthy = losses[np.isfinite(losses).all(axis=1)]
    if len(healthy):
        axes.plot(epochs, healthy.mean(axis=0), **look, **MEAN)


def _looks() -> Iterator[dict[str, Any]]:
    """Colour and marker of one curve after the other."""
    for colour, marker in zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=True):
        yield {"color": colour, "marker": marker}


def _finish_epochs(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    open_axes(axes)
