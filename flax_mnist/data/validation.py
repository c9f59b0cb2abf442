"""Training images that are held out, so that the test images need not decide anything."""

import numpy as np
from jaxtyping import Bool

from flax_mnist.data.dataset import Dataset, Split
from flax_mnist.errors import RequestError


def hold_out(dataset: Dataset, count: int, seed: int) -> Dataset:
    """The dataset with `count` of its training images as its validation split.

    Which they are, the seed and the number of images decide alone; all keep their order. With a
    count of 0 it is the dataset as it was.

    Raises:
        RequestError: no image is left to train on.
    """
    if not count:
        return dataset
    images, labels = dataset.train
    held = held_out(len(labels), count, seed)
    train, validation = (Split(images[rows], labels[rows]) for rows in (~held, held))
    return dataset._replace(train=train, validation=validation)


def held_out(n: int, count: int, seed: int) -> Bool[np.ndarray, " n"]:
    """Which of `n` images are held out, so many; errors as of `hold_out`."""
    if count >= n:
        raise RequestError(f"validation is {count:,}; there are {n:,} training images in all.")
    # A child of the seed's, which has nothing to do with what the seed itself gives elsewhere.
    (child,) = np.random.SeedSequence(seed).spawn(1)
    held = np.zeros(n, bool)
    held[np.random.default_rng(child).choice(n, count, replace=False)] = True
    return held
