"""Is our stand-in for torchvision as fast as torchvision? `python -m benchmarks.stand_in`.

P1 and P2 load by torchvision's own dataset and transforms where it can be imported, and otherwise
by ours, which must be neither a handicap nor a help.
"""

import sys
import time
from typing import Any

import numpy as np

from benchmarks import entry
from benchmarks.entry import require_at_least
from benchmarks.equivalence import torch_reference as reference
from benchmarks.tables.statistics import estimate
from flax_mnist.errors import RequestError

TOLERANCE = 0.1  #: Relative, of the time that a sample takes.


def seconds(samples: Any) -> float:
    """To go through all of them once."""
    start = time.perf_counter()
    for index in range(len(samples)):
        samples[index]
    return time.perf_counter() - start


def stand_in(images: np.ndarray, labels: np.ndarray) -> reference.MNIST:
    """Ours, with our transform whatever there is."""
    samples = reference.MNIST(images, labels)
    samples.transform = reference.transform
    return samples


def main(rounds: int = 15, samples: int = 2000) -> int:
    """Times our stand-in and torchvision's dataset by turns, a sample at a time.

    Args:
        rounds: turns of each.
        samples: loaded in a turn.

    Returns:
        0 if the times are within a tenth of each other, otherwise 1.
    """
    require_at_least(1, "rounds", rounds)
    require_at_least(1, "samples", samples)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (samples, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 10, samples)
    theirs, ours = reference.tutorial_dataset(images, labels), stand_in(images, labels)
    if isinstance(theirs, reference.MNIST):
        raise RequestError("torchvision cannot be imported: pip install torchvision.")
    ratios = []
    for number in range(rounds):
        # ABBA: a machine that slows down favours neither.
        pair = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        taken = {id(each): seconds(each) for each in pair}
        ratios.append(taken[id(ours)] / taken[id(theirs)])
    found = estimate(ratios)
    print(
        f"our stand-in takes {found.value:.2f} x torchvision's time "
        f"(95 % {found.low:.2f} to {found.high:.2f}, {rounds} rounds of {samples} samples)"
    )
    return int(abs(found.value - 1) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(entry.run(main, "python -m benchmarks.stand_in"))
