"""What has been trained is found again."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from flax_mnist import Config, evaluate, init_state, load_run, save_weights
from flax_mnist.errors import RequestError
from flax_mnist.runs.trained import import_weights
from flax_mnist.runs.training import train

LEARNS = Config(epochs=2, hidden_sizes=(16,), learning_rate=0.05, momentum=0.9)


def test_a_run_is_loaded_whole(dataset, tmp_path):
    config = dataclasses.replace(LEARNS, init="flax")
    run = train(config, dataset, tmp_path / "run")
    loaded = load_run(str(tmp_path / "run"))
    assert (loaded.config, loaded.metrics) == (config, run.metrics)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, run.params)
    score = evaluate(loaded.params, *dataset.test, model=loaded.model)
    assert float(score.loss) == pytest.approx(loaded.metrics[-1].test_loss, rel=1e-6)


def test_one_that_was_imported_has_no_epochs(tmp_path):
    params = init_state(Config(hidden_sizes=(16,))).params
    save_weights(tmp_path / "a.safetensors", params)
    place = tmp_path / "run"
    import_weights(tmp_path / "a.safetensors", place, "mnist", None, lambda _: jax.devices()[0])
    loaded = load_run(place)
    assert (loaded.metrics, loaded.config.hidden_sizes) == ([], (16,))
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)


def test_of_float64_nothing_is_lost_without_a_word(dataset, tmp_path):
    train(dataclasses.replace(LEARNS, precision="float64"), dataset, tmp_path / "run")
    with pytest.raises(RequestError, match="need float64 in JAX"):
        load_run(tmp_path / "run")
    with jax.enable_x64(True):
        assert load_run(tmp_path / "run").params["Dense_0"]["kernel"].dtype == np.float64


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RequestError, match="none: is no run folder"):
        load_run(tmp_path / "none")
    with pytest.raises(RequestError, match=r"no run folder: it has no config\.json"):
        load_run(tmp_path)
