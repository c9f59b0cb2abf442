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
from benchmarks.tables import picture, table
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


def test_whom_j2_is_not_surely_ahead_of_is_said() -> None:
    result = json.loads((machine.ROOT / "benchmarks/results/amd-epyc-2-cores.json").read_text())
    rows = {row["name"]: row for row in result["rows"]}

    def said(name: str, *factors: float) -> list[str]:
        """Had this row taken so many times as long as J2, in one round after the other."""
        turns = [
            {**turn, "seconds": [seconds * factor for seconds in turn["seconds"]]}
            for turn, factor in zip(rows["J2"]["turns"], factors, strict=True)
        ]
        changed = [{**r, "turns": turns} if r["name"] == name else r for r in result["rows"]]
        text = " ".join(table.render({**result, "rows": changed}).split())
        return text.split("rows by rounds, x J2: ")[1].split(". Where an interval")[0].split(", ")

    ahead = ["P1 18.5", "P2 18.3", "P3 3.07", "P4 3.08", "P5 2.38", "P6 2.36", "N1 1.51"]
    assert said("K1", *[1.2, 1.1] * 3, 1.3) == [*ahead, "K1 1.2", "T1 39"]
    assert said("K1", *[1.1, 0.9] * 3, 1.1) == [*ahead, "K1 1.1 (0.90-1.10)", "T1 39"]
    assert said("K1", *[0.8] * 7) == [*ahead, "K1 0.8 (0.80-0.80)", "T1 39"]
    for other in ("J3", "P8"):  # neither another's nor of that kind
        assert said(other, *[0.8] * 7) == [*ahead, "K1 1.99", "T1 39"]
    without = [row for row in result["rows"] if row["name"] != "J2"]
    assert "by rounds" not in table.render({**result, "rows": without})


def test_the_picture_has_a_panel_for_what_was_measured_in_its_rows_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib = pytest.importorskip("matplotlib.figure")
    drawn: list[Any] = []
    monkeypatch.setattr(matplotlib.Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    result = json.loads((machine.ROOT / "benchmarks/results/amd-epyc-2-cores.json").read_text())
    sizes = [point for point in result["scaling"] if point["key"] == "batch_size"]
    for scaling, panels in (([], 1), (sizes, 2), (result["scaling"], 3)):
        picture.save({**result, "scaling": scaling}, tmp_path / "a.png")
        assert len(drawn[-1].axes) == panels
    for row in ("P5", "J2"):
        (line,) = (line for line in drawn[-1].axes[1].lines if line.get_label() == row)
        family = {"P5": "pytorch", "J2": "ours"}[row]
        assert line.get_color() == picture.COLOURS[family]
    renamed = json.loads(json.dumps({**result, "scaling": sizes}).replace('"P5"', '"A1"'))
    picture.save(renamed, tmp_path / "a.png")
    assert {line.get_color() for line in drawn[-1].axes[1].lines} == {
        picture.COLOURS["pytorch"], picture.COLOURS["ours"],
    }  # fmt: skip


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
