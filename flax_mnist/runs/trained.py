"""Trained weights, from a run folder or a file, and what they make of images."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from flax_mnist import evaluation
from flax_mnist.config import CLASSES, PIXELS, Config, DatasetName
from flax_mnist.data import environment as data_environment
from flax_mnist.data.dataset import DIGITS, Dataset, class_names, load_dataset, require_readable
from flax_mnist.devices import environment
from flax_mnist.errors import FlaxMnistError, RequestError
from flax_mnist.model import MLP, Params, make_model
from flax_mnist.store import run_folder
from flax_mnist.store.metrics import Metrics, read_metrics
from flax_mnist.store.record import Record, read_config, write_config
from flax_mnist.store.weights import (
    StateDict,
    from_torch_state_dict,
    hidden_sizes,
    load_weights,
    read_weights,
    save_weights,
)

#: Makes JAX's settings for a config, and returns the device; called before there is any array.
StartJax = Callable[[Config], jax.Device]


class TrainedModel(NamedTuple):
    """A network, its weights, and where they come from."""

    path: Path  #: The run folder or the file.
    model: MLP
    params: Params
    record: Record | None  #: What is known of its run; nothing where the weights came as a file.

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of the run's dataset; where none is known, the digits'."""
        return self.record.class_names if self.record else DIGITS

    @property
    def of_digits(self) -> bool:
        """Whether it was trained on digits, which MNIST's preparation is for."""
        return tuple(self.class_names) == DIGITS


class LoadedRun(NamedTuple):
    """A run that is over, as `load_run` finds it."""

    folder: Path
    config: Config
    model: MLP
    params: Params
    metrics: list[Metrics]  #: Of its epochs; none of a run that was imported.


class Imported(NamedTuple):
    """A run folder that was made of a file of weights."""

    path: Path
    how: str  #: Which layers were read as what network.


def load(path: Path, start: StartJax) -> TrainedModel:
    """The weights of a run folder or a file.

    Raises:
        RequestError: there are none.
        DataError: they, or what is recorded of their run, are damaged.
    """
    if path.is_dir():
        record = read_config(path)
        weights = load_weights(path / run_folder.WEIGHTS)
        config = dataclasses.replace(record.config, hidden_sizes=hidden_sizes(weights))
    else:
        record = None
        weights = load_weights(path)
        config = config_of(weights)
    start(config)
    return TrainedModel(path, make_model(config), from_torch_state_dict(weights), record)


def load_run(folder: Path | str) -> LoadedRun:
    """What a run folder holds.

    Raises:
        RequestError: it holds no run, or one in float64 while `jax_enable_x64` is off.
        DataError: what it holds is damaged.
    """
    path = Path(folder)
    if not path.is_dir():
        raise RequestError(f"{path}: is no run folder.")
    config = read_config(path).config
    trained = load(path, lambda _: jax.devices()[0])
    metrics = read_metrics(path) if (path / run_folder.METRICS).exists() else []
    return LoadedRun(path, config, trained.model, trained.params, metrics)


def config_of(weights: StateDict) -> Config:
    """What the weights alone tell: hidden sizes, and whether they are float64."""
    wide = weights["0.bias"].dtype == "float64"
    return Config(hidden_sizes=hidden_sizes(weights), precision="float64" if wide else "float32")


def load_images(name: DatasetName | None, data_dir: Path | None, record: Record | None) -> Dataset:
    """The images that are asked for; where nothing is, those of the run, and then by variable."""
    if record is not None and name in (None, record.dataset):
        name, data_dir = record.dataset, data_dir or record.data_dir
    return load_dataset(name or "auto", data_dir or data_environment.data_dir())


def score(trained: TrainedModel, dataset: Dataset) -> tuple[float, float]:
    """Loss in nats and accuracy on the test images.

    Raises:
        FlaxMnistError: the loss is not finite.
    """
    scores = evaluation.evaluate(trained.params, *dataset.test, model=trained.model)
    loss, accuracy = map(float, scores)
    if not math.isfinite(loss):
        raise FlaxMnistError(f"{trained.path}: its test loss is {loss}; it did not learn.")
    return loss, accuracy


def class_probabilities(
    trained: TrainedModel, images: UInt8[np.ndarray, "n 28 28"]
) -> Float[np.ndarray, "n classes"]:
    """What the network makes of each image.

    Raises:
        FlaxMnistError: they are not finite.
    """
    probabilities = np.asarray(evaluation.predict(trained.params, images, model=trained.model))
    if not np.isfinite(probabilities).all():
        raise FlaxMnistError(f"{trained.path}: predicts what is not finite.")
    return probabilities


def import_weights(
    file: Path, run_dir: Path, dataset: DatasetName, data_dir: Path | None, start: StartJax
) -> Imported:
    """Makes a run folder from a file that `read_weights` reads.

    The weights were trained on `dataset`, whose images are in `data_dir`.

    Raises:
        RequestError: the file or the folder of images is not there, or the run folder holds a run.
        DataError: the file does not hold such weights.
    """
    weights, layers, activations_known = read_weights(file)
    if data_dir is not None:
        require_readable(data_dir)
    config = config_of(weights)
    device = start(config)
    record = Record(config, dataset, f"weights of {file}", data_dir, class_names(dataset))
    with run_folder.taken(run_dir, dataset) as path:
        save_weights(path / run_folder.WEIGHTS, from_torch_state_dict(weights))
        write_config(path, record, environment.describe(device, config))
    sizes = "-".join(map(str, (PIXELS, *config.hidden_sizes, CLASSES)))
    how = f"{', '.join(layers)} as {sizes} with ReLU"
    return Imported(path, how if activations_known else f"{how}, which a state dict does not tell")
