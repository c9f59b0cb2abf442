"""The pictures and the table of a sweep."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.colors import to_hex

from flax_mnist.show.figures import MOST_MEMBERS, draw_histogram, draw_sweep
from flax_mnist.show.text import MOST_SETTINGS, setting_name, sweep_table
from flax_mnist.store.sweep_folder import Setting


def test_the_picture_shows_each_member_and_the_means():
    lost = math.nan
    test = {
        "0.1": [[1.0, 0.5], [3.0, 1.5]],
        "0.2": [[2.0, 2.0], [5.0, lost]],
    }  # fmt: skip
    figure = draw_sweep(
        {name: np.stack([2 * np.array(of), np.array(of)], -1) for name, of in test.items()}
    )
    train, test = figure.axes
    drawn = [line.get_ydata().tolist() for line in test.lines]
    assert drawn[:3] == [[1.0, 0.5], [3.0, 1.5], [2.0, 1.0]]
    assert {tuple(line.get_xdata()) for line in test.lines} == {(1, 2)}
    assert drawn[3] == drawn[5] == [2.0, 2.0]  # a member, and the mean of those that go on
    assert drawn[4][0] == 5.0
    assert math.isnan(drawn[4][1])
    assert train.lines[2].get_ydata().tolist() == [4.0, 2.0]
    colours = [to_hex(line.get_color()) for line in test.lines]
    assert len(set(colours[:3])) == len(set(colours[3:])) == 1
    assert colours[0] != colours[3]
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["0.1", "0.2 (1 diverged)"]


def test_of_many_members_all_are_in_the_mean():
    losses = np.arange(1.0, MOST_MEMBERS + 4).reshape(-1, 1, 1) * np.ones(2)
    *members, mean = draw_sweep({"0.1": losses}).axes[1].lines
    assert len(members) == MOST_MEMBERS
    assert mean.get_ydata().tolist() == [(MOST_MEMBERS + 4) / 2]


def test_the_histogram_counts_members():
    chance = np.random.default_rng(0)
    accuracies = {"0.1": chance.uniform(0.8, 0.9, 500), "0.2": np.array([0.95, math.nan, 0.96])}
    (axes,) = draw_histogram(accuracies).axes
    heights = [
        sum(np.diff(patch.get_xy()[:, 0]) != 0) and np.unique(patch.get_xy()[:, 1]).max()
        for patch in axes.patches
    ]
    counts = np.histogram(accuracies["0.1"], np.histogram_bin_edges(
        np.concatenate([accuracies["0.1"], [0.95, 0.96]]), bins="auto"))[0]  # fmt: skip
    assert heights[0] == counts.max()
    assert 1 <= heights[1] <= 2


def setting(rate: float, **more: object) -> Setting:
    known = {"test_loss": rate, "test_loss_sd": 0.1, "test_accuracy": 0.5, "test_accuracy_sd": 0.1}
    known |= {"ensemble_accuracy": 0.6, "members": 2, "diverged": 0, "best": False}
    return Setting(rate, 0.0, **known | more)


def test_of_many_settings_the_table_has_the_best():
    settings = [setting(1 + i, best=i == 0) for i in reversed(range(MOST_SETTINGS + 5))]
    lines = sweep_table(settings).splitlines()
    rates = [float(line.split()[0]) for line in lines[1 : MOST_SETTINGS + 1]]
    assert rates == [1.0 + i for i in range(MOST_SETTINGS)]
    assert lines[1].split()[-1] == "best"
    assert lines[MOST_SETTINGS + 1] == "and 5 more, in outcomes.jsonl"
    held_out = [s._replace(validation_loss=100 - s.learning_rate) for s in settings]
    assert float(sweep_table(held_out).splitlines()[1].split()[0]) == MOST_SETTINGS + 5
    few = sweep_table(settings[:MOST_SETTINGS]).splitlines()[1 : MOST_SETTINGS + 1]
    assert [float(line.split()[0]) for line in few] == [
        s.learning_rate for s in settings[:MOST_SETTINGS]
    ]


def test_the_table_has_the_columns_that_tell_settings_apart():
    settings = [
        setting(0.1),
        setting(0.1, hidden_sizes=(512,), batch_size=32)._replace(momentum=0.9),
    ]
    header, first, second = (line.split("  ") for line in sweep_table(settings).splitlines()[:3])
    assert [word.strip() for word in header if word][:3] == ["network", "batch", "learning rate"]
    assert [word.strip() for word in first if word][:2] == ["128-64", "64"]
    assert [word.strip() for word in second if word][:2] == ["512", "32"]
    assert setting_name(settings[1], settings) == "0.1, momentum 0.9, network 512, batch 32"
    assert setting_name(settings[0], settings[:1]) == "0.1"


def test_what_has_decided_is_said():
    assert "flatter" in sweep_table([setting(0.1)])
    said = sweep_table([setting(0.3, validation_loss=0.25, members=3, diverged=1)])
    assert "flatter" not in said
    assert "held out" in said.splitlines()[0]
    assert said.splitlines()[1].split() == [
        "0.3", "0", "0.2500", "0.3000", "0.1000", "50.00%", "10.00%", "60.00%",
        "1", "of", "3", "diverged",
    ]  # fmt: skip


def test_of_many_seeds_the_best_settings_quantiles_are_said():
    def of(loss: float, **more: object) -> Setting:
        losses, shares = [loss + i for i in range(5)], [i / 10 for i in range(5)]
        return setting(loss, test_loss_quantiles=losses, test_accuracy_quantiles=shares, **more)

    assert sweep_table([of(2.0), of(1.0, best=True)]).split("\n\n")[1].splitlines() == [
        "of the best      5%     25%     50%     75%     95%",
        "test loss    1.0000  2.0000  3.0000  4.0000  5.0000",
        "correct       0.00%  10.00%  20.00%  30.00%  40.00%",
    ]
