"""A training as a library call."""

from __future__ import annotations

import dataclasses
import hashlib
import signal

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from flax_mnist import Config, Dataset, evaluate, init_state, train_epoch
from flax_mnist.config import CheckpointPolicy
from flax_mnist.data.order import epoch_order
from flax_mnist.errors import FlaxMnistError, RequestError, StoppedError
from flax_mnist.model import make_model
from flax_mnist.runs.observers import Observer
from flax_mnist.runs.training import train
from flax_mnist.store import checkpoint, run_folder
from flax_mnist.store.metrics import read_metrics
from flax_mnist.store.record import read_config
from flax_mnist.store.weights import to_torch_state_dict
from flax_mnist.train import make_optimizer
from tests.helpers.forms import FORMS, npz

CONFIG = Config(epochs=2, learning_rate=0.05, momentum=0.9, hidden_sizes=(16,))
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Diary(Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def begin(self, start):
        self.told.append(("begin", start.step, start.last_step))

    def compiled(self, seconds):
        self.told.append("compiled")

    def advance(self, step, progress, metrics):
        self.told.append((step, metrics and metrics.epoch))

    def end(self, outcome):
        self.told.append(outcome)


def by_hand(config: Config, dataset: Dataset) -> dict[str, np.ndarray]:
    """The weights after a loop over the pure functions."""
    state = init_state(config)
    for epoch in range(config.epochs):
        state, _ = train_epoch(
            state,
            *dataset.train,
            epoch_order(config.seed, epoch, len(dataset.train.labels)),
            model=make_model(config),
            optimizer=make_optimizer(config),
            batch_size=config.batch_size,
        )
    return to_torch_state_dict(state.params)


def test_it_trains_resumes_and_evaluates_and_leaves_the_process_as_it_was(dataset, tmp_path):
    handlers = [signal.getsignal(signum) for signum in SIGNALS]
    settings = jax.config.jax_enable_x64, jax.config.jax_default_device
    first = train(Config(**vars(CONFIG) | {"epochs": 1}), dataset, tmp_path / "run")
    assert [row.epoch for row in first.metrics] == [1]
    run = train(CONFIG, dataset, first.folder, resume=True)
    assert [row.epoch for row in run.metrics] == [2]
    assert run.metrics == read_metrics(run.folder)[1:]
    for name, weight in by_hand(CONFIG, dataset).items():
        np.testing.assert_allclose(to_torch_state_dict(run.params)[name], weight, atol=1e-6)
        kept = load_file(run.folder / run_folder.WEIGHTS)[name]
        np.testing.assert_array_equal(to_torch_state_dict(run.params)[name], kept)
    score = evaluate(run.params, *dataset.test, model=make_model(run.config))
    assert run.metrics[-1].test_loss == pytest.approx(float(score.loss), rel=1e-6)
    assert [signal.getsignal(signum) for signum in SIGNALS] == handlers
    assert (jax.config.jax_enable_x64, jax.config.jax_default_device) == settings


def test_a_run_that_goes_on_takes_its_own_settings(dataset, tmp_path):
    policy = CheckpointPolicy("10steps", keep=2)
    train(CONFIG, dataset, tmp_path / "run", checkpoints=policy)
    again = train(run_dir=tmp_path / "run", dataset=dataset, resume=True)
    assert (again.config, again.epochs, again.metrics) == (CONFIG, 2, [])
    more = train(Config(**vars(CONFIG) | {"epochs": 3}), dataset, tmp_path / "run", resume=True)
    assert [row.epoch for row in more.metrics] == [3]
    assert checkpoint.steps(tmp_path / "run") == [42, 48]
    other = Config(**vars(CONFIG) | {"momentum": 0.5})
    with pytest.raises(RequestError, match=r"momentum is 0\.5, the run's is 0\.9"):
        train(other, dataset, tmp_path / "run", resume=True)
    with pytest.raises(RequestError, match="holds a run already"):
        train(CONFIG, dataset, tmp_path / "run")


def test_observers_are_told_in_order(dataset, tmp_path):
    diary = Diary()
    policy = CheckpointPolicy("10steps")
    train(CONFIG, dataset, tmp_path / "run", checkpoints=policy, observers=[diary])
    assert diary.told == [
        ("begin", 0, 32), "compiled", (10, None), (16, 1), (26, None), (32, 2), "done",
    ]  # fmt: skip
    diary.told.clear()
    with pytest.raises(FlaxMnistError, match="not finite"):
        train(Config(learning_rate=1e20), dataset, tmp_path / "bad", observers=[diary])
    assert diary.told == [("begin", 0, 80), "compiled", "failed"]


def test_every_observer_is_told_of_the_end_whatever_another_one_does(dataset, tmp_path):
    class Fails(Observer):
        def end(self, outcome):
            raise ValueError("cannot end")

    diary = Diary()
    with pytest.raises(ValueError, match="cannot end"):
        train(CONFIG, dataset, tmp_path / "run", observers=[Fails(), diary])
    assert diary.told[-1] == "done"


def test_whoever_listens_can_stop_it_and_nothing_is_lost(dataset, tmp_path):
    import contextlib

    heard = iter([None, signal.SIGTERM])

    @contextlib.contextmanager
    def listening():
        yield lambda: next(heard)

    policy, diary = CheckpointPolicy("5steps"), Diary()
    with pytest.raises(StoppedError, match=r"terminated after step 10 of 32\. Go on") as stopped:
        train(
            CONFIG, dataset, tmp_path / "run",
            checkpoints=policy, listening=listening, observers=[diary],
        )  # fmt: skip
    assert stopped.value.exit_code == 143
    assert diary.told[-1] == "stopped"
    on = train(CONFIG, dataset, tmp_path / "run", resume=True)
    straight = train(CONFIG, dataset, tmp_path / "straight", checkpoints=policy)
    for ours, theirs in zip(
        jax.tree.leaves(on.params), jax.tree.leaves(straight.params), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.long
def test_every_form_of_the_images_trains_the_same_bytes(tmp_path, data, digits):
    config = Config(epochs=1, hidden_sizes=(8,))
    train(config, "mnist", tmp_path / "run", data_dir=data)
    expected = (tmp_path / "run" / run_folder.WEIGHTS).read_bytes()
    sums = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in digits.items()}
    for number, (write, called) in enumerate(FORMS.values()):
        folder, run = tmp_path / f"data {number}", tmp_path / f"run {number}"
        folder.mkdir()
        write(folder, digits)
        train(config, "mnist", run, data_dir=folder)
        assert (run / run_folder.WEIGHTS).read_bytes() == expected
        record = read_config(run)
        assert (record.form, record.sha256) == (called, sums)


def test_a_run_goes_on_with_its_images_in_another_form_and_with_no_others(tmp_path, data, digits):
    config = Config(epochs=1, hidden_sizes=(8,))
    train(config, "mnist", tmp_path / "run", data_dir=data)
    more = dataclasses.replace(config, epochs=2)
    npz(tmp_path, digits)
    arguments = {"data_dir": tmp_path / "mnist.npz", "resume": True}
    train(more, run_dir=tmp_path / "run", **arguments)
    assert read_config(tmp_path / "run").form == "npz"
    npz(tmp_path, digits, y_train=digits["train_labels"][::-1])
    with pytest.raises(FlaxMnistError, match="images"):
        train(dataclasses.replace(config, epochs=3), run_dir=tmp_path / "run", **arguments)
