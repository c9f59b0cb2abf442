"""What a document is about is in it, all of it."""

from __future__ import annotations

import re

import flax_mnist
from benchmarks.rows import ROWS
from benchmarks.tables import table
from flax_mnist.store import run_folder
from flax_mnist.store.metrics import Metrics
from tests.helpers.documents import ROOT, prose, subcommands


def test_the_changelog_has_this_version_and_every_subcommand() -> None:
    text = prose(ROOT / "CHANGELOG.md")
    assert re.search(rf"^## {re.escape(flax_mnist.__version__)}\b", text, re.MULTILINE)
    assert {
        name for name in subcommands() if f"`flax-mnist {name}`" not in " ".join(text.split())
    } == set()


def test_benchmarking_names_every_row_and_column() -> None:
    text = prose(ROOT / "docs/benchmarking.md")
    ranges = {f"P{i}" for i in range(1, 10)} | {f"J{i}" for i in range(1, 7)}
    assert {row.name for row in ROWS} <= ranges | set(re.findall(r"\b[A-Z]\d\b", text))
    for column in (*table.HEADER[1:], *table.COSTS[1:]):
        assert f"| `{column}` |" in text, column


def test_command_line_names_the_files_of_a_run_and_the_fields_of_its_metrics() -> None:
    text = prose(ROOT / "docs/command-line.md")
    for name in (
        run_folder.CONFIG,
        run_folder.METRICS,
        run_folder.WEIGHTS,
        run_folder.CURVES,
        run_folder.LOCK,
    ):
        assert f"| `{name}` |" in text, name
    (row,) = re.findall(r"^\| `metrics.jsonl` \|(.*)\|$", text, re.MULTILINE)
    assert tuple(re.findall(r"`(\w+)`", row)) == (*Metrics._fields, "dataset")
