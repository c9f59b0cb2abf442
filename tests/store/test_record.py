"""What is kept of a run besides its weights: settings, where it ran, and metrics."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flax_mnist import __version__
from flax_mnist.config import CheckpointPolicy, Config
from flax_mnist.data.dataset import DIGITS
from flax_mnist.errors import DataError
from flax_mnist.store.metrics import Metrics, append_metrics
from flax_mnist.store.record import Record, read_config, read_environment, write_config
from tests.helpers.command_line import environment

ENVIRONMENT = {"topology": {"devices": 2}, "environment": {"python": "3.11.9"}}
RECORD = Record(
    Config(epochs=7, hidden_sizes=(32,), precision="float64", seed=3),
    "kmnist",
    "a folder",
    Path("/data/kmnist"),
    DIGITS,
    CheckpointPolicy("100steps", 2),
    form="CSV",
    sha256={"train_images": "0" * 64},
)


def test_what_is_written_is_read(tmp_path):
    write_config(tmp_path, RECORD, ENVIRONMENT)
    assert read_config(tmp_path) == RECORD._replace(devices=2)
    assert read_config(tmp_path / "config.json") == RECORD._replace(devices=2)
    assert read_environment(tmp_path) == ENVIRONMENT["environment"]


def test_a_record_of_before_says_nothing_of_the_form(tmp_path):
    write_config(tmp_path, RECORD, ENVIRONMENT)
    content = json.loads((tmp_path / "config.json").read_text())
    del content["dataset"]["form"], content["dataset"]["sha256"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert read_config(tmp_path) == RECORD._replace(devices=2, form=None, sha256=None)


def test_a_relative_folder_of_images_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, RECORD._replace(data_dir=Path("a/../data")), ENVIRONMENT)
    assert read_config(tmp_path).data_dir == tmp_path / "data"
    write_config(tmp_path, RECORD._replace(data_dir=None), ENVIRONMENT)
    assert read_config(tmp_path).data_dir is None


def test_of_imported_weights_only_what_they_tell_is_said(tmp_path):
    write_config(tmp_path, RECORD._replace(checkpoints=None), ENVIRONMENT)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["config"] == {"hidden_sizes": [32], "precision": "float64"}
    assert read_config(tmp_path).config == Config(hidden_sizes=(32,), precision="float64")


@pytest.mark.parametrize("text", ["", "{}", "[]", "1", '{"environment": []}', "[" * 100_000])
def test_without_an_environment_it_is_damaged(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DataError, match=r"config\.json: damaged"):
        read_environment(tmp_path)


def test_reading_what_is_kept_imports_no_library_of_arrays(tmp_path):
    """`flax-mnist runs` shall answer as fast as `--help`."""
    write_config(tmp_path, RECORD, ENVIRONMENT)
    append_metrics(tmp_path, Metrics(1, 2, 0.5, 0.4, 0.9, 1.0, 2.0), "kmnist")
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from flax_mnist.store import metrics, record, run_folder\n"
        "path = Path(sys.argv[1])\n"
        "record.read_config(path), record.read_environment(path), metrics.read_metrics(path)\n"
        "run_folder.create(path / 'other', 'kmnist')\n"
        "print([name for name in ('jax', 'numpy', 'matplotlib') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("config", {"dropout": 0.5}, "its setting 'dropout' is unknown here"),
        ("config", {"precision": "float8"}, "99.10.0; this is "),
        ("dataset", {"name": "emnist"}, "99.10.0; this is "),
    ],
)
def test_what_a_newer_version_wrote_is_not_called_damaged(tmp_path, part, value, says):
    own = {"environment": {"versions": {"flax-mnist": __version__}}}
    newer = {"environment": {"versions": {"flax-mnist": "99.10.0"}}}
    for written_by in (newer, own):
        write_config(tmp_path, RECORD, written_by)
        content = json.loads((tmp_path / "config.json").read_text())
        content[part] |= value
        (tmp_path / "config.json").write_text(json.dumps(content))
        is_known_by_version = written_by is newer or "unknown" in says
        wanted = f"a newer flax-mnist wrote it ({says}" if is_known_by_version else "damaged"
        with pytest.raises(DataError, match=re.escape(f"config.json: {wanted}")):
            read_config(tmp_path)
