"""A run as one HTML page that needs nothing else: its figures, and a canvas to try it on.

The page itself is `page.html`; here its blanks are filled. A figure in it may have the focus, so
that the keyboard too scrolls it where the window is narrow.
"""

import base64
import dataclasses
import hashlib
import html
import importlib.resources
import io
import json
import shlex
import string
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image

from flax_mnist import __version__, scoring
from flax_mnist.config import Config
from flax_mnist.data.dataset import DIGITS
from flax_mnist.errors import RequestError
from flax_mnist.show import text
from flax_mnist.show.figures import draw_curves
from flax_mnist.show.prediction import Prediction
from flax_mnist.show.results import Findings, draw_calibration, draw_classes, draw_confusion
from flax_mnist.store.metrics import Metrics

MAX_WEIGHTS = 20_000_000  #: More make a page of over 100 MB, which no browser opens gladly.
MOST_MISTAKES = 24

#: Of the page's own arithmetic with that of a run, by the run's precision.
AGREEMENT = {
    "float32": "its percentages are those of flax-mnist predict.",
    "bfloat16": "flax-mnist predict, which computes in bfloat16 for this run, may differ from its "
    "percentages by some tenths.",
    "float64": "its percentages are those of flax-mnist predict, although the weights, float64 in "
    "the run, are rounded to float32 here.",
}

NOT_MNIST = (
    '<p class="warning"><strong>This is not MNIST.</strong> The network was trained and tested '
    "on synthetic digits, which the program draws itself.</p>"
)

# Shown where a figure is wider than the window.
SIDEWAYS = '<p class="faint sideways">Wider than the window: it scrolls sideways.</p>'

# A row of the tables of facts, and one of the canvas's.
ROW = '<tr><th scope="row">{}</th><td>{}</td></tr>'
BAR = '<tr><th scope="row">{}</th><td><i></i></td><td><data value="0"></data></td></tr>'


class History(NamedTuple):
    """How a run was trained."""

    name: str  #: Of the run; like all text of the page it may hold anything, and is escaped.
    config: Config
    environment: Mapping[str, Any]  #: Versions, device and command, as `config.json` has them.
    metrics: Sequence[Metrics]  #: Of its epochs.
    date: str  #: When it began, or last went on.


def require_room(state_dict: Mapping[str, Float[np.ndarray, "*_shape"]]) -> None:
    """Refuses with a `RequestError` a network of more than `MAX_WEIGHTS`."""
    n = sum(array.size for array in state_dict.values())
    if n > MAX_WEIGHTS:
        raise RequestError(f"The network has {n:,} weights; a report can hold {MAX_WEIGHTS:,}.")


def render(
    history: History, findings: Findings, state_dict: Mapping[str, Float[np.ndarray, "*_shape"]]
) -> str:
    """The page, the same for the same run; its own network has the weights of the `state_dict`.

    Raises:
        RequestError: they are more than `MAX_WEIGHTS`.
    """
    require_room(state_dict)
    template = importlib.resources.files("flax_mnist.show").joinpath("page.html").read_text("utf-8")
    script = template.partition('<script type="module">')[2].partition("</script>")[0]
    dataset, config, metrics = findings.dataset, history.config, history.metrics
    confusion = findings.confusion
    mistakes = list(map(_mistake, findings.mistakes(MOST_MISTAKES)))
    return string.Template(template).substitute(
        # No other script runs, whatever might get into the page.
        script_hash="sha256-" + _base64(hashlib.sha256(script.encode()).digest()),
        title=html.escape(history.name),
        summary=html.escape(f"{text.network(config)} on {text.images(dataset)}"),
        warning=NOT_MNIST if dataset.name == "synthetic" else "",
        accuracy=f"{confusion.trace() / confusion.sum():.2%}",
        loss=f"{findings.loss:.4f}",
        epochs=len(metrics),
        seconds=f"{sum(row.seconds for row in metrics):.1f}",
        date=history.date,
        subject="a digit" if dataset.class_names == DIGITS else "one of the ten classes",
        bars="\n".join(BAR.format(html.escape(name)) for name in dataset.class_names),
        agreement=AGREEMENT[config.precision],
        sideways=SIDEWAYS,
        curves=_svg(draw_curves({history.name: metrics})),
        confusion=_svg(draw_confusion(confusion, dataset.class_names)),
        classes=_svg(draw_classes(confusion, dataset.class_names)),
        calibration=_svg(
            draw_calibration(scoring.calibration(findings.probabilities, dataset.test.labels))
        ),
        mistakes="\n".join(
            ["<ul>", *mistakes, "</ul>"] if mistakes else ["<p>There are none.</p>"]
        ),
        config=_table({"dataset": dataset.name, "images": dataset.source} | _settings(config)),
        command=html.escape(shlex.join(["flax-mnist", *history.environment.get("command", ())])),
        environment=_table({k: v for k, v in history.environment.items() if k != "command"}),
        version=__version__,
        network=_network(state_dict),
    )


def _settings(config: Config) -> dict[str, Any]:
    """Those that are given, in words."""
    given = dataclasses.asdict(config).items()
    return {name.replace("_", " "): value for name, value in given if value is not None}


def without_folders(value: Any) -> Any:
    """What a run's record says, all that is in it, with no more of an absolute path than its name.

    Where somebody keeps his files, and what he is called there, is nobody's business.
    """
    match value:
        case dict():
            return {name: without_folders(each) for name, each in value.items()}
        case list():
            return [without_folders(each) for each in value]
        case str():
            head, equals, path = value.rpartition("=")  # a flag and its value may be one word
            return head + equals + (PurePath(path).name if PurePath(path).is_absolute() else path)
    return value


def _svg(figure: Figure) -> str:
    file = io.BytesIO()
    # By default names within it are random, and it bears a date.
    with matplotlib.rc_context({"svg.hashsalt": "flax-mnist"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _base64(file.getvalue())


def _mistake(mistake: Prediction) -> str:
    file = io.BytesIO()
    Image.fromarray(mistake.image).save(file, "PNG")
    return (
        f'<li><img alt="{mistake.title}" title="{mistake.title}" '
        f'src="data:image/png;base64,{_base64(file.getvalue())}">'
        f"{html.escape(str(mistake.label))} → <strong>{html.escape(mistake.likeliest)}</strong>"
        f"<br>{mistake.confidence:.1%}</li>"
    )


def _table(values: Mapping[str, Any]) -> str:
    rows = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows.append(_table(value))
        else:
            is_list = isinstance(value, list | tuple)
            written = " ".join(map(str, value)) if is_list else str(value) or "none"
            rows.append(ROW.format(html.escape(name), html.escape(written)))
    return "\n".join(rows)


def _network(state_dict: Mapping[str, Float[np.ndarray, "*_shape"]]) -> str:
    """The weights as JSON: a list of layers, each array as little-endian float32 in base64."""
    floats = {name: _base64(array.astype("<f4").tobytes()) for name, array in state_dict.items()}
    layers = range(len(state_dict) // 2)
    return json.dumps([{k: floats[f"{2 * i}.{k}"] for k in ("weight", "bias")} for i in layers])


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
