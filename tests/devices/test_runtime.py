"""JAX's settings."""

from __future__ import annotations

import json

import jax
import pytest

from flax_mnist import Config
from flax_mnist.devices import runtime
from flax_mnist.runs.observers import Observer
from flax_mnist.runs.training import train
from flax_mnist.store import run_folder
from flax_mnist.store.record import read_config
from tests.helpers.command_line import ask


class Precision(Observer):
    """What products are computed in while a network is trained."""

    seen: str | None = None

    def compiled(self, seconds: float) -> None:
        self.seen = jax.config.jax_default_matmul_precision


@pytest.mark.parametrize(("deterministic", "precision"), [(True, "highest"), (False, None)])
def test_deterministic_is_set_for_the_training_alone(data, tmp_path, deterministic, precision):
    config, observer = Config(epochs=1, deterministic=deterministic), Precision()
    before = jax.config.jax_default_matmul_precision
    train(config, "mnist", tmp_path / "run", data_dir=data, observers=[observer])
    assert observer.seen == precision
    assert jax.config.jax_default_matmul_precision == before


def test_deterministic_is_noted_and_repeated(data, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    flags = ("train", "--epochs", 1, "--quiet", "--run-dir")
    assert ask(*flags, first, "--data-dir", data, "--deterministic") == 0
    assert ask(*flags, second, "--config", first) == 0
    for path in (first, second):
        config = json.loads((path / run_folder.CONFIG).read_text())
        assert config["config"]["deterministic"] is True
    assert read_config(second).config.deterministic


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_gpu_is_told_to_repeat_itself(monkeypatch, deterministic):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    expected = {"xla_gpu_deterministic_ops": True} if deterministic else {}
    assert runtime.compiler_options(deterministic) == expected
