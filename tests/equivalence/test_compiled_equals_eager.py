"""The step and the epoch compute the same compiled, eagerly, scanned and unrolled."""

from __future__ import annotations

import jax
import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.equivalence import measurements, sides, tolerances
from flax_mnist import model, train
from flax_mnist.config import Config
from flax_mnist.data.order import epoch_order
from tests.equivalence import checks

COMPILED = 16
"""ulps: a compiler may fuse a product and a sum and so leave one rounding out a step."""


@pytest.mark.long
@pytest.mark.parametrize(("precision", "momentum"), [("float64", 0.0), ("float32", 0.9)])
def test_compiled_equals_eager(full_dataset, precision, momentum):
    config = Config(precision=precision, momentum=momentum)
    static = {"model": model.make_model(config), "optimizer": train.make_optimizer(config)}
    data, order = sides.first(full_dataset.train, 160), epoch_order(0, 0, 160)

    def scanned(state: train.State) -> tuple:
        return train.train_epoch(state, *data, order, batch_size=64, **static)

    def unrolled(state: train.State) -> tuple:
        total = 0.0
        for rows in np.split(order, [64, 128]):
            state, loss = train.train_step(state, data.images[rows], data.labels[rows], **static)
            total += loss
        return state, total / 3

    with sides.in_precision(config):
        results = {
            "scanned, compiled": scanned(train.init_state(config)),
            "unrolled, a compiled step": unrolled(train.init_state(config)),
            "unrolled, one program": jax.jit(unrolled)(train.init_state(config)),
        }
        for name, run in (("scanned, eager", scanned), ("unrolled, eager", unrolled)):
            start = train.init_state(config)
            with jax.disable_jit():
                results[name] = run(start)
        expected = results.pop("unrolled, eager")
        assert measurements.difference(expected[0], train.init_state(config)) > 1e-3
    for name, result in results.items():
        checks.require(
            name, measurements.difference(result, expected), tolerances.ulps(COMPILED, precision)
        )
