"""`flax-mnist predict`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from benchmarks.equivalence.torch_reference import build_model, normalize
from tests.helpers.command_line import run, said


def test_predict_agrees_with_pytorch(trained, digits, tmp_path):
    path = tmp_path / "é.png"
    Image.fromarray(digits["test_images"][7]).save(path)
    # JSON is JSON, whatever the encoding of stdout.
    done = run(
        "predict",
        trained,
        path,
        "--index",
        0,
        5,
        "--json",
        PYTHONIOENCODING="ascii",
        PYTHONUTF8="0",
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["image"] for row in rows] == [str(path), "mnist test image 0", "mnist test image 5"]
    model = build_model()
    tensors = {k: torch.tensor(v) for k, v in load_file(trained / "weights.safetensors").items()}
    model.load_state_dict(tensors)
    with torch.no_grad():
        expected = model(normalize(digits["test_images"][[7, 0, 5]])).exp().numpy()
    labels = [None, *(str(digits["test_labels"][i]) for i in (0, 5))]
    for row, label, probabilities in zip(rows, labels, expected, strict=True):
        assert row["label"] == label
        assert row["prediction"] == str(probabilities.argmax())
        np.testing.assert_allclose(list(row["probabilities"].values()), probabilities, atol=1e-5)


def test_predict_shows_pictures_in_files_as_it_shows_test_images(capsys, trained, digits, tmp_path):
    path = tmp_path / "a digit.png"
    Image.fromarray(255 - digits["test_images"][7]).save(path)
    by_file = said(capsys, "predict", trained, path)
    by_index = said(capsys, "predict", trained, "--index", 7)
    assert by_file[0].startswith(f"{path}: ")
    assert by_index[0].endswith(f"(label: {digits['test_labels'][7]})")
    assert by_file[1:] == by_index[1:]
    assert len(by_file) == 11
    percentages = [float(line.split()[1].rstrip("%")) for line in by_file[1:]]
    assert sum(percentages) == pytest.approx(100, abs=0.1)
    assert said(capsys, "predict", trained, path, "--invert", "yes") == by_file
    assert said(capsys, "predict", trained, path, "--invert", "no") != by_file
