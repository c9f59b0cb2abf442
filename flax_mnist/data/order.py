"""The order in which an epoch shows the images."""

import math

import numpy as np
from jaxtyping import Int32

from flax_mnist.config import Config


def epoch_order(seed: int, epoch: int, n: int) -> Int32[np.ndarray, " n"]:
    """The order in which epoch `epoch` (from 0) shows the `n` training images.

    Made on the host from the two numbers alone, so that any run, resumed or not and on any number
    of devices, sees the same batches.
    """
    return np.random.default_rng((seed, epoch)).permutation(n).astype(np.int32)


def steps_per_epoch(config: Config, n: int) -> int:
    """Batches in an epoch of `n` images, the ragged one too."""
    return math.ceil(n / config.batch_size)
