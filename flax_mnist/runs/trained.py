"""Trained weights, from a run folder or a file, and what they make of images."""

import dataclasses
import hashlib
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from flax_mnist import evaluation
from flax_mnist.config import CLASSES, PIXELS, Config, DatasetName
from flax_mnist.data import default_dir
from flax_mnist.data.dataset import DIGITS, Dataset, class_names, load_dataset, require_readable
from flax_mnist.devices import environment
from flax_mnist.errors import FlaxMnistError, FlaxMnistWarning, RequestError
from flax_mnist.files import read
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


class FirstWeights(NamedTuple):
    """Weights that a training begins with."""

    params: Params  #: On the host, in the training's own dtype.
    origin: dict[str, str]  #: The `path` that was given, and the `sha256` of the file.


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
    record = read_config(path) if path.is_dir() else None
    weights = load_weights(_file(path))
    if record:
        config = dataclasses.replace(record.config, hidden_sizes=hidden_sizes(weights))
    else:
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


def _file(path: Path) -> Path:
    """That of the weights of a run folder, or the file itself."""
    return path / run_folder.WEIGHTS if path.is_dir() else path


def first_weights(path: Path, config: Config) -> FirstWeights:
    """The weights of a run folder or a file, for a network of `config`.

    float64 is rounded, with a warning, where the network is not float64.

    Raises:
        RequestError: there are none, or they are another network's.
        DataError: they, or what is recorded of their run, are damaged.
    """
    if path.is_dir():
        read_config(path)  # or it is no run
    weights = load_weights(_file(path))
    sizes = hidden_sizes(weights)
    if sizes != config.hidden_sizes:
        there, here = (" ".join(map(str, s)) for s in (sizes, config.hidden_sizes))
        raise RequestError(
            f"{path}: its hidden sizes are {there}, not {here}. Give --hidden-sizes {there}."
        )
    dtype = np.dtype(make_model(config).param_dtype)
    if weights["0.bias"].dtype.itemsize > dtype.itemsize:
        rounded = f"{path}: its float64 weights are rounded to {dtype}."
        warnings.warn(rounded, FlaxMnistWarning, stacklevel=2)
    params = from_torch_state_dict({k: v.astype(dtype) for k, v in weights.items()})
    digest = hashlib.sha256(read(_file(path))).hexdigest()
    return FirstWeights(params, {"path": str(path.resolve()), "sha256": digest})


def config_of(weights: StateDict) -> Config:
    """What the weights alone tell: hidden sizes, and whether they are float64."""
    wide = weights["0.bias"].dtype == "float64"
    return Config(hidden_sizes=hidden_sizes(weights), precision="float64" if wide else "float32")


def load_images(name: DatasetName | None, data_dir: Path | None, record: Record | None) -> Dataset:
    """The images that are asked for; where nothing is, those of the run, and then by variable."""
    if record is not None and name in (None, record.dataset):
        name, data_dir = record.dataset, data_dir or record.data_dir
    return load_dataset(name or "auto", data_dir or default_dir.named())


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
