"""What several tests of data need."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def digit(digits: dict[str, np.ndarray]) -> np.ndarray:
    return digits["test_images"][0]
