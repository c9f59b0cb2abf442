"""What is kept of a benchmark: its schema, its versions, and that nothing of it is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.command import stored
from benchmarks.command.report import report
from benchmarks.harness.machine import ROOT
from flax_mnist.errors import DataError, RequestError

RESULTS = ROOT / "benchmarks" / "results"


def written(result: Any, path: Path) -> Any:
    stored.write(result, path)
    return json.loads(path.read_text())


def test_results_are_as_their_schema_says(result: dict[str, Any], tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((RESULTS / "schema.json").read_text())
    checker = jsonschema.Draft202012Validator(schema)
    checker.check_schema(schema)
    checker.validate(written(result, tmp_path / "new.json"))
    for path in RESULTS.glob("*.json"):
        if path.name not in ("schema.json", "torch_seeds.json"):
            checker.validate(written(stored.read(path), tmp_path / path.name))
    wrong = {**result, "rows": [{**result["rows"][0], "turns": [{"round": 0}]}]}
    assert not checker.is_valid(json.loads(json.dumps(wrong)))


def test_figures_are_kept_beside_the_samples(result: dict[str, Any], tmp_path: Path) -> None:
    row = written(result, tmp_path / "a.json")["summary"]["rows"]["N1"]
    seconds = sorted(sorted(t["seconds"]) for t in result["rows"][0]["turns"])
    rate = row["images_per_second"]
    assert rate["low"] <= rate["value"] <= rate["high"]
    assert 1000 / seconds[-1][-1] <= rate["value"] <= 1000 / seconds[0][0]


def test_what_is_no_number_is_null(result: dict[str, Any], tmp_path: Path) -> None:
    row = {**result["rows"][0], "scores": [[float("nan"), 0.1], [float("inf"), 0.2]]}
    path = tmp_path / "a.json"
    (kept,) = written({**result, "rows": [row]}, path)["rows"]
    assert kept["scores"] == [[None, 0.1], [None, 0.2]]
    assert stored.read(path)["summary"]["rows"]["N1"]["status"] == "invalid"


def test_a_result_of_before_there_were_versions_is_read(
    result: dict[str, Any], tmp_path: Path
) -> None:
    since = ("version", "partial", "request", "rounds_done", "others_cores", "summary")
    written({name: result[name] for name in result if name not in since}, tmp_path / "a.json")
    now = stored.read(tmp_path / "a.json")
    assert (now["version"], now["rounds_done"]) == (2, result["plan"]["rounds"])
    assert (now["partial"], now["request"]["kind"]) == (None, "full")
    assert now["summary"] == result["summary"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file"),
        ("", "is no JSON"),
        ("\x00\xff", "is no JSON"),
        ("[]", "is no result"),
        ('{"rows": []}', "is no result"),
        ('{"rows": 3, "plan": {"rounds": 1}}', "is no result"),
        ('{"rows": [], "plan": 3}', "is no result"),
        ('{"rows": [], "version": 99}', "is of version 99"),
    ],
)
def test_what_is_no_result_is_refused(content: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises((DataError, RequestError), match=f"a.json: {said}"):
        stored.read(path)


def test_no_result_takes_the_place_of_another(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        path = stored.fresh(tmp_path, "a")
        path.touch()
        names.add(path)
    assert len(names) == 3


def test_a_folder_that_cannot_be_is_told_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RequestError, match="cannot be written to"):
            stored.prepare(folder)
    assert list(stored.prepare(tmp_path / "a" / "b").iterdir()) == []


def test_a_report_of_nothing_is_none() -> None:
    with pytest.raises(RequestError, match="no FILE"):
        report(())
