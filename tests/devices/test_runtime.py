"""JAX's settings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import jax
import pytest

from flax_mnist.cli.main import main
from flax_mnist.devices import runtime
from flax_mnist.store import run_folder
from flax_mnist.store.record import read_config
from tests.helpers.command_line import settings_kept


@pytest.fixture
def settings() -> Iterator[None]:
    """What a command sets stays until the test has ended."""
    with settings_kept():
        os.environ["XLA_FLAGS"] = "--xla_cpu_enable_fast_min_max=false"
        yield


def test_deterministic_is_set_noted_and_repeated(settings, data, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    flags = ["--epochs", "1", "--quiet", "--run-dir"]
    assert main(["train", *flags, str(first), "--data-dir", str(data), "--deterministic"]) == 0
    expected = f"--xla_cpu_enable_fast_min_max=false {runtime.DETERMINISTIC}"
    assert os.environ["XLA_FLAGS"] == expected
    assert jax.config.jax_default_matmul_precision == "highest"
    assert main(["train", *flags, str(second), "--config", str(first)]) == 0
    for path in (first, second):
        config = json.loads((path / run_folder.CONFIG).read_text())
        assert config["config"]["deterministic"] is True
        assert config["environment"]["XLA_FLAGS"] == expected
    assert read_config(second).config.deterministic
