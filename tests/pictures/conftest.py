"""A digit as MNIST's are."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.pictures import like_mnist


@pytest.fixture
def digit(digits: dict[str, np.ndarray]) -> np.ndarray:
    return digits["test_images"][like_mnist(digits["test_images"][:600])[0]]
