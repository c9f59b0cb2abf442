"""The numbers behind the evaluation report, against loops and scipy."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.stats

from flax_mnist import scoring


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities as a mediocre network gives them, and labels without the class 3."""
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 4, 5, 6, 7, 8, 9], 500)
    logits = rng.normal(size=(500, 10)) + 2 * np.eye(10)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), labels.astype(np.int32)


def by_hand(scored: tuple[np.ndarray, np.ndarray]) -> list[tuple[int, int, float]]:
    """Label, predicted class and its probability of each image, in plain Python."""
    rows = [[float(p) for p in row] for row in scored[0]]
    return [(int(y), row.index(max(row)), max(row)) for row, y in zip(rows, scored[1], strict=True)]


def test_confusion_matrix_and_class_accuracy(scored):
    expected = [[0] * 10 for _ in range(10)]
    for label, predicted, _ in by_hand(scored):
        expected[label][predicted] += 1
    confusion = scoring.confusion_matrix(*scored)
    assert confusion.tolist() == expected
    accuracy = scoring.class_accuracy(confusion)
    for i, row in enumerate(expected):
        if sum(row):
            assert accuracy[i] == row[i] / sum(row)
        else:
            assert i == 3
            assert math.isnan(accuracy[i])


@pytest.mark.parametrize("bins", [10, 7])
def test_calibration(scored, bins):
    members: list[list[tuple[bool, float]]] = [[] for _ in range(bins)]
    for label, predicted, confidence in by_hand(scored):
        where = next(m for m in range(bins) if m / bins < confidence <= (m + 1) / bins)
        members[where].append((label == predicted, confidence))
    error = 0.0
    found = scoring.calibration(*scored, bins)
    for m, those in enumerate(members):
        assert found.images[m] == len(those)
        assert found.right[m] == sum(right for right, _ in those)
        if those:
            accuracy = sum(right for right, _ in those) / len(those)
            confidence = sum(c for _, c in those) / len(those)
            assert found.accuracy[m] == pytest.approx(accuracy)
            assert found.confidence[m] == pytest.approx(confidence)
            error += len(those) / 500 * abs(accuracy - confidence)
        else:
            assert math.isnan(found.accuracy[m])
    assert 0 in found.images
    assert found.expected_error == pytest.approx(error)
    assert found.expected_error > 0.01


def test_the_edges_of_the_bins():
    # Exactly representable; the last as float32 rounding can make it.
    confidences = np.array([0.25, 0.5, 0.500001, 0.75, 1.0, 1.0000001])
    rows = np.stack([confidences, np.zeros(6)], axis=1)
    rows[0, 1] = 0.2
    assert scoring.calibration(rows, np.zeros(6, int), 4).images.tolist() == [1, 1, 2, 2]


def test_the_interval_is_wilsons():
    for images in (1, 10, 1009):
        for right in {0, 1, images // 2, images - 1, images}:
            low, high = scoring.interval(np.array([right]), np.array([images]))
            expected = scipy.stats.binomtest(right, images).proportion_ci(method="wilson")
            assert (low[0], high[0]) == pytest.approx(tuple(expected), abs=1e-7)
    low, high = scoring.interval(np.array([0]), np.array([0]))
    assert (low[0], high[0]) == pytest.approx((0, 1))


def test_the_most_confident_mistakes_come_first(scored):
    rows = by_hand(scored)
    wrong = [i for i, (label, predicted, _) in enumerate(rows) if label != predicted]
    expected = sorted(wrong, key=lambda i: -rows[i][2])
    assert len(wrong) > 25
    assert scoring.confident_mistakes(*scored, 25).tolist() == expected[:25]
    assert scoring.confident_mistakes(*scored, 500).tolist() == expected


def test_summary_repeats_the_numbers_and_is_json(scored):
    names = tuple("abcdefghij")
    rows = by_hand(scored)
    said = json.loads(json.dumps(scoring.summary(*scored, names, 25), allow_nan=False))
    right = sum(label == predicted for label, predicted, _ in rows)
    assert (said["images"], said["mistakes"]) == (500, 500 - right)
    assert said["test_accuracy"] == right / 500
    assert said["confusion_matrix"] == scoring.confusion_matrix(*scored).tolist()
    assert [row["name"] for row in said["classes"]] == list(names)
    assert said["classes"][3] == {
        "name": "d", "images": 0, "right": 0, "accuracy": None, "low": 0.0, "high": 1.0,
    }  # fmt: skip
    assert sum(row["right"] for row in said["classes"]) == right
    assert sum(row["images"] for row in said["calibration"]) == 500
    assert [row["up_to"] for row in said["calibration"]] == [i / 10 for i in range(1, 11)]
    assert said["calibration"][0]["accuracy"] is None
    first, *_ = said["most_confident_mistakes"]
    label, predicted, confidence = rows[first["index"]]
    assert (first["label"], first["predicted"]) == (names[label], names[predicted])
    assert first["confidence"] == confidence
    assert len(said["most_confident_mistakes"]) == 25


def test_without_a_mistake(scored):
    labels = scored[1]
    said = scoring.summary(np.eye(10)[labels], labels, tuple("0123456789"), 25)
    json.dumps(said, allow_nan=False)
    assert (said["test_accuracy"], said["mistakes"]) == (1, 0)
    assert (said["expected_calibration_error"], said["most_confident_mistakes"]) == (0, [])
