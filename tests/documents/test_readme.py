"""The README says what is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import flax_mnist
from benchmarks.tables import table
from tests.helpers.documents import ROOT, blocks, parse_command, subcommands

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.long
def test_its_python_runs(capsys):
    namespace: dict[str, object] = {}
    for block in blocks(README):
        if block.language == "python":
            exec(compile(block.code, "README.md", "exec"), namespace)
    losses = [float(loss) for loss in re.findall(r"Training loss: (\S+)", capsys.readouterr().out)]
    resumed, first, second = losses
    assert second < first < 2.4
    assert resumed == pytest.approx(second, abs=1e-3)  # the library call, and the loop by hand


def test_every_command_of_it_parses():
    """Also where another program starts it: `srun`, or `ssh` with a quoted command."""
    shell = [b for b in blocks(README) if b.language == "sh"]
    lines = "\n".join(b.code for b in shell).replace("\\\n", "").splitlines()
    found = [re.search(r"flax-mnist \w[^\"]*", line) for line in lines]
    assert len([command for command in found if command]) >= 6
    for command in found:
        if command:
            parse_command(command[0])
    for line in lines:
        if line.startswith("python3 -m venv"):
            parse_command(line)


def test_its_table_has_every_subcommand():
    found = re.findall(r"^\| `flax-mnist (\w+)", README, re.MULTILINE)
    assert set(found) == subcommands()


def test_its_tree_names_files_that_are_there():
    tree = README.split("## Reading the code")[1]
    named = set(re.findall(r"(\w+\.py)", tree))
    there = {path.name for path in Path(flax_mnist.__file__).parent.rglob("*.py")}
    assert named <= there


RESULTS = [ROOT / "benchmarks/results" / f"amd-epyc-2-cores{s}" for s in ("", "-python-3.13")]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_the_stored_tables_are_made_from_the_stored_samples(path):
    stored = Path(f"{path}.md").read_text(encoding="utf-8")
    assert stored == table.render(json.loads(Path(f"{path}.json").read_text("utf-8")))


def test_its_benchmark_is_the_newer_one():
    stored = Path(f"{RESULTS[-1]}.md").read_text(encoding="utf-8")
    rows = [line for line in stored.splitlines() if line.startswith("|")]
    assert len(rows) > 20
    assert [line for line in README.splitlines() if line in rows] == rows
