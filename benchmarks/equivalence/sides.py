"""The same weights and images on both sides, PyTorch's and JAX's."""

from typing import Any

import jax
import torch
from torch import nn

from benchmarks.equivalence import torch_reference as reference
from flax_mnist import model
from flax_mnist.config import Config
from flax_mnist.data.dataset import Split
from flax_mnist.store.weights import StateDict, from_torch_state_dict


def torch_weights(seed: int, config: Config) -> StateDict:
    """The weights that `torch.manual_seed(seed)` gives the tutorial's network."""
    torch.manual_seed(seed)
    state_dict = reference.build_model(config.hidden_sizes).state_dict()
    return {name: tensor.numpy() for name, tensor in state_dict.items()}


def in_torch(weights: StateDict, config: Config) -> nn.Sequential:
    """The tutorial's network with these weights, in the config's precision."""
    network = reference.build_model(config.hidden_sizes, getattr(torch, config.precision))
    network.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return network


def in_jax(weights: StateDict, config: Config) -> model.Params:
    """The parameters with these weights, in the config's precision."""
    dtype = model.make_model(config).param_dtype
    return from_torch_state_dict({k: v.astype(dtype) for k, v in weights.items()})


def torch_split(split: Split, config: Config) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs [n, 784] and int64 targets [n]."""
    inputs = reference.normalize(split.images, getattr(torch, config.precision))
    return inputs, torch.tensor(split.labels).long()


def in_precision(config: Config) -> Any:
    """The context in which JAX computes in the config's precision."""
    return jax.enable_x64(config.precision == "float64")


def first(split: Split, n: int) -> Split:
    """The first `n` images and labels."""
    return Split(split.images[:n], split.labels[:n])


def torch_arrays(network: nn.Module) -> StateDict:
    """Copies of a network's weights, by name."""
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
