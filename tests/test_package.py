"""What can be imported from the package itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import flax_mnist


def test_every_public_name_is_there():
    for name in flax_mnist.__all__:
        assert getattr(flax_mnist, name).__module__.startswith("flax_mnist.")
    stub = Path(flax_mnist.__file__).read_text()
    typed = re.findall(r"^    from flax_mnist[.\w]+ import (\w+) as \1$", stub, re.MULTILINE)
    assert sorted(typed) == flax_mnist.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        flax_mnist.nothing  # noqa: B018


def test_an_editor_is_told_of_them():
    assert set(flax_mnist.__all__) <= set(dir(flax_mnist))
    assert {"epoch_order", "make_model", "read_image", "save_weights"} <= set(dir(flax_mnist))
