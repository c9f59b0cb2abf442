"""Every block in the documents runs, and prints what they show."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.helpers.documents import DOCUMENTS, blocks, prose, run_document


# Three lines for a reader need not close the file.
@pytest.mark.long
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_every_block_runs_and_prints_what_is_shown(
    path: Path, request: pytest.FixtureRequest
) -> None:
    if any("torch" in block.code for block in blocks(path.read_text(encoding="utf-8"))):
        request.getfixturevalue("torch")
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam, in CONTRIBUTING.md, relies on it
        run_document(path)
    for picture in re.findall(r"!\[.*\]\((.*)\)", prose(path)):
        # One of the document's commands has drawn it again, in the current folder.
        shown, drawn = (
            np.asarray(Image.open(file), float) for file in (path.parent / picture, picture)
        )
        assert shown.shape == drawn.shape
        assert np.abs(shown - drawn).mean() < 2
