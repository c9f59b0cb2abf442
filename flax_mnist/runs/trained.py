"""Trained weights, as several subcommands are given them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

from flax_mnist.cli.flags import Machine
from flax_mnist.config import Config, DatasetName
from flax_mnist.data.dataset import Dataset, load_dataset
from flax_mnist.model import MLP, Params, make_model
from flax_mnist.store import run_folder
from flax_mnist.store.record import Record, read_config
from flax_mnist.store.weights import StateDict, from_torch_state_dict, hidden_sizes, load_weights


class TrainedModel(NamedTuple):
    """A network, its weights, and what is known of its run; nothing, where they came as a file."""

    model: MLP
    params: Params
    record: Record | None


def load(path: Path, machine: Machine) -> TrainedModel:
    """The weights of a run folder or a file, on the machine that is asked for."""
    if path.is_dir():
        record = read_config(path)
        weights = load_weights(path / run_folder.WEIGHTS)
        config = dataclasses.replace(record.config, hidden_sizes=hidden_sizes(weights))
    else:
        record = None
        weights = load_weights(path)
        config = config_of(weights)
    machine.start(config)
    params = from_torch_state_dict(weights)
    return TrainedModel(make_model(config), params, record)


def config_of(weights: StateDict) -> Config:
    """What the weights alone tell."""
    wide = weights["0.bias"].dtype == "float64"
    return Config(hidden_sizes=hidden_sizes(weights), precision="float64" if wide else "float32")


def load_images(name: DatasetName | None, data_dir: Path | None, record: Record | None) -> Dataset:
    """The images that are asked for; where nothing is, those of the run."""
    if record is not None and name in (None, record.dataset):
        name, data_dir = record.dataset, data_dir or record.data_dir
    return load_dataset(name or "auto", data_dir)
