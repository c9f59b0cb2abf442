"""`flax-mnist evaluate`, and its report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from tests.helpers.command_line import ask, refused, run, said
from tests.helpers.idx_files import write_idx_dir
from tests.helpers.networks import random_weights
from tests.helpers.runs import metrics

PICTURES = ["calibration.png", "classes.png", "confusion.png", "mistakes.png"]


def test_evaluate_repeats_what_training_said(capsys, data, trained, tmp_path):
    last = metrics(trained)[-1]
    expected = f"test loss {last['test_loss']:.4f}  test accuracy {last['test_accuracy']:.2%}"
    # From elsewhere: the run knows where its data is.
    done = run("evaluate", trained, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == expected
    weights = trained / "weights.safetensors"
    assert said(capsys, "evaluate", weights, "--data-dir", data)[-1] == expected


def test_the_score_as_json(capsys, data, trained):
    (line,) = said(capsys, "evaluate", trained, "--json")
    told, last = json.loads(line), metrics(trained)[-1]
    assert (told["dataset"], told["images"], told["weights"]) == ("mnist", 200, str(trained))
    assert told["test_accuracy"] == last["test_accuracy"]
    assert told["test_loss"] == pytest.approx(last["test_loss"], rel=1e-6)


def test_weights_that_are_finite_but_compute_nothing_finite(capsys, data, trained, tmp_path):
    weights = load_file(trained / "weights.safetensors")
    file = tmp_path / "weights.safetensors"
    save_file({name: np.full_like(array, 1e30) for name, array in weights.items()}, file)
    assert "1 flax-mnist: " in refused(capsys, "predict", file, "--index", 0, "--data-dir", data)
    assert "1 flax-mnist: " in refused(capsys, "evaluate", file, "--data-dir", data)


@pytest.fixture
def weights_file(tmp_path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file(random_weights(), path)
    return path


def forward(weights: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Probabilities in NumPy's float64."""
    wide = {name: array.astype(float) for name, array in weights.items()}
    x = (images.reshape(-1, 784) / 255 - 0.5) / 0.5
    hidden = np.maximum(x @ wide["0.weight"].T + wide["0.bias"], 0)
    logits = hidden @ wide["2.weight"].T + wide["2.bias"]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def evaluate(weights: Path, data: Path, report: Path) -> int:
    return ask("evaluate", weights, "--data-dir", data, "--report", report)


def test_the_report_has_what_the_network_says(weights_file, digits, data, tmp_path, capsys):
    report = tmp_path / "reports" / "a"
    assert evaluate(weights_file, data, report) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-1] == f"Report in {report}"
    assert sorted(path.name for path in report.iterdir()) == [*PICTURES, "report.json"]
    told = json.loads((report / "report.json").read_text(), parse_constant=pytest.fail)
    probabilities = forward(random_weights(), digits["test_images"])
    labels = digits["test_labels"]
    expected = np.zeros((10, 10), int)
    for label, row in zip(labels, probabilities, strict=True):
        expected[label, row.argmax()] += 1
    assert told["confusion_matrix"] == expected.tolist()
    assert told["test_accuracy"] == np.trace(expected) / 200
    loss = -np.log(probabilities[np.arange(200), labels]).mean()
    assert told["test_loss"] == pytest.approx(loss, rel=1e-5)
    assert f"test loss {loss:.4f}  test accuracy {told['test_accuracy']:.2%}" in out
    for mistake in told["most_confident_mistakes"]:
        row = probabilities[mistake["index"]]
        assert mistake["label"] == str(labels[mistake["index"]])
        assert mistake["predicted"] == str(row.argmax())
        assert mistake["confidence"] == pytest.approx(row.max(), rel=1e-5)
    assert told["mistakes"] == 200 - np.trace(expected) > 25
    for name in PICTURES:
        with Image.open(report / name) as picture:
            assert picture.format == "PNG"


def test_a_network_without_mistakes_has_a_report(weights_file, digits, tmp_path, capsys):
    # Labelled as this network would have it, some classes do not occur.
    labels = forward(random_weights(), digits["test_images"]).argmax(axis=1).astype(np.uint8)
    assert len(set(labels)) < 10
    data = write_idx_dir(tmp_path / "data", digits | {"test_labels": labels})
    assert evaluate(weights_file, data, tmp_path / "report") == 0
    assert capsys.readouterr().err == ""
    told = json.loads((tmp_path / "report" / "report.json").read_text(), parse_constant=pytest.fail)
    assert (told["test_accuracy"], told["mistakes"], told["most_confident_mistakes"]) == (1, 0, [])
    for i, row in enumerate(told["classes"]):
        assert row["images"] == list(labels).count(i)
        assert row["accuracy"] == (1 if row["images"] else None)


def test_a_file_in_the_reports_place_is_left_alone(weights_file, data, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for report in (tmp_path / "file", tmp_path / "file" / "report"):
        assert evaluate(weights_file, data, report) == 2
        assert capsys.readouterr().err.startswith(f"flax-mnist: {report}: a file stands in the way")
    assert (tmp_path / "file").read_text() == "mine"
