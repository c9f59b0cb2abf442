"""`python -m benchmarks`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks.command import benchmark
from benchmarks.tables import table
from tests.benchmarks.some_rows import BRIEF


@pytest.mark.long
def test_the_command(
    folder: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "FULL", BRIEF)
    output = tmp_path / "new" / "folder"
    arguments = ["--rows", "g3", "P7", "--device", "cpu", "--data-dir", str(folder)]
    assert command.main([*arguments, "--output", str(output)]) == 0
    (path,) = output.glob("*.json")
    result = json.loads(path.read_text())
    assert [row["name"] for row in result["rows"]] == ["P7", "G3"]
    assert {"commit", "versions", "environment", "processor"} <= result["machine"].keys()
    said = capsys.readouterr()
    assert table.render(result) in said.out
    assert "G3 a large copy: starting, 2 of 2" in said.err


@pytest.mark.usefixtures("torch")
def test_the_rows_need_nothing_but_numpy_and_their_frameworks() -> None:
    # An accelerator machine may have been given no more than these.
    missing = ("matplotlib", "orbax", "PIL", "pooch", "rich", "safetensors", "tyro")
    code = f"""
import sys
sys.modules.update(dict.fromkeys({missing}))
import benchmarks.__main__, benchmarks.harness.worker, benchmarks.loops.numpy_backprop
import benchmarks.loops.pytorch, benchmarks.loops.ceilings.by_numpy, benchmarks.harness.protocol
"""
    subprocess.run([sys.executable, "-c", code], check=True)
