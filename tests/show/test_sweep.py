"""The picture of a sweep."""

from __future__ import annotations

import math

from matplotlib.colors import to_hex

from flax_mnist import Config
from flax_mnist.show.figures import draw_sweep
from tests.helpers.sweeps import metrics_of


def test_the_picture_shows_each_member_and_the_means():
    rows = [
        (Config(learning_rate=rate, seed=seed), metrics_of(loss, epoch=epoch))
        for epoch in (1, 2)
        for rate, seed, loss in (
            (0.1, 0, 1.0 / epoch), (0.1, 1, 3.0 / epoch),
            (0.2, 0, 2.0), (0.2, 1, 5.0 if epoch == 1 else math.nan),
        )
    ]  # fmt: skip
    figure = draw_sweep(rows)
    train, test = figure.axes
    drawn = [line.get_ydata().tolist() for line in test.lines]
    assert drawn[:3] == [[1.0, 0.5], [3.0, 1.5], [2.0, 1.0]]
    assert drawn[3] == drawn[5] == [2.0, 2.0]  # a member, and the mean of those that go on
    assert drawn[4][0] == 5.0
    assert math.isnan(drawn[4][1])
    assert train.lines[2].get_ydata().tolist() == [4.0, 2.0]
    colours = [to_hex(line.get_color()) for line in test.lines]
    assert len(set(colours[:3])) == len(set(colours[3:])) == 1
    assert colours[0] != colours[3]
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["0.1", "0.2 (1 diverged)"]
