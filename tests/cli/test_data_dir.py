"""Where images are looked for: the flag, then the run's own place, then `FLAX_MNIST_DATA_DIR`."""

from __future__ import annotations

import json

import pytest

from flax_mnist.store.record import read_config
from tests.helpers.command_line import flags, refused, said


@pytest.fixture
def _named(data, monkeypatch):
    monkeypatch.setenv("FLAX_MNIST_DATA_DIR", str(data))


@pytest.mark.long
@pytest.mark.usefixtures("_named")
def test_every_command_takes_the_folder_that_the_variable_names(capsys, data, weights, tmp_path):
    lines = said(capsys, "train", *flags(epochs=1, run_dir=tmp_path / "run"))
    assert lines[0] == f"mnist: 1,000 training and 200 test images from {data}"
    assert read_config(tmp_path / "run").data_dir == data
    small = flags(epochs=1, seeds=1, hidden_sizes=8, run_dir=tmp_path / "sweep")
    assert said(capsys, "sweep", *small)[0].endswith(f"from {data}")
    assert said(capsys, "evaluate", weights)[0] == f"mnist: 200 test images from {data}"
    (told,) = said(capsys, "predict", weights, *flags(index=0, json=True))
    assert json.loads(told)["image"] == "mnist test image 0"
    said(capsys, "import", weights, *flags(run_dir=tmp_path / "imported"))
    assert said(capsys, "evaluate", tmp_path / "imported")[0].endswith(f"from {data}")
    said(capsys, "report", tmp_path / "run", *flags(output=tmp_path / "page.html"))


def test_a_run_and_a_flag_come_before_it(capsys, data, trained, weights, monkeypatch, tmp_path):
    monkeypatch.setenv("FLAX_MNIST_DATA_DIR", str(tmp_path / "nowhere"))
    assert said(capsys, "evaluate", trained)[0].endswith(f"from {trained.parent / 'idx'}")
    assert said(capsys, "evaluate", weights, *flags(data_dir=data))[0].endswith(f"from {data}")
    again = flags(config=trained / "config.json", dry_run=True)
    assert said(capsys, "train", *again)[0].endswith(f"from {trained.parent / 'idx'}")
    says = refused(capsys, "train", *flags(epochs=1, run_dir=tmp_path / "run"))
    assert says.startswith(f"2 flax-mnist: {tmp_path / 'nowhere'}: is no folder or file to read")
    assert "FLAX_MNIST_DATA_DIR" in says
