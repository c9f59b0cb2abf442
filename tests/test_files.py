"""What is read as a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from flax_mnist import files
from flax_mnist.errors import DataError
from tests.helpers.odd_files import link_to_itself
from tests.helpers.platforms import POSIX


@POSIX
def test_what_is_no_ordinary_file_is_not_read(tmp_path):
    with pytest.raises(DataError, match="is no ordinary file"):
        files.read(Path("/dev/null"))
    with pytest.raises(DataError, match="cannot be read"):
        files.read(link_to_itself(tmp_path / "link"))
