"""`flax-mnist export` and `flax-mnist import`."""

from __future__ import annotations

import json
import sys

import pytest
from safetensors.numpy import load_file

from flax_mnist.store import run_folder
from tests.helpers.command_line import ask, refused, run, said


def test_export_and_import_round_trip(torch, capsys, data, trained, tmp_path):
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


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.PTH", "w"])
def test_every_export_can_be_imported_again(torch, tutorial, capsys, trained, tmp_path, name):
    file, out = tmp_path / name, tmp_path / "out"
    assert said(capsys, "export", trained, "--output", file) == [f"Written to {file}"]
    if name in ("w.pt", "w.PTH"):
        theirs = torch.load(file, weights_only=True)
        tutorial.build_model((128, 64)).load_state_dict(theirs, strict=True)
    assert said(capsys, "import", file, "--run-dir", out) == [
        f"Imported into {out}: 0, 2, 4 as 784-128-64-10 with ReLU, which a state dict does not tell"
    ]
    whole = (trained / "weights.safetensors").read_bytes()
    assert (out / "weights.safetensors").read_bytes() == whole


def test_a_program_is_exported_by_its_suffix_and_not_imported(capsys, trained, tmp_path):
    file = tmp_path / "digits.stablehlo"
    assert "predict = jax.export.deserialize" in "".join(
        said(capsys, "export", trained, "--output", file)
    )
    assert refused(capsys, "import", file, "--run-dir", tmp_path / "out") == (
        f"1 flax-mnist: {file}: is not read as safetensors, torch.save's file or .npz: it begins "
        "like none of them. (A StableHLO export is not taken apart again.)\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("w.onnx", "w.onnx: there is no export to .onnx. Let it end in .safetensors, .pt, .pth, "),
        ("w.npz", "there is no export to .npz."),
        ("w.pt --format safetensors", "w.pt: a .pt file is not what --format safetensors writes."),
        ("w.safetensors --format stablehlo", "a .safetensors file is not what --format stablehlo"),
    ],
)
def test_a_suffix_that_says_otherwise_is_refused(capsys, trained, tmp_path, output, says):
    name, *flags = output.split()
    said_of_it = refused(capsys, "export", trained, "--output", tmp_path / name, *flags)
    assert said_of_it.startswith("2 ")
    assert says in said_of_it
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_is_asked_for_goes_into_a_file_of_any_other_name(
    torch, capsys, trained, tmp_path
):
    said(capsys, "export", trained, "--output", tmp_path / "w.bin", "--format", "torch")
    assert next(iter(torch.load(tmp_path / "w.bin", weights_only=True))) == "0.weight"


def test_no_pt_file_is_written_where_there_is_no_pytorch(capsys, trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert refused(capsys, "export", trained, "--output", tmp_path / "w.pt") == (
        "2 flax-mnist: A .pt file is written by PyTorch, which is not installed. Install torch, or "
        "export a .safetensors file.\n"
    )


def test_a_whole_model_is_imported_and_predicts_at_once(torch, tutorial, capsys, data, tmp_path):
    file, out = tmp_path / "my_mnist_model.pt", tmp_path / "out"
    torch.manual_seed(0)
    torch.save(tutorial.build_model((16, 12)), file)
    assert said(capsys, "import", file, "--run-dir", out, "--data-dir", data) == [
        f"Imported into {out}: 0, 2, 4 as 784-16-12-10 with ReLU"
    ]
    of_file = said(capsys, "predict", file, "--index", 0, "--data-dir", data, "--json")
    assert of_file == said(capsys, "predict", out, "--index", 0, "--json")


def test_numbers_that_are_widened_are_told_on_stderr(torch, tutorial, capsys, tmp_path):
    file = tmp_path / "w.pt"
    torch.save(tutorial.build_model((16,)).half().state_dict(), file)
    assert ask("import", file, "--run-dir", tmp_path / "out") == 0
    warning = f"WARNING: {file}: float16 was widened to float32."
    assert set(capsys.readouterr().err.splitlines()) == {warning}


def test_nothing_is_imported_into_a_folder_that_has_a_writer(capsys, trained, tmp_path):
    with run_folder.taken(tmp_path, "mnist"):
        assert ask("import", trained / "weights.safetensors", "--run-dir", tmp_path) == 2
    assert "another process is training there" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
