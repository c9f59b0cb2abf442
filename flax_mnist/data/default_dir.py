"""Where images are that nobody names the place of: what the environment says."""

import os
from pathlib import Path

VARIABLE = "FLAX_MNIST_DATA_DIR"


def named() -> Path | None:
    """The folder or file that is taken where neither `--data-dir` nor a run names one."""
    path = os.environ.get(VARIABLE)
    return Path(path) if path else None
