"""What a document asks to be pasted can be pasted, at Python's plain prompt."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.command_line import environment
from tests.helpers.documents import ROOT, blocks, commands, run_command


@pytest.mark.long
def test_the_tutorial_can_be_pasted_at_the_prompt(torch, tmp_path):
    found = blocks((ROOT / "docs/from-pytorch-to-jax.md").read_text(encoding="utf-8"))
    for block in found:
        if block.language == "console":
            for command, _ in commands(block.code):
                if command.startswith("flax-mnist train"):  # its run is read further below
                    run_command(command)
    # Enter after each, as somebody does who sees `...`.
    pasted = "\n".join(block.code for block in found if block.language == "python")
    session = subprocess.run(
        [sys.executable, "-i", "-q", "-c", ""],
        input=pasted,
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    prompts = session.stderr.replace(">>> ", "").replace("... ", "").strip()
    assert prompts == ""
    assert "largest difference after 48 steps" in session.stdout
    assert session.returncode == 0
