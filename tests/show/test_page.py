"""The page of a run: what stands in it, and what is refused."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shlex
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from flax_mnist import predict
from flax_mnist.cli.main import main
from flax_mnist.devices.environment import version
from flax_mnist.errors import RequestError
from flax_mnist.model import MLP
from flax_mnist.show import page
from flax_mnist.store import run_folder
from flax_mnist.store.weights import load_weights


def text_of(page: str) -> str:
    """What a person reads: without scripts, styles and tags."""
    body = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_the_runs_figures_stand_in_it(run_dir, page_file, params, digits):
    text = text_of(page_file.read_text("utf-8"))
    last = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"test accuracy {last['test_accuracy']:.2%}" in text
    assert f"test loss, nats {last['test_loss']:.4f}" in text
    assert "784-128-64-10 MLP on mnist: 1,000 training and 200 test images" in text
    assert "learning rate 0.05" in text
    assert "hidden sizes 128 64" in text
    assert f"jax {version('jax')}" in text
    assert "synthetic" not in text

    probabilities = np.asarray(predict(params, digits["test_images"], model=MLP()))
    said, labels = probabilities.argmax(1), digits["test_labels"]
    wrong = [i for i in np.argsort(-probabilities.max(1)) if said[i] != labels[i]][:24]
    shown = re.findall(r"(\d) → (\d) (\S+%)", text)
    assert shown == [(str(labels[i]), str(said[i]), f"{probabilities[i].max():.1%}") for i in wrong]


def test_it_says_when_and_by_which_command(page_file, run_dir):
    page = page_file.read_text("utf-8")
    started = datetime.fromtimestamp((run_dir / "config.json").stat().st_mtime)
    assert f"trained on {started:%Y-%m-%d}" in text_of(page)
    (command,) = re.findall(r"<pre><code>(.*?)</code></pre>", page)
    program, *arguments = shlex.split(html.unescape(command))
    recorded = json.loads((run_dir / "config.json").read_text())["environment"]["command"]
    assert program == "flax-mnist"
    assert arguments == [re.sub("(^|=)/(.*/)?", r"\1", word) for word in recorded]
    assert "command" not in text_of(page.partition("<h2>Environment</h2>")[2])


def test_each_class_and_the_calibration_are_drawn(page_file):
    headings = re.findall(r"<h2>(.*?)</h2>.*?</section>", page_file.read_text("utf-8"), re.DOTALL)
    assert {"Classes", "Calibration"} <= set(headings)
    assert page_file.read_text("utf-8").count('src="data:image/svg+xml;base64,') == 4


def test_where_things_are_on_this_machine_is_told_only_who_asks(page_file, run_dir, tmp_path):
    data = run_dir.parent / "idx"
    assert str(run_dir.parent) not in page_file.read_text("utf-8")
    assert " test images from idx" in text_of(page_file.read_text("utf-8"))
    everything = tmp_path / "everything.html"
    assert main(["report", str(run_dir), "--paths", "--output", str(everything)]) == 0
    told = text_of(everything.read_text("utf-8"))
    assert f" test images from {data}" in told


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ("/data/j doe/mnist", "mnist"),
        ("--data-dir=/data/jdoe/mnist", "--data-dir=mnist"),
        ("runs/first", "runs/first"),
        (["train", "/a/b"], ["train", "b"]),
        ({"a": {"b": "/c/d"}, "n": None}, {"a": {"b": "d"}, "n": None}),
    ],
)
def test_of_a_path_the_name_remains(recorded, shown):
    assert page.without_folders(recorded) == shown


def test_mistakes_are_shown_as_they_are(page_file, digits):
    page = page_file.read_text("utf-8")
    shown = re.findall(r'alt="test image (\d+)".*?base64,([^"]+)"', page)
    assert len(shown) == 24
    for index, png in shown:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
        np.testing.assert_array_equal(pixels, digits["test_images"][int(index)])


def test_what_is_said_only_where_it_holds(page_file, unusual_file):
    usual, unusual = (text_of(file.read_text("utf-8")) for file in (page_file, unusual_file))
    for words in ("This is not MNIST.", "There are none.", "some tenths"):
        assert words in unusual
        assert words not in usual
    assert "are those of flax-mnist predict." in usual


def test_the_weights_are_the_runs_bit_for_bit(page_file, run_dir):
    page = page_file.read_text("utf-8")
    layers = json.loads(re.search(r'id="network"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    weights = load_weights(run_dir / run_folder.WEIGHTS)
    assert len(weights) == 2 * len(layers)
    for i, layer in enumerate(layers):
        for kind in ("weight", "bias"):
            array = weights[f"{2 * i}.{kind}"]
            ours = np.frombuffer(base64.b64decode(layer[kind]), "<f4").reshape(array.shape)
            np.testing.assert_array_equal(ours, array, strict=True)


def test_the_same_run_gives_the_same_bytes(page_file, run_dir, tmp_path):
    assert main(["report", str(run_dir), "--output", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_bytes() == page_file.read_bytes()


def test_nothing_in_it_is_elsewhere(page_file):
    page = page_file.read_text("utf-8")
    assert set(re.findall(r"""\b(?:src|href|srcset|action)=["']?(\w+:)""", page)) == {"data:"}
    for svg in re.findall(r"svg\+xml;base64,([^\"]+)", page):
        links = re.findall(r'href="([^"]{,5})', base64.b64decode(svg).decode())
        assert all(link.startswith(("#", "data:")) for link in links)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "--output", "none/a.html"], 2, "there is no folder"),
        (["run", "--data-dir", "none", "--output", "a.html"], 2, "none: "),
        (["idx", "--output", "a.html"], 2, "idx: is no run folder"),
        (["run/weights.safetensors", "--output", "a.html"], 2, "safetensors: is no run folder"),
        (["imported", "--output", "a.html"], 2, "imported: holds no training run"),
        (["early", "--output", "a.html"], 2, "early: has not finished its first epoch"),
        (["damaged", "--output", "a.html"], 1, "config.json: damaged: it has no environment"),
        (["huge", "--output", "a.html"], 1, "huge: its test loss is nan; it did not learn"),
    ],
    ids=["output", "data", "no run", "a file", "imported", "early", "damaged", "not finite"],
)
def test_refusals_take_a_line_and_leave_nothing(
    run_dir, monkeypatch, capsys, arguments, code, says
):
    monkeypatch.chdir(run_dir.parent)
    if arguments[0] == "imported":
        assert main(["import", "run/weights.safetensors", "--run-dir", "imported"]) == 0
    elif arguments[0] == "early":
        shutil.copytree("run", "early")
        Path("early/metrics.jsonl").write_text("")
    elif arguments[0] == "damaged":
        shutil.copytree("run", "damaged")
        config = json.loads(Path("damaged/config.json").read_text())
        Path("damaged/config.json").write_text(json.dumps(config | {"environment": None}))
    elif arguments[0] == "huge":
        shutil.copytree("run", "huge")
        weights = load_file("run/weights.safetensors")
        huge = {name: np.full_like(array, 1e30) for name, array in weights.items()}
        save_file(huge, "huge/weights.safetensors")
    assert main(["report", *arguments]) == code
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not Path("a.html").exists()


def test_a_network_that_no_browser_would_open_is_refused():
    a_weight = np.zeros(1, np.float32)  # seen as many: none of them takes memory
    most = {
        "0.weight": np.broadcast_to(a_weight, (4, 4_999_999)),
        "0.bias": np.broadcast_to(a_weight, (4,)),
    }
    page.require_room(most)
    most["0.bias"] = np.broadcast_to(a_weight, (5,))
    with pytest.raises(RequestError, match=r"has 20,000,001 weights; a report can hold 20,000,000"):
        page.require_room(most)
