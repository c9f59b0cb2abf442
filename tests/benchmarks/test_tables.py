"""The table, its notes, and the files that are made of a stored result."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import machine
from benchmarks.rows import ROWS
from benchmarks.tables import table
from benchmarks.tables.statistics import Estimate
from benchmarks.tables.summary import Line, summarize
from benchmarks.tables.table import lagged
from flax_mnist.show.text import markdown


def lines_of(result: dict[str, Any]) -> dict[str, Line]:
    return {line.name: line for line in summarize(result).lines}


def test_skipped_batches_are_caught(result: dict[str, Any]) -> None:
    lines = lines_of(result)
    assert lines["N1"].status == "ok"
    assert lines["Lazy"].status == "invalid"
    assert table.cells(lines["Lazy"])[-1] == "INVALID"
    assert "- Lazy: invalid: test accuracy" in table.render(result)


@pytest.mark.usefixtures("torch")
def test_what_did_not_run_is_shown_with_its_reason(result: dict[str, Any]) -> None:
    text = table.render(result)
    for name, status, reason in (
        ("Broken", "failed", "ValueError: on purpose"),
        ("Dying", "failed", "its process ended with code 3"),
    ):
        assert lines_of(result)[name].status == status
        assert any(line.startswith(f"| {name} ") for line in text.splitlines())
        assert f"- {name}: {status}: {reason}." in text
    # What was skipped takes no line of the table.
    said = "- Skipped: P7: CUDA graphs need an NVIDIA GPU; P1: not in --quick."
    assert said in " ".join(text.split())
    assert "| P7" not in text


def test_an_asterisk_is_explained_where_there_is_one(result: dict[str, Any]) -> None:
    (row,) = (row for row in result["rows"] if row["name"] == "P7")
    for kind, status, explained in (
        ("labelled", "skipped", False),
        ("labelled", "failed", True),
        ("headline", "failed", False),
    ):
        rows = [
            {**r, "kind": kind, "status": status} if r is row else {**r, "kind": "headline"}
            for r in result["rows"]
        ]
        text = table.render({**result, "rows": rows})
        assert ("- \\*: not the headline rule" in text) == explained


def test_the_tables_are_aligned_markdown_of_80_columns(result: dict[str, Any]) -> None:
    text = table.render(result)
    assert max(map(len, text.splitlines())) <= table.WIDTH == 80
    drawn = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert len(drawn) == 2
    for lines in drawn:
        assert len({line.count("|") for line in lines}) == 1
        assert len({len(line) for line in lines}) == 1


def test_a_full_table_fits() -> None:
    # The widest that each cell gets on machines of today.
    wide = Estimate(1e7, 0.9e7, 1.1e7)
    line = Line(
        "P1", max((r.label for r in ROWS), key=len), "headline", "ours", "skipped",
        step_seconds=Estimate(0.0159, 0, 0), images_per_second=wide,
        to_tutorial=wide._replace(value=45.6), to_pytorch=wide._replace(value=12.34),
        of_products=wide._replace(value=1.2), of_peak=0.123,
        import_seconds=12.3, compile_seconds=54.3, memory=1_234_000_000,
    )  # fmt: skip
    for header, cells in (
        (table.HEADER, table.cells(line)), (table.COSTS, table.cost_cells(line)),
    ):  # fmt: skip
        assert len(markdown([header, cells]).splitlines()[0]) <= table.WIDTH


def test_report_makes_the_files_from_the_stored_result(
    result: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.report", path],
        cwd=machine.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert path.with_suffix(".md").read_text() == table.render(result) == done.stdout[:-1]
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_turns_taken_again_are_told(result: dict[str, Any]) -> None:
    turns = result["rows"][0]["turns"]
    again = {**result, "rows": [{**result["rows"][0], "retaken": turns[:2]}, *result["rows"][1:]]}
    assert "- Turns over 1.25 x their row's best, taken again: N1 2" in table.render(again)


def test_a_row_that_was_held_back_in_most_rounds_is_warned_of(result: dict[str, Any]) -> None:
    def turns(*seconds: float) -> dict[str, Any]:
        return {"turns": [{"seconds": [s, s], "round": i} for i, s in enumerate(seconds)]}

    trials = {"trials": [{"seconds": 1.0}, {"reason": "given up"}]}
    none: dict[str, Any] = {"retaken": []}
    assert lagged(turns(2.0, 2.0, 1.0) | none, 1.25)
    assert not lagged(turns(2.0, 1.1, 1.0) | none, 1.25)
    assert lagged(turns(1.3, 1.3, 1.3) | none | trials, 1.25)
    assert lagged(turns(2.0, 2.0) | {"retaken": turns(1.5)["turns"]}, 1.25)
    assert not lagged(turns() | none, 1.25)
    slow = result["rows"][0]["turns"][0]
    turned = [slow, *({**slow, "seconds": [9.0], "round": i} for i in (1, 2))]
    rows = [{**result["rows"][0], "turns": turned}, *result["rows"][1:]]
    # On a busy machine it is not the only one.
    warning = r"WARNING: N1(, \w+)* stayed behind"
    assert re.search(warning, table.render({**result, "rows": rows}))
    assert not re.search(warning, table.render({**result, "rows": result["rows"][1:]}))
