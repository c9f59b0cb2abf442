"""What several tests of data need: a digit, a server, no network."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from tests.helpers.file_server import FileServer


@pytest.fixture
def digit(digits: dict[str, np.ndarray]) -> np.ndarray:
    return digits["test_images"][0]


@pytest.fixture
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http", "https", "all", "no"):
        for variable in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
            monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def _no_network(_no_proxy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection is refused: the proxy that the variables name is not there."""
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")


@pytest.fixture
def server(_no_proxy: None) -> Iterator[FileServer]:
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.is_over.set()
    server.shutdown()
    server.server_close()
