"""What is printed of sweeps that take several groups."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from flax_mnist import Config
from flax_mnist.axes import Axes
from flax_mnist.data.dataset import DIGITS, Dataset, Split
from flax_mnist.show import text
from flax_mnist.store.metrics import Metrics


def test_the_header_of_a_sweep():
    train, test = (
        Split(np.zeros((n, 28, 28), np.uint8), np.zeros(n, np.int32)) for n in (1200, 10)
    )
    dataset = Dataset("kmnist", "a test", DIGITS, train, test)
    config = Config(hidden_sizes=(16, 8), seed=3, batch_size=32)
    members = Axes((0.01, 0.1), (0.0, 0.9), (32,), ((16, 8),), seeds=2).members(config)
    devices = jax.devices("cpu")[:1] * 2
    assert text.sweep_header(dataset, members, 3, devices, 1_234_500_000).splitlines() == [
        "kmnist: 1,200 training and 10 test images from a test",
        "784-16-8-10 MLP, torch initialisation, float32, seeds 3 to 4",
        "SGD, learning rates 0.01, 0.1, momentum 0, 0.9, batches of 32",
        "8 members in 3 groups on 2 x cpu, in about 1,234 MB of memory",
    ]


@pytest.mark.parametrize(
    ("metrics", "epochs", "line"),
    [
        (
            Metrics(1, 938, 1.90171, 1.24708, 0.72071, 0.2741, 219_005.4), 5,
            "Epoch 1/5  Training loss: 1.9017  test 1.2471, 72.07%  0.27 s  219k images/s",
        ),
        (
            Metrics(10, 9380, 9e29, 8.123e29, 0.098, 12.345, 4860.2), 10,
            "Epoch 10/10  Training loss: 9e+29  test 8.12e+29, 9.80%  12.3 s  4,860 images/s",
        ),
        (
            Metrics(100, 938, 0.01, 1234.5, 0.9888, 1234.5, 1_234_567.0), 100,
            "Epoch 100/100  Training loss: 0.0100  test 1.23e+03, 98.88%  1,234 s  1.23M images/s",
        ),
    ],
)  # fmt: skip
def test_the_line_of_an_epoch(metrics, epochs, line):
    assert text.epoch_line(metrics, epochs) == line
    assert len(line) <= 80 or epochs == 100


def test_the_notes_of_a_sweep_fit_a_terminal():
    assert max(map(len, text.SWEEP_LEGEND.splitlines())) < 80


def test_the_line_of_a_groups_epoch():
    first = Metrics(2, 64, 0.5, 0.25, 0.9, seconds=0.5, images_per_second=4000.0)
    members = [first, first._replace(test_loss=0.125), first._replace(test_loss=math.nan)]
    assert text.sweep_line(0, 3, 5, members) == (
        "Group 1/3  Epoch 2/5  test 0.1250 to 0.2500  1 diverged  1.50 s  4,000 images/s"
    )
    assert text.sweep_line(0, 1, 5, members[2:]) == (
        "Epoch 2/5  1 diverged  0.50 s  4,000 images/s"
    )
