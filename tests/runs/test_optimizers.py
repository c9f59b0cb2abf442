"""Runs with other optimizers than the tutorial's: they stop and go on as any, and sweep."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal

import jax
import numpy as np
import optax
import pytest

from flax_mnist import Config, fit
from flax_mnist.axes import Axes
from flax_mnist.config import CheckpointPolicy
from flax_mnist.data.validation import hold_out
from flax_mnist.errors import RequestError, StoppedError
from flax_mnist.runs.training import train
from flax_mnist.store import checkpoint, run_folder
from flax_mnist.sweeps.group import kept_params
from flax_mnist.sweeps.plan import Plan
from tests.helpers.checkpoints import put_together, take_apart
from tests.helpers.sweeps import axes, lane, plan_of, single_run, trained

SMALL = Config(epochs=2, hidden_sizes=(16,), learning_rate=0.01)
RECIPES = {
    "adam": {"optimizer": "adam", "learning_rate": 0.003},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.003, "weight_decay": 0.1},
    "cosine": {"schedule": "cosine", "momentum": 0.9},
    "all": {"optimizer": "adamw", "learning_rate": 0.003, "schedule": "linear", "warmup": 0.5},
}
each_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


@contextlib.contextmanager
def after_four_chunks():
    heard = iter([None, None, None, signal.SIGTERM])
    yield lambda: next(heard)


@pytest.mark.long
@each_recipe
def test_a_stopped_run_goes_on_bit_for_bit(dataset, tmp_path, recipe):
    config, policy = dataclasses.replace(SMALL, **recipe), CheckpointPolicy("5steps")
    straight = train(config, dataset, tmp_path / "straight", checkpoints=policy)
    with pytest.raises(StoppedError, match="after step 16 of 32"):
        train(
            config,
            dataset,
            tmp_path / "run",
            checkpoints=policy,
            listening=after_four_chunks,
        )
    run = train(run_dir=tmp_path / "run", dataset=dataset, resume=True)
    weights = [(r.folder / run_folder.WEIGHTS).read_bytes() for r in (run, straight)]
    assert weights[0] == weights[1]
    there, here = (
        checkpoint.read_checkpoint(r.folder / checkpoint.FOLDER / "32.safetensors").arrays
        for r in (run, straight)
    )
    assert there.keys() == here.keys()
    for name, array in there.items():
        np.testing.assert_array_equal(array, here[name], name)
    plain = train(dataclasses.replace(SMALL), dataset, tmp_path / "plain", checkpoints=policy)
    assert (plain.folder / run_folder.WEIGHTS).read_bytes() != weights[0]


@pytest.mark.long
def test_a_schedule_is_spread_over_the_steps_of_all_epochs(dataset, tmp_path):
    config = dataclasses.replace(SMALL, schedule="cosine", validation=200)
    run = train(config, dataset, tmp_path / "run")
    held = hold_out(dataset, 200, config.seed)
    falling = optax.sgd(optax.cosine_decay_schedule(0.01, decay_steps=2 * 13))
    plain = dataclasses.replace(config, schedule="constant", validation=0)
    with jax.numpy_dtype_promotion("standard"):  # which optax's own schedule needs
        fitted = fit(plain, (held.train, held.test), optimizer=falling)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6),
        run.params, fitted.state.params,
    )  # fmt: skip


def test_a_schedule_is_not_stretched_by_more_epochs(dataset, tmp_path):
    config = dataclasses.replace(SMALL, schedule="cosine")
    train(config, dataset, tmp_path / "run")
    longer = dataclasses.replace(config, epochs=3)
    with pytest.raises(RequestError, match=r"epochs is 3, the run's is 2; its schedule is spread"):
        train(longer, dataset, tmp_path / "run", resume=True)


def test_a_checkpoint_of_before_there_were_optimizers_goes_on(dataset, tmp_path):
    config = dataclasses.replace(SMALL, epochs=1)
    run = train(config, dataset, tmp_path / "run")
    longer = dataclasses.replace(config, epochs=2)
    expected = train(longer, dataset, tmp_path / "expected")
    file = run.folder / checkpoint.FOLDER / "16.safetensors"
    header, arrays = take_apart(file.read_bytes())
    new = {"optimizer", "weight_decay", "schedule", "warmup", "validation"}
    said = json.loads(header["__metadata__"]["run"])
    assert new <= said.keys()
    said = {name: value for name, value in said.items() if name not in new}
    header["__metadata__"]["run"] = json.dumps(said)
    file.write_bytes(put_together(header, arrays))
    record = json.loads((run.folder / run_folder.CONFIG).read_text())
    del record["init_from"]
    for name in (*new, "patience", "until_accuracy"):
        del record["config"][name]
    (run.folder / run_folder.CONFIG).write_text(json.dumps(record))
    train(longer, dataset, run.folder, resume=True)
    weights = [(r.folder / run_folder.WEIGHTS).read_bytes() for r in (run, expected)]
    assert weights[0] == weights[1]


@pytest.mark.long
@each_recipe
def test_a_member_of_a_sweep_is_its_single_run(dataset, recipe, monkeypatch):
    monkeypatch.setattr(Plan, "together", True)  # as on an accelerator
    config = dataclasses.replace(SMALL, precision="float64", **recipe)
    members = axes((0.003, 0.05), momenta=(config.momentum,)).members(config)
    with jax.enable_x64(True):
        ((standing, epochs),) = trained(plan_of(members, dataset), dataset)
        for i in (0, 3):
            params, history = single_run(members[i], dataset)
            ours = lane(kept_params(standing), i)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-11), ours, params
            )
            assert epochs[-1][i][1].test_loss == pytest.approx(history[-1][1], abs=1e-11)


@pytest.mark.parametrize(
    ("field", "name"),
    [({"validation": 5, "patience": 1}, "patience"), ({"until_accuracy": 0.9}, "until-accuracy")],
)
def test_a_sweep_trains_all_members_alike(field, name):
    with pytest.raises(RequestError, match=rf"^{name}: not in a"):
        Axes((0.1,), seeds=1).members(Config(**field))
    with pytest.raises(RequestError, match=r"^momentum is 0\.9; .* left out with adam"):
        Axes((0.1,), (0.0, 0.9), seeds=1).members(Config(optimizer="adam"))
