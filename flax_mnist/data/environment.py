"""What the environment says of where images are."""

import os
from pathlib import Path

DATA_DIR = "FLAX_MNIST_DATA_DIR"


def data_dir() -> Path | None:
    """The folder or file that is taken where neither `--data-dir` nor a run names one."""
    named = os.environ.get(DATA_DIR)
    return Path(named) if named else None
