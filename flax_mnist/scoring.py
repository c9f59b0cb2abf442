"""How well a network did on labelled images, beyond its loss and accuracy.

The class that the network says is the likeliest one; how likely it is, is its confidence.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

BINS = 10
Z95 = 1.959964  #: Of the normal distribution 95 % lie within so many standard deviations.


class Calibration(NamedTuple):
    """Whether the network is right as often as it says; an entry for each bin of confidence."""

    #: From 0 to 1. A bin is without its lower and with its upper edge.
    edges: Float[np.ndarray, " bins+1"]
    images: Int[np.ndarray, " bins"]  #: How many have a confidence in the bin.
    right: Int[np.ndarray, " bins"]  #: How many of them are classified rightly.
    confidence: Float[np.ndarray, " bins"]  #: Mean over the bin's images; NaN where there are none.

    @property
    def accuracy(self) -> Float[np.ndarray, " bins"]:
        """Share of the bin's images that are classified rightly; NaN where there are none."""
        return _ratio(self.right, self.images)

    @property
    def expected_error(self) -> float:
        """Mean over all images of `|accuracy - confidence|` of their bins, 0 to 1.

        The expected calibration error of Guo et al. 2017, https://arxiv.org/abs/1706.04599, eq. 3.
        """
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gaps * self.images) / max(self.images.sum(), 1))


def calibration(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], bins: int = BINS
) -> Calibration:
    """Sorts the images into so many bins of equal width by their confidence."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    edges = np.arange(bins + 1) / bins
    # The sum of a row, and with it a confidence, may be above 1 by a rounding error.
    where = np.searchsorted(edges[1:-1], confidence)
    images = np.bincount(where, minlength=bins)
    right = np.bincount(where[probabilities.argmax(axis=1) == labels], minlength=bins)
    total = np.bincount(where, weights=confidence, minlength=bins)
    return Calibration(edges, images, right, _ratio(total, images))


def confusion_matrix(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]
) -> Int[np.ndarray, "classes classes"]:
    """How many images of the row's class are said to be of the column's."""
    classes = probabilities.shape[1]
    cells = labels * classes + probabilities.argmax(axis=1)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def class_accuracy(confusion: Int[np.ndarray, "classes classes"]) -> Float[np.ndarray, " classes"]:
    """Share of a class's images that are recognised; NaN of a class without images."""
    return _ratio(confusion.diagonal(), confusion.sum(axis=1))


def confident_mistakes(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], most: int
) -> Int[np.ndarray, " mistakes"]:
    """Which images are classified wrongly, the highest confidence first; at most so many."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities.max(axis=1)[wrong], kind="stable")[:most]]


def interval(
    right: Int[np.ndarray, " n"], images: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Between which shares the true one lies, of which `right` of `images` is a sample.

    The 95 % score interval of Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953. Of no
    images it is 0 to 1: nothing is known.
    """
    centre = (right + Z95**2 / 2) / (images + Z95**2)
    spread = right * (images - right) / np.maximum(images, 1) + Z95**2 / 4
    half = Z95 * np.sqrt(spread) / (images + Z95**2)
    return np.maximum(centre - half, 0), np.minimum(centre + half, 1)


def summary(
    probabilities: Float[np.ndarray, "n classes"],
    labels: Int[np.ndarray, " n"],
    names: Sequence[str],
    most_mistakes: int,
) -> dict[str, Any]:
    """All of the above for JSON: None where there is no number."""
    confusion = confusion_matrix(probabilities, labels)
    right, images = confusion.diagonal(), confusion.sum(axis=1)
    accuracy, (low, high) = class_accuracy(confusion), interval(right, images)
    bins = calibration(probabilities, labels)
    counts = bins._asdict()
    edges = counts.pop("edges")
    wrong = confident_mistakes(probabilities, labels, most_mistakes)
    classes, mistaken = np.array(names), probabilities[wrong]
    return {
        "images": len(labels),
        "test_accuracy": float(right.sum() / len(labels)),
        "classes": _rows(
            name=classes, images=images, right=right, accuracy=accuracy, low=low, high=high
        ),
        "confusion_matrix": confusion.tolist(),
        "expected_calibration_error": bins.expected_error,
        "calibration": _rows(above=edges[:-1], up_to=edges[1:], **counts, accuracy=bins.accuracy),
        "mistakes": len(labels) - int(right.sum()),
        "most_confident_mistakes": _rows(
            index=wrong,
            label=classes[labels[wrong]],
            predicted=classes[mistaken.argmax(axis=1)],
            confidence=mistaken.max(axis=1),
        ),
    }


def _rows(**columns: NDArray[Any]) -> list[dict[str, Any]]:
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [
        {name: None if x != x else x for name, x in zip(columns, row, strict=True)} for row in rows
    ]


def _ratio(
    part: Float[np.ndarray, " n"] | Int[np.ndarray, " n"], whole: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    nothing = np.full(len(whole), np.nan)
    ratio: Float[np.ndarray, " n"] = np.divide(part, whole, out=nothing, where=whole > 0)
    return ratio
