"""What can stand where a file should be."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def pipe(path: Path) -> Iterator[Path]:
    """A named pipe; whoever opens it finds it empty, so that no test hangs that should fail."""
    if sys.platform == "win32":
        pytest.skip("Windows has no such pipes")
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.open("wb").close(), daemon=True)
    writer.start()
    yield path
    while writer.is_alive():  # nobody came
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        writer.join(0.01)


@contextlib.contextmanager
def forbidden(name: str, content: bytes) -> Iterator[Path]:
    """A file that may not be read; by root neither, who is somebody else for the while."""
    if sys.platform == "win32":
        pytest.skip("Windows has other permissions")
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / name
        path.write_bytes(content)
        path.chmod(0)
        try:
            if root:
                os.seteuid(65534)
        except OSError:
            pytest.skip("this root cannot be anybody else")
        try:
            yield path
        finally:
            if root:
                os.seteuid(0)


def link_to_itself(path: Path) -> Path:
    path.symlink_to(path)
    return path
