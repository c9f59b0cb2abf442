"""`flax-mnist export` and `flax-mnist import`."""

from __future__ import annotations

import json

import torch
from safetensors.numpy import load_file

from flax_mnist.store import run_folder
from tests.helpers.command_line import ask, run, said


def test_export_and_import_round_trip(capsys, data, trained, tmp_path):
    file = tmp_path / "weights.safetensors"
    assert run("export", trained, "--output", file).returncode == 0
    assert file.read_bytes() == (trained / "weights.safetensors").read_bytes()
    torch.save({k: torch.tensor(v) for k, v in load_file(file).items()}, tmp_path / "weights.pt")
    expected = said(capsys, "evaluate", trained)[-1]
    for source, start in ((file, run), (tmp_path / "weights.pt", ask)):
        out = tmp_path / f"from{source.suffix}"
        done = start("import", source, "--run-dir", out, "--data-dir", data)
        assert done == 0 or done.returncode == 0
        assert (out / "weights.safetensors").read_bytes() == file.read_bytes()
        assert said(capsys, "evaluate", out)[-1] == expected
        known = json.loads((out / "config.json").read_text())["config"]
        assert known == {"hidden_sizes": [128, 64], "precision": "float32"}


def test_nothing_is_imported_into_a_folder_that_has_a_writer(capsys, trained, tmp_path):
    with run_folder.taken(tmp_path, "mnist"):
        assert ask("import", trained / "weights.safetensors", "--run-dir", tmp_path) == 2
    assert "another process is training there" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
