"""The picture of a sweep."""

from __future__ import annotations

import itertools
import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from flax_mnist.plots import COLOURS, MARKERS
from flax_mnist.sweep import Rows
from flax_mnist.train import Metrics


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
