"""Images that are held out: which they are, and that nobody is lost."""

from __future__ import annotations

import numpy as np
import pytest

from flax_mnist.data.order import epoch_order
from flax_mnist.data.validation import hold_out
from flax_mnist.errors import RequestError


def rows_of(split, dataset) -> list[int]:
    """Where its images stood in the training split, each of which is another one's."""
    whole = {image.tobytes(): row for row, image in enumerate(dataset.train.images)}
    assert len(whole) == len(dataset.train.images)
    rows = [whole[image.tobytes()] for image in split.images]
    np.testing.assert_array_equal(split.labels, dataset.train.labels[rows])
    return rows


def test_each_image_is_trained_on_or_held_out_in_its_order(dataset):
    split = hold_out(dataset, 300, seed=5)
    train, held = rows_of(split.train, dataset), rows_of(split.validation, dataset)
    assert (len(train), len(held)) == (700, 300)
    assert train == sorted(train)
    assert held == sorted(held)
    assert sorted(train + held) == list(range(1000))
    assert split.test is dataset.test
    assert split.counts == (700, 200)


def test_the_seed_decides_which_and_is_no_epochs_order(dataset):
    held = rows_of(hold_out(dataset, 300, seed=5).validation, dataset)
    assert held == rows_of(hold_out(dataset, 300, seed=5).validation, dataset)
    # Of two independent draws 90 are common, give or take 8.
    others = [rows_of(hold_out(dataset, 300, seed=6).validation, dataset)]
    others += [epoch_order(5, epoch, 1000)[part] for epoch in (0, 1) for part in (
        slice(300), slice(700, None),
    )]  # fmt: skip
    for other in others:
        assert 50 < len(set(held) & set(map(int, other))) < 130


def test_what_leaves_nothing_to_train_on_is_refused(dataset):
    assert hold_out(dataset, 0, seed=0) is dataset
    assert len(hold_out(dataset, 999, seed=0).train.labels) == 1
    with pytest.raises(RequestError, match=r"^validation is 1,000; there are 1,000 training"):
        hold_out(dataset, 1000, seed=0)
