"""Folders and files of any name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.command_line import said
from tests.helpers.platforms import POSIX


@POSIX
@pytest.mark.parametrize(
    "name", ["with spaces", "new\nline", "é ß 数字", "-dash", "[bold]*?", "a/../../{}/b"]
)
def test_any_name_will_do(capsys, data, digits, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    here = Path(name.format(tmp_path.name))
    Path("a").mkdir()
    shutil.copytree(data, f"{here} data")
    train = ("train", f"--run-dir={here}", f"--data-dir={here} data", "--epochs", "1")
    assert said(capsys, *train)[-1] == f"Saved in {here}".splitlines()[-1]
    picture = Path(f"{here} digit.png")
    Image.fromarray(digits["test_images"][0]).save(picture)
    drawn = f"--output={here} drawn.png"
    (line,) = said(capsys, "predict", "--json", drawn, "--", here, picture)
    assert json.loads(line)["image"] == str(picture)
    said(capsys, "export", f"--output={here}.safetensors", "--", here)
    said(capsys, "import", f"--run-dir={here} again", "--", f"{here}.safetensors")
    # Where the data are stands in config.json, for anywhere else.
    monkeypatch.chdir(tmp_path.parent)
    said(capsys, "evaluate", "--", tmp_path / here)


def test_the_home_of_nobody_is_a_name_like_any_other(capsys, tmp_path, weights, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said(capsys, "import", weights, "--run-dir", "~nobody-of-this-name/run")
    assert (tmp_path / "~nobody-of-this-name" / "run" / "config.json").exists()
