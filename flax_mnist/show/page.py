"""A run as one HTML page that needs nothing else: its figures, and a canvas to try it on.

The page itself is `page.html`; here its blanks are filled.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import importlib.resources
import io
import json
import shlex
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from flax_mnist import __version__, scoring
from flax_mnist.config import Config
from flax_mnist.data.dataset import DIGITS, Dataset, Split
from flax_mnist.errors import RequestError
from flax_mnist.model import Params
from flax_mnist.scoring import Floats
from flax_mnist.show.curves import draw_curves
from flax_mnist.show.results import draw_confusion
from flax_mnist.store.metrics import Metrics
from flax_mnist.store.weights import to_torch_state_dict

MAX_WEIGHTS = 20_000_000
"""More make a page of over 100 MB, which no browser opens gladly."""

MISTAKES = 24
_AGREEMENT = {
    "float32": "its percentages are those of flax-mnist predict.",
    "bfloat16": "flax-mnist predict, which computes in bfloat16 for this run, may differ from its "
    "percentages by some tenths.",
    "float64": "its percentages are those of flax-mnist predict, although the weights, float64 in "
    "the run, are rounded to float32 here.",
}


def embedded(params: Params) -> str:
    """The weights as JSON: a list of layers, PyTorch's layouts as little-endian float32 in base64.

    Raises:
        RequestError: there are more than `MAX_WEIGHTS`.
    """
    state_dict = to_torch_state_dict(params)
    weights = sum(array.size for array in state_dict.values())
    if weights > MAX_WEIGHTS:
        raise RequestError(
            f"The network has {weights:,} weights; a report can hold {MAX_WEIGHTS:,}."
        )
    floats = {name: _base64(array.astype("<f4").tobytes()) for name, array in state_dict.items()}
    layers = range(len(params))
    return json.dumps([{k: floats[f"{2 * i}.{k}"] for k in ("weight", "bias")} for i in layers])


def page(
    name: str,
    config: Config,
    environment: Mapping[str, Any],
    metrics: Sequence[Metrics],
    dataset: Dataset,
    loss: float,
    probabilities: Floats,
    network: str,
) -> str:
    """The page, the same for the same run.

    Args:
        name: of the run; like all text here it may hold anything, and is escaped.
        config: of the run.
        environment: from `read_environment`.
        metrics: of its epochs.
        dataset: whose test images were used.
        loss: on them, nats.
        probabilities: of their classes, `[n, 10]`.
        network: from `embedded`.
    """
    template = importlib.resources.files("flax_mnist.show").joinpath("page.html").read_text("utf-8")
    script = template.partition('<script type="module">')[2].partition("</script>")[0]
    confusion = scoring.confusion_matrix(probabilities, dataset.test.labels)
    names = dataset.class_names
    figures = [
        _figure("Training", draw_curves({name: metrics}), "Loss and accuracy by epoch"),
        _figure(
            "Confusion matrix",
            draw_confusion(confusion, names),
            "How many test images of each class are taken for which class",
        ),
        _mistakes(dataset.test, probabilities, names),
    ]
    digits = tuple(names) == DIGITS
    return string.Template(template).substitute(
        # No other script runs, whatever might get into the page.
        script_hash="sha256-" + _base64(hashlib.sha256(script.encode()).digest()),
        title=html.escape(name),
        summary=html.escape(_summary(config, dataset)),
        warning=_warning(dataset),
        scores=_scores(metrics, loss, confusion.trace() / confusion.sum()),
        invitation="Draw a digit" if digits else "Draw one of the ten classes",
        bars="\n".join(_bar(name) for name in names),
        arithmetic="The weights are in this page, which computes with them in double precision: "
        + _AGREEMENT[config.precision],
        figures="\n".join(figures),
        config=_table(
            {"dataset": dataset.name, "images": dataset.source}
            | {k.replace("_", " "): v for k, v in dataclasses.asdict(config).items()}
        ),
        environment=_table(environment),
        version=__version__,
        network=network,
    )


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _summary(config: Config, dataset: Dataset) -> str:
    sizes = "-".join(map(str, (784, *config.hidden_sizes, 10)))
    return (
        f"{sizes} MLP on {dataset.name}: {len(dataset.train.labels):,} training and "
        f"{len(dataset.test.labels):,} test images from {dataset.source}"
    )


def _warning(dataset: Dataset) -> str:
    if dataset.name != "synthetic":
        return ""
    return (
        '<p class="warning"><strong>This is not MNIST.</strong> The network was trained and tested '
        "on synthetic digits, which the program draws itself.</p>"
    )


def _scores(metrics: Sequence[Metrics], loss: float, accuracy: float) -> str:
    scores = {
        "test accuracy": f"{accuracy:.2%}",
        "test loss, nats": f"{loss:.4f}",
        "training, epochs": f"{len(metrics)}",
        "training, seconds": f"{sum(row.seconds for row in metrics):.1f}",
    }
    return "\n".join(
        f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in scores.items()
    )


def _bar(name: str) -> str:
    return (
        f'<tr><th scope="row">{html.escape(name)}</th><td><i></i></td>'
        '<td><data value="0"></data></td></tr>'
    )


def _figure(title: str, figure: Figure, what: str) -> str:
    file = io.BytesIO()
    # By default names within it are random, and it bears a date.
    with matplotlib.rc_context({"svg.hashsalt": "flax-mnist"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    picture = _base64(file.getvalue())
    return (
        f"<section>\n<h2>{title}</h2>\n"
        # Where it is narrow it scrolls, by keyboard too.
        f'<div class="figure" tabindex="0"><img alt="{what}" '
        f'src="data:image/svg+xml;base64,{picture}"></div>\n</section>'
    )


def _mistakes(test: Split, probabilities: Floats, names: Sequence[str]) -> str:
    indices = scoring.confident_mistakes(probabilities, test.labels, MISTAKES)
    items = [
        _mistake(i, test.images[i], names[test.labels[i]], names[row.argmax()], row.max())
        for i, row in zip(indices, probabilities[indices], strict=True)
    ]
    content = "\n".join(["<ul>", *items, "</ul>"]) if items else "<p>There are none.</p>"
    return (
        '<section>\n<h2>Mistakes</h2>\n<p class="faint">Test images that are classified wrongly, '
        "the most confident first: true class → the network’s, and its confidence.</p>\n"
        f"{content}\n</section>"
    )


def _mistake(index: int, image: NDArray[np.uint8], label: str, said: str, confidence: float) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return (
        f'<li><img alt="test image {index}" title="test image {index}" '
        f'src="data:image/png;base64,{_base64(file.getvalue())}">'
        f"{html.escape(label)} → <strong>{html.escape(said)}</strong><br>{confidence:.1%}</li>"
    )


def _table(values: Mapping[str, Any]) -> str:
    return "\n".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>'
        for name, value in _rows(values)
    )


def _rows(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _rows(value)
        elif isinstance(value, list | tuple):
            yield name, shlex.join(map(str, value))
        else:
            yield name, str(value) or "none"
