"""`flax-mnist plot`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from flax_mnist.cli.main import main
from flax_mnist.show import figures, kernels
from flax_mnist.store.metrics import Metrics, append_metrics, read_metrics
from tests.helpers.networks import random_weights


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with the runs a and b, of two epochs, and c, which has not finished one."""
    folder = tmp_path_factory.mktemp("runs")
    for name in "abc":
        (folder / name).mkdir()
        (folder / name / "metrics.jsonl").touch()
        save_file(random_weights(), folder / name / "weights.safetensors")
    for name, epoch in (("a", 1), ("a", 2), ("b", 1), ("b", 2)):
        row = Metrics(epoch, 16 * epoch, 1 / epoch, 0.9 / epoch, 0.8, 0.2, 3e5)
        append_metrics(folder / name, row, "mnist")
    return folder


@pytest.fixture
def drawn(monkeypatch) -> list[tuple[str, object]]:
    """What the command has drawn."""
    asked: list[tuple[str, object]] = []
    for name in ("draw_curves", "draw_weights"):
        module = {"draw_curves": figures, "draw_weights": kernels}[name]
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


def test_plot_writes_over_no_file(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, more in (("loss.png", ()), ("mine.png", ("--output", "mine.png"))):
        Path(name).write_text("mine")
        assert main(["plot", str(runs / "a"), *more]) == 2
        assert capsys.readouterr().err.startswith(f"flax-mnist: {name}: is there already.")
        assert Path(name).read_text() == "mine"
        assert main(["plot", str(runs / "a"), *more, "--overwrite"]) == 0
        assert Path(name).read_bytes().startswith(b"\x89PNG")


def test_plot_draws_the_first_layers_weights(runs, drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", str(runs / "a"), "--weights"]) == 0
    ((name, kernel),) = drawn
    assert name == "draw_weights"
    np.testing.assert_array_equal(kernel, random_weights()["0.weight"].T)
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
