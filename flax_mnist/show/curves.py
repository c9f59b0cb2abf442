"""Pictures of trainings: of one, of several, of a sweep."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

if TYPE_CHECKING:
    from flax_mnist.store.metrics import Metrics
from matplotlib.ticker import LogLocator, NullFormatter

from flax_mnist.runs.sweeping import Rows
from flax_mnist.show.figures import COLOURS, MARKERS, percent, shortened
from flax_mnist.store.metrics import Metrics

LINE: dict[str, Any] = {"linewidth": 1.2, "markersize": 4, "clip_on": False}
TRAINING: dict[str, Any] = {"linestyle": "--", "markerfacecolor": "white"}


def draw_curves(runs: Mapping[str, Sequence[Metrics]]) -> Figure:
    """Training and test loss, and test accuracy, against the epoch.

    Args:
        runs: the epochs of each run, by the name that the legend gives it.
    """
    columns = min(len(runs), 2)
    figure = Figure(figsize=(8, 3.4 + 0.2 * math.ceil(len(runs) / 2)), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    handles = []
    looks = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=True)
    for rows, (colour, marker) in zip(runs.values(), looks, strict=False):
        epochs = [row.epoch for row in rows]
        every = math.ceil(len(rows) / 10)
        look: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "markevery": ((len(rows) - 1) % every, every),  # the last one among them
        }
        loss.plot(epochs, [row.train_loss for row in rows], **look, **LINE, **TRAINING)
        loss.plot(epochs, [row.test_loss for row in rows], **look, **LINE)
        handles += accuracy.plot(epochs, [row.test_accuracy for row in rows], **look, **LINE)
    loss.set_ylim(bottom=0)
    loss.set_ylabel("loss, nats")
    kinds = [Line2D([], [], color="black", marker="o", **LINE, **kind) for kind in (TRAINING, {})]
    loss.legend(
        kinds,
        ("training", "test"),
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        frameon=False,
    )
    last = max(row.epoch for rows in runs.values() for row in rows)
    pad = max(0.5, last / 30)
    for axes in (loss, accuracy):
        axes.set_xlabel("epoch")
        axes.set_xlim(1 - pad, last + pad)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(color="#E6E6E6")
        axes.spines[["top", "right"]].set_visible(False)
    accuracy.set_ylabel("test accuracy")
    accuracy.set_ylim(top=min(accuracy.get_ylim()[1], 1))
    accuracy.yaxis.set_major_formatter(percent)
    legend = figure.legend(
        handles,
        [shortened(name) for name in runs],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def draw_sweep(rows: Rows) -> Figure:
    """Training and test loss against the epoch: thin of each member, bold the mean of a setting.

    A member that diverged has the epochs before, and no part in the mean.
    """
    settings: dict[tuple[float, float], dict[int, list[Metrics]]] = {}
    for config, metrics in rows:
        setting = settings.setdefault((config.learning_rate, config.momentum), {})
        setting.setdefault(config.seed, []).append(metrics)
    columns = min(len(settings), 3)
    lines = 1 + math.ceil(len(settings) / columns)
    figure = Figure(figsize=(9, 4 + 0.22 * lines), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    handles = []
    looks = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=True)
    for ((rate, momentum), members), (colour, marker) in zip(settings.items(), looks, strict=False):
        for axes, kind in zip(panels, ("train_loss", "test_loss"), strict=True):
            curves = np.array([[getattr(m, kind) for m in runs] for runs in members.values()])
            epochs = np.arange(1, curves.shape[1] + 1)
            axes.plot(epochs, curves.T, ".-", color=colour, linewidth=0.7, ms=3, alpha=0.45)
            healthy = curves[np.isfinite(curves).all(axis=1)]
            if len(healthy):
                axes.plot(
                    epochs, healthy.mean(axis=0), color=colour, linewidth=2, marker=marker, ms=5
                )
        diverged = f" ({len(curves) - len(healthy)} diverged)" if len(healthy) < len(curves) else ""
        label = f"{rate:g}" + (f", momentum {momentum:g}" if momentum else "") + diverged
        handles.append(Line2D([], [], color=colour, linewidth=2, marker=marker, ms=5, label=label))
    for axes, title in zip(panels, ("training", "test"), strict=True):
        axes.set_title(title, fontsize=10)
        axes.set_yscale("log")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(color="#E6E6E6")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("loss, nats")
    panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    panels[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panels[0].yaxis.set_minor_formatter(NullFormatter())
    figure.legend(
        handles=handles,
        title="learning rate: the mean over its seeds, and each of them",
        loc="outside lower center",
        ncols=columns,
        frameon=False,
    )
    return figure
