"""The same weights and images on both sides, PyTorch's and JAX's."""

import math
from typing import Any

import jax
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

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


def torch_optimizer(network: nn.Module, config: Config, steps_per_epoch: int) -> optim.Optimizer:
    """torch's optimizer for a network; its rate changes after each step as the config says."""
    parameters, rate = network.parameters(), config.learning_rate
    optimizer: optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = optim.SGD(parameters, lr=rate, momentum=config.momentum)
    elif config.optimizer == "adam":
        optimizer = optim.Adam(parameters, lr=rate)
    elif config.weight_decay is None:
        optimizer = optim.AdamW(parameters, lr=rate)
    else:
        optimizer = optim.AdamW(parameters, lr=rate, weight_decay=config.weight_decay)
    schedule = torch_schedule(optimizer, config, steps_per_epoch)
    optimizer.register_step_post_hook(lambda *_: schedule.step())
    return optimizer


def torch_schedule(
    optimizer: optim.Optimizer, config: Config, steps_per_epoch: int
) -> lr_scheduler.LRScheduler:
    """torch's schedule; with a warm-up, which torch cannot begin at 0, the formula by hand."""
    total, warmup = config.epochs * steps_per_epoch, round(config.warmup * steps_per_epoch)
    if config.schedule == "cosine" and not warmup:
        return lr_scheduler.CosineAnnealingLR(optimizer, total)
    if config.schedule == "linear" and not warmup:
        return lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total)

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        rest = (total - step) / (total - warmup)
        falling = {"linear": rest, "cosine": math.sin(math.pi * rest / 2) ** 2}
        return falling.get(config.schedule, 1.0)

    return lr_scheduler.LambdaLR(optimizer, factor)


def torch_split(split: Split, config: Config) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs [n, 784] and int64 targets [n]."""
    inputs = reference.normalize(split.images, getattr(torch, config.precision))
    return inputs, torch.tensor(split.labels).long()


def in_precision(config: Config) -> Any:
    """The context in which JAX computes in the config's precision."""
    return jax.enable_x64(config.precision == "float64")


def batches(split: Split, count: int, size: int = 64) -> list[Split]:
    """The first `count` batches of `size` images and labels."""
    ends = range(size, count * size + 1, size)
    return [Split(split.images[end - size : end], split.labels[end - size : end]) for end in ends]


def first(split: Split, n: int) -> Split:
    """The first `n` images and labels."""
    return Split(split.images[:n], split.labels[:n])


def torch_arrays(network: nn.Module) -> StateDict:
    """Copies of a network's weights, by name."""
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
