"""A run that several commands are given."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.command_line import run
from tests.helpers.runs import LEARNS


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run of three epochs on the small set, named from the folder that holds both.

    Beside it are the images, `idx`, what was said, `stdout`, and the programs, `cache`.
    """
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(data, folder / "idx")
    done = run(
        "train", "--data-dir", "idx", "--run-dir", "run", *LEARNS,
        cwd=folder, XDG_CACHE_HOME=str(folder / "cache"), FORCE_COLOR="1",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    (folder / "stdout").write_text(done.stdout)
    return folder / "run"
