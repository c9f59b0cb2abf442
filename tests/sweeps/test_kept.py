"""What is kept of a sweep that has come to its end."""

from __future__ import annotations

import jax
import numpy as np

from flax_mnist.show import figures
from flax_mnist.store import sweep_folder
from flax_mnist.sweeps import kept, tally
from flax_mnist.sweeps.plan import make_plan
from tests.helpers.sweeps import SMALL, axes, metrics_of


def test_the_curves_are_those_of_the_best_settings_in_their_order(tmp_path, monkeypatch):
    count = kept.MOST_SETTINGS + 2
    members = axes(tuple(0.01 * (1 + i) for i in range(count))).members(SMALL)
    # Of each member after two epochs; the first settings are the worst, the others in no order.
    losses = np.arange(4.0 * count, 0, -1).reshape(count, 2, 2)
    losses[2:] = np.roll(losses[2:], 3, axis=0)
    for i in range(2):
        rows = [metrics_of(loss, epoch=1 + i) for loss in losses[..., i].ravel()]
        pairs = list(zip(members, rows, strict=True))
        sweep_folder.append_rows(tmp_path, pairs, "mnist")
    results = np.full((len(members), 4), np.nan)
    results[:, 0], results[:, 1] = losses[..., 1].ravel(), 0.5
    done = tally.Tally(results, len(members), np.zeros(count), np.zeros((3, 10), np.int64), {})
    plan = make_plan(members, (1000, 200), jax.devices()[:1], 5)
    drawn, draw = [], figures.draw_sweep
    monkeypatch.setattr(figures, "draw_sweep", lambda curves: drawn.append(curves) or draw(curves))
    kept.draw(tmp_path, plan, done, tally.settings_of(done, members))
    (curves,) = drawn
    assert list(curves) == [f"{0.01 * (1 + i):g}" for i in range(2, count)]
    for curve, test_losses in zip(curves.values(), losses[2:], strict=True):
        np.testing.assert_array_equal(curve, np.stack([2 * test_losses, test_losses], -1))
