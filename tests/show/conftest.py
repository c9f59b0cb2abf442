"""A trained run and pages, for what is read in them and for what a browser makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flax_mnist import Config
from flax_mnist.cli.main import main
from flax_mnist.store import run_folder
from flax_mnist.store.weights import from_torch_state_dict, load_weights
from tests.helpers.idx_files import write_idx_dir
from tests.helpers.pages import render


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory, digits) -> Path:
    """A run of three epochs on the small set; beside it, in `idx`, the set itself."""
    folder = tmp_path_factory.mktemp("page")
    data = write_idx_dir(folder / "idx", digits)
    flags = "--dataset mnist --epochs 3 --learning-rate 0.05 --momentum 0.9"
    places = ["--data-dir", str(data), "--run-dir", str(folder / "run")]
    assert main(["train", *flags.split(), *places]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def params(run_dir) -> dict[str, Any]:
    return from_torch_state_dict(load_weights(run_dir / run_folder.WEIGHTS))


@pytest.fixture(scope="session")
def page_file(run_dir) -> Path:
    path = run_dir.parent / "report.html"
    assert main(["report", str(run_dir), "--output", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def unusual() -> Config:
    """Of a network of another shape."""
    return Config(hidden_sizes=(20, 30, 7), precision="bfloat16")


@pytest.fixture(scope="session")
def unusual_file(tmp_path_factory, digits, unusual) -> Path:
    """The page of that network, on synthetic digits, all of which it recognises."""
    path = tmp_path_factory.mktemp("unusual") / "report.html"
    certain = np.eye(10, dtype=np.float32)[digits["test_labels"]]
    content = render(digits, unusual, dataset_name="synthetic", probabilities=certain)
    path.write_text(content, "utf-8")
    return path
