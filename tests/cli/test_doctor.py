"""`flax-mnist doctor`."""

from __future__ import annotations

import json

from tests.helpers.command_line import said
from tests.helpers.forms import parquet


def found(capsys, *arguments: object) -> dict[str, str]:
    rows = [json.loads(line) for line in said(capsys, "doctor", *arguments, "--json")]
    return {row["name"]: row["value"] for row in rows}


def test_doctor_names_versions_devices_and_data(capsys):
    text = "\n".join(said(capsys, "doctor"))
    for word in ("jax", "optax", "cpu:0", "kmnist", "not on disk", "synthetic"):
        assert word in text
    assert "\ndata-dir" not in text


def test_doctor_looks_at_a_folder(capsys, data, digits, tmp_path, monkeypatch):
    """Whichever form it holds, named by the flag or by the variable."""
    assert found(capsys, "--data-dir", data)["data-dir"] == (
        f"{data}: IDX of mnist, 1,000 and 200 images"
    )
    parquet(tmp_path, digits)
    monkeypatch.setenv("FLAX_MNIST_DATA_DIR", str(tmp_path))
    assert found(capsys)["data-dir"] == f"{tmp_path}: Parquet of mnist, 1,000 and 200 images"


def test_doctor_says_what_is_wrong_with_a_folder(capsys, idx_dir, tmp_path):
    (tmp_path / "empty").mkdir()
    says = found(capsys, "--data-dir", tmp_path / "empty")["data-dir"]
    assert says.startswith(f"NOTHING: {tmp_path / 'empty'}: holds nothing, but none of the forms:")
    assert list((tmp_path / "empty").iterdir()) == []  # nothing is downloaded
    (idx_dir / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "t10k-labels" in found(capsys, "--data-dir", idx_dir)["data-dir"]
    assert "no/where: is no folder" in found(capsys, "--data-dir", "no/where")["data-dir"]
