"""Which tests a platform is spared."""

from __future__ import annotations

import sys

import pytest

POSIX = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has other files, limits, shells and terminals"
)
