"""Networks that nobody trained."""

from __future__ import annotations

import numpy as np


def random_weights() -> dict[str, np.ndarray]:
    """A state dict of 20 hidden units; always the same."""
    rng = np.random.default_rng(0)
    sizes = {"0": (20, 784), "2": (10, 20)}
    drawn = {f"{i}.weight": rng.normal(size=shape) for i, shape in sizes.items()}
    drawn |= {f"{i}.bias": rng.normal(size=shape[0]) for i, shape in sizes.items()}
    return {name: (array / 20).astype(np.float32) for name, array in drawn.items()}
