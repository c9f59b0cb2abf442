"""What all pictures have in common: their files."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure
from PIL import Image

from flax_mnist.errors import RequestError
from flax_mnist.show.figures import save

# A layout that does not fit, a division by zero or a missing glyph is a failure.
pytestmark = pytest.mark.filterwarnings("error")


def test_the_ending_decides_the_format(tmp_path):
    figure = Figure(figsize=(10.4, 2.9))  # inches, of 150 pixels each
    save(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (2 * 780, 435)
        # Readable on a dark page too.
        assert picture.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
    save(figure, tmp_path / "a.svg")
    assert "<svg" in (tmp_path / "a.svg").read_text()
    save(figure, tmp_path / "b")
    assert (tmp_path / "b").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RequestError, match="'foo' is not supported"):
        save(figure, tmp_path / "a.foo")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg", "b"]
