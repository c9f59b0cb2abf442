"""The documents run in a folder of their own, and leave the process as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest


@pytest.fixture(autouse=True)
def _as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # The command line makes settings for the whole process, as it may in one of its own.
    names = ("jax_platforms", "jax_default_device", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # a document's own files
    monkeypatch.setenv("COLUMNS", "100")
    with jax.numpy_dtype_promotion("standard"):  # as a reader has it; optax's Adam needs it
        yield
    for name, value in before.items():
        jax.config.update(name, value)
