"""Curves: that they show the metrics they were given."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from flax_mnist.show.figures import draw_curves, save
from flax_mnist.store.metrics import Metrics

# A layout that does not fit, a division by zero or a missing glyph is a failure.
pytestmark = pytest.mark.filterwarnings("error")


def run(epochs: int, seed: int = 0) -> list[Metrics]:
    rng = np.random.default_rng(seed)
    rows = rng.uniform(size=(epochs, 3)).tolist()
    return [Metrics(i, 938 * i, *row, 0.2, 3e5) for i, row in enumerate(rows, start=1)]


@pytest.mark.parametrize("epochs", [1, 2, 200])
def test_the_curves_are_the_metrics(epochs, tmp_path):
    runs = {"a": run(epochs), "b": run(3, seed=1)}
    figure = draw_curves(runs)
    save(figure, tmp_path / "loss.png")
    loss, accuracy = figure.axes
    shown = {
        "train_loss": [line for line in loss.lines if line.get_linestyle() == "--"],
        "test_loss": [line for line in loss.lines if line.get_linestyle() == "-"],
        "test_accuracy": accuracy.lines,
    }
    assert len(loss.lines) == 4
    for field, lines in shown.items():
        for line, rows in zip(lines, runs.values(), strict=True):
            assert list(line.get_xdata()) == [row.epoch for row in rows]
            assert list(line.get_ydata()) == [getattr(row, field) for row in rows]
            start, every = line.get_markevery()
            marked = range(len(rows))[start::every]
            assert len(marked) <= 10
            assert marked[-1] == len(rows) - 1
    for axes in (loss, accuracy):
        ticks = [float(label.get_text().replace("−", "-")) for label in axes.get_xticklabels()]
        assert ticks
        assert all(tick == int(tick) for tick in ticks)
        assert axes.get_xlim()[0] < 1
        assert axes.get_xlim()[1] > epochs
    assert loss.get_ylim()[0] == 0
    assert accuracy.get_ylim()[1] <= 1


def test_runs_differ_without_colour_and_the_legend_covers_no_data():
    names = ["a" * 30 + "middle" + "z" * 30, "b", "c", "d", "e"]
    figure = draw_curves({name: run(5, seed) for seed, name in enumerate(names)})
    accuracy = figure.axes[1]
    assert len({line.get_marker() for line in accuracy.lines}) == 5
    (legend,) = figure.legends
    for line, handle in zip(accuracy.lines, legend.get_lines(), strict=True):
        assert (line.get_marker(), line.get_color()) == (handle.get_marker(), handle.get_color())
    figure.draw_without_rendering()  # for the extents
    legends = [legend, figure.axes[0].get_legend()]
    for axes, box in itertools.product(figure.axes, legends):
        assert not axes.get_window_extent().overlaps(box.get_window_extent())
        assert box.get_window_extent().width < figure.bbox.width


def test_any_name_of_a_run_can_be_drawn(tmp_path):
    # Long; what is no mathematics; characters that no font has; what is no text.
    names = ["a" * 30 + "middle" + "z" * 30, r"$\nonsense$", "実験", "no text \udcff"]
    figure = draw_curves({name: run(2) for name in names})
    save(figure, tmp_path / "loss.png")
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["a" * 20 + "…" + "z" * 19, *names[1:3], "no text ?"]


def test_no_two_of_many_runs_look_alike():
    figure = draw_curves({str(i): run(1, i) for i in range(77)})
    looks = {(line.get_marker(), line.get_color()) for line in figure.axes[1].lines}
    assert len(looks) == 77
