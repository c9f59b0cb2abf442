"""`flax-mnist predict`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.helpers.command_line import run, said
from tests.helpers.pictures import like_mnist


def test_predict_agrees_with_pytorch(torch, tutorial, trained, digits, tmp_path):
    path = tmp_path / "é.png"
    chosen = like_mnist(digits["test_images"][:600])[0]
    Image.fromarray(digits["test_images"][chosen]).save(path)
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
    model = tutorial.build_model()
    tensors = {k: torch.tensor(v) for k, v in load_file(trained / "weights.safetensors").items()}
    model.load_state_dict(tensors)
    with torch.no_grad():
        expected = model(tutorial.normalize(digits["test_images"][[chosen, 0, 5]])).exp().numpy()
    labels = [None, *(str(digits["test_labels"][i]) for i in (0, 5))]
    for row, label, probabilities in zip(rows, labels, expected, strict=True):
        assert row["label"] == label
        assert row["prediction"] == str(probabilities.argmax())
        np.testing.assert_allclose(list(row["probabilities"].values()), probabilities, atol=1e-5)


def test_predict_shows_pictures_in_files_as_it_shows_test_images(capsys, trained, digits, tmp_path):
    path = tmp_path / "a digit.png"
    chosen = like_mnist(digits["test_images"][:600])[0]
    Image.fromarray(255 - digits["test_images"][chosen]).save(path)
    by_file = said(capsys, "predict", trained, path)
    by_index = said(capsys, "predict", trained, "--index", chosen)
    assert by_file[0].startswith(f"{path}: ")
    assert by_index[0].endswith(f"(label: {digits['test_labels'][chosen]})")
    assert by_file[1:] == by_index[1:]
    assert len(by_file) == 11
    percentages = [float(line.split()[1].rstrip("%")) for line in by_file[1:]]
    assert sum(percentages) == pytest.approx(100, abs=0.1)
    assert said(capsys, "predict", trained, path, "--invert", "yes") == by_file
    assert said(capsys, "predict", trained, path, "--invert", "no") != by_file


@pytest.fixture
def pictures(digits, tmp_path):
    """A folder of three files: two digits, one of them beside another, and one that is damaged."""
    chosen = digits["test_images"][like_mnist(digits["test_images"][:600])[:2]]
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(255 - chosen[0]).save(folder / "a.png")
    pair = np.concatenate([np.pad(digit, 8) for digit in chosen], axis=1)
    Image.fromarray(pair).resize((880, 440)).save(folder / "b.png")
    (folder / "c.png").write_bytes((folder / "b.png").read_bytes()[:300])
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_one_bad_picture_does_not_refuse_the_others(trained, pictures):
    done = run("predict", trained, pictures, pictures / "none.png", "--json")
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["image"] for row in rows] == [str(pictures / "a.png"), str(pictures / "b.png")]
    several = "2 digits are on it, the largest is read; --all reads each"
    assert [row["doubts"] for row in rows] == [[], [several]]
    damaged, absent, total = (
        line for line in done.stderr.splitlines() if line.startswith("flax-mnist")
    )
    assert damaged.startswith(f"flax-mnist: {pictures / 'c.png'}: cannot be read as a picture")
    assert absent == f"flax-mnist: {pictures / 'none.png'}: there is no such file."
    assert total == "flax-mnist: 2 of 4 pictures could not be read, see above."
    assert f"WARNING: {pictures / 'b.png'}: {several}." in done.stderr.splitlines()


def test_where_there_is_no_other_the_request_is_wrong(trained, pictures):
    done = run("predict", trained, pictures / "none.png")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"flax-mnist: {pictures / 'none.png'}: there is no such file.\n"
    empty = pictures / "empty"
    empty.mkdir()
    done = run("predict", trained, empty)
    assert done.returncode == 2
    assert done.stderr.startswith(f"flax-mnist: {empty}: holds no pictures (PNG, JPEG,")


def test_all_digits_of_a_picture_from_left_to_right(capsys, trained, pictures):
    path = pictures / "b.png"
    lines = said(capsys, "predict", trained, path, "--all", "--json")
    rows = [json.loads(line) for line in lines]
    assert [row["image"] for row in rows] == [f"{path} (1 of 2)", f"{path} (2 of 2)"]
    assert [row["doubts"] for row in rows] == [[], []]


def test_the_output_shows_the_picture_beside_what_was_read(capsys, trained, pictures, tmp_path):
    output = tmp_path / "out.png"
    said(capsys, "predict", trained, pictures / "a.png", "--index", 0, "--output", output)
    with Image.open(output) as drawn:
        with_picture = drawn.size
    said(capsys, "predict", trained, "--index", 0, 1, "--output", output)
    with Image.open(output) as drawn:
        assert with_picture[0] == pytest.approx(1.5 * drawn.width, rel=0.01)
