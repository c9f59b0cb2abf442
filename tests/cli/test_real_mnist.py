"""The tutorial's results, by the command line."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tests.helpers.command_line import said
from tests.helpers.documents import ROOT
from tests.helpers.runs import metrics


@pytest.mark.long
def test_real_mnist_gives_the_tutorials_results(capsys, mnist_dir, tmp_path):
    """Ten seeds against PyTorch's ten: means of the training losses, test loss and accuracy."""
    rows = []
    for seed in range(10):
        out = tmp_path / str(seed)
        flags = ("--dataset", "mnist", "--data-dir", mnist_dir, "--seed", seed)
        said(capsys, "train", *flags, "--run-dir", out)
        rows.append(metrics(out))
    losses = np.mean([[epoch["train_loss"] for epoch in row] for row in rows], axis=0)
    np.testing.assert_allclose(losses, [1.908, 0.860, 0.531, 0.433, 0.387], rtol=0.03)
    last = [row[-1] for row in rows]
    assert np.mean([epoch["test_loss"] for epoch in last]) == pytest.approx(0.3565, abs=0.006)
    assert np.mean([epoch["test_accuracy"] for epoch in last]) == pytest.approx(0.8983, abs=0.0025)

    lines = said(capsys, "predict", tmp_path / "0", "--index", 0, 1, 2, "--json")
    assert [json.loads(line)["prediction"] for line in lines] == ["7", "2", "1"]


QUESTIONS = (ROOT / "docs/questions.md").read_text(encoding="utf-8")
BETTER = re.findall(r"^\| `(--learning-rate .*)` \| ([\d.]+) % \|$", QUESTIONS, re.MULTILINE)


@pytest.mark.long
@pytest.mark.parametrize(("flags", "accuracy"), BETTER)
def test_what_gives_more_than_90_percent_does(capsys, mnist_dir, tmp_path, flags, accuracy):
    out = tmp_path / "run"
    data = ("--dataset", "mnist", "--data-dir", mnist_dir)
    said(capsys, "train", *data, *flags.split(), "--run-dir", out)
    assert metrics(out)[-1]["test_accuracy"] == pytest.approx(float(accuracy) / 100, abs=0.004)
