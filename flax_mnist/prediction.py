"""An image and what the network makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Prediction(NamedTuple):
    """Everything that is shown of one prediction."""

    title: str
    """Which image it is."""
    image: NDArray[np.uint8]
    """`[28, 28]`."""
    label: str | None
    """The name of its class, where that is known."""
    names: Sequence[str]
    """Of the ten classes."""
    probabilities: Sequence[float]
    """Of the classes, in the same order."""

    @property
    def likeliest(self) -> str:
        """The name of the likeliest class."""
        return self.names[int(np.argmax(self.probabilities))]
