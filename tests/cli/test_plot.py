"""`flax-mnist plot`, and the report of `flax-mnist evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from flax_mnist.cli.main import main
from flax_mnist.show import curves, kernels
from flax_mnist.store.metrics import Metrics, append_metrics, read_metrics
from tests.helpers.idx_files import write_idx_dir

PICTURES = ["calibration.png", "classes.png", "confusion.png", "mistakes.png"]


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = {"0": (20, 784), "2": (10, 20)}
    drawn = {f"{i}.weight": rng.normal(size=shape) for i, shape in sizes.items()}
    drawn |= {f"{i}.bias": rng.normal(size=shape[0]) for i, shape in sizes.items()}
    return {name: (array / 20).astype(np.float32) for name, array in drawn.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, weights) -> Path:
    """A folder with the runs a and b, of two epochs, and c, which has not finished one."""
    folder = tmp_path_factory.mktemp("runs")
    for name in "abc":
        (folder / name).mkdir()
        (folder / name / "metrics.jsonl").touch()
        save_file(weights, folder / name / "weights.safetensors")
    for name, epoch in (("a", 1), ("a", 2), ("b", 1), ("b", 2)):
        row = Metrics(epoch, 16 * epoch, 1 / epoch, 0.9 / epoch, 0.8, 0.2, 3e5)
        append_metrics(folder / name, row, "mnist")
    return folder


# ---- plot -----------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch) -> list[tuple[str, object]]:
    """What is asked of `plots`, besides being drawn."""
    asked: list[tuple[str, object]] = []
    for name in ("draw_curves", "draw_weights"):
        module = {"draw_curves": curves, "draw_weights": kernels}[name]
        draw = getattr(module, name)
        monkeypatch.setattr(
            module,
            name,
            lambda what, name=name, draw=draw: asked.append((name, what)) or draw(what),
        )
    return asked


def test_plot_overlays_the_curves_of_runs(runs, drawn, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    a, b = str(runs / "a"), str(runs / "b")
    assert main(["plot", a, b]) == 0
    assert capsys.readouterr() == ("Written to loss.png\n", "")
    expected = {name: read_metrics(Path(name)) for name in (a, b)}
    assert drawn == [("draw_curves", expected)]
    with Image.open("loss.png") as picture:
        assert picture.format == "PNG"
    assert main(["plot", a, "--output", "only a.svg"]) == 0
    assert "<svg" in Path("only a.svg").read_text()


def test_plot_draws_the_first_layers_weights(runs, weights, drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", str(runs / "a"), "--weights"]) == 0
    ((name, kernel),) = drawn
    assert name == "draw_weights"
    np.testing.assert_array_equal(kernel, weights["0.weight"].T)
    with Image.open("weights.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "needs run folders"),
        (("a", "nothing"), "nothing: holds no training run"),
        (("a", "c"), "c: has not finished its first epoch"),
        (("a", "b", "--weights"), "--weights draws one run"),
        (("nothing", "--weights"), "nothing/weights.safetensors: there is no such file"),
        (("a", "--output", "picture.foo"), "'foo' is not supported"),
    ],
)
def test_plot_refuses_with_a_line(runs, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(runs)
    assert main(["plot", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert len(err.splitlines()) == 1
    assert sorted(path.name for path in runs.iterdir()) == ["a", "b", "c"]


# ---- evaluate --report ----------------------------------------------------------------------


def forward(weights: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Probabilities in NumPy's float64."""
    wide = {name: array.astype(float) for name, array in weights.items()}
    x = (images.reshape(-1, 784) / 255 - 0.5) / 0.5
    hidden = np.maximum(x @ wide["0.weight"].T + wide["0.bias"], 0)
    logits = hidden @ wide["2.weight"].T + wide["2.bias"]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def evaluate(runs: Path, data: Path, report: Path) -> int:
    weights = runs / "a" / "weights.safetensors"
    return main(
        ["evaluate", str(weights), "--data-dir", str(data), "--report", str(report)],
    )


def test_the_report_has_what_the_network_says(runs, weights, digits, idx_dir, tmp_path, capsys):
    report = tmp_path / "reports" / "a"
    assert evaluate(runs, idx_dir, report) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-1] == f"Report in {report}"
    assert sorted(path.name for path in report.iterdir()) == [*PICTURES, "report.json"]
    said = json.loads((report / "report.json").read_text(), parse_constant=pytest.fail)
    probabilities = forward(weights, digits["test_images"])
    labels = digits["test_labels"]
    expected = np.zeros((10, 10), int)
    for label, row in zip(labels, probabilities, strict=True):
        expected[label, row.argmax()] += 1
    assert said["confusion_matrix"] == expected.tolist()
    assert said["test_accuracy"] == np.trace(expected) / 200
    loss = -np.log(probabilities[np.arange(200), labels]).mean()
    assert said["test_loss"] == pytest.approx(loss, rel=1e-5)
    assert f"test loss {loss:.4f}  test accuracy {said['test_accuracy']:.2%}" in out
    for mistake in said["most_confident_mistakes"]:
        row = probabilities[mistake["index"]]
        assert mistake["label"] == str(labels[mistake["index"]])
        assert mistake["predicted"] == str(row.argmax())
        assert mistake["confidence"] == pytest.approx(row.max(), rel=1e-5)
    assert said["mistakes"] == 200 - np.trace(expected) > 25
    for name in PICTURES:
        with Image.open(report / name) as picture:
            assert picture.format == "PNG"


def test_a_network_without_mistakes_has_a_report(runs, weights, digits, tmp_path, capsys):
    # Labelled as this network would have it, some classes do not occur.
    labels = forward(weights, digits["test_images"]).argmax(axis=1).astype(np.uint8)
    assert len(set(labels)) < 10
    data = write_idx_dir(tmp_path / "data", digits | {"test_labels": labels})
    assert evaluate(runs, data, tmp_path / "report") == 0
    assert capsys.readouterr().err == ""
    said = json.loads((tmp_path / "report" / "report.json").read_text(), parse_constant=pytest.fail)
    assert (said["test_accuracy"], said["mistakes"], said["most_confident_mistakes"]) == (1, 0, [])
    for i, row in enumerate(said["classes"]):
        assert row["images"] == list(labels).count(i)
        assert row["accuracy"] == (1 if row["images"] else None)


def test_a_file_in_the_reports_place_is_left_alone(runs, idx_dir, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for report in (tmp_path / "file", tmp_path / "file" / "report"):
        assert evaluate(runs, idx_dir, report) == 2
        assert capsys.readouterr().err.startswith(f"flax-mnist: {report}: a file stands in the way")
    assert (tmp_path / "file").read_text() == "mine"
