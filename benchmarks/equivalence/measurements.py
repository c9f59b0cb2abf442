"""The largest difference between the two programs in each part of a training step."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import nn, optim

from benchmarks.equivalence import sides
from benchmarks.equivalence import torch_reference as reference
from flax_mnist import model, train
from flax_mnist.config import Config
from flax_mnist.data.dataset import Split
from flax_mnist.store.weights import StateDict, from_torch_state_dict, to_torch_state_dict


def difference(ours: Any, theirs: Any, relative: bool = False) -> float:
    """The largest between two pytrees of arrays; NaN if there is one in either.

    `relative` is to the largest entry of each of `theirs`.

    Raises:
        ValueError: shapes differ.
    """
    worst = []
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            raise ValueError(f"shapes differ: {a.shape} and {b.shape}")
        worst.append(np.max(np.abs(a - b)) / (np.max(np.abs(b)) if relative else 1))
    return float(np.max(worst))  # not max(): it loses a NaN


def input_difference(config: Config) -> float:
    """Pixels to inputs: each of the 256 values, compiled."""
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    theirs = reference.normalize(images, getattr(torch, config.precision))
    with sides.in_precision(config):
        ours = jax.jit(model.normalize, static_argnums=1)(images, config.precision)
        return difference(ours, theirs.numpy())


def forward_difference(weights: StateDict, split: Split, config: Config) -> float:
    """Logits and log-probabilities, from pixels."""
    network, (inputs, _) = sides.in_torch(weights, config), sides.torch_split(split, config)
    with torch.no_grad():
        theirs = network[:-1](inputs).numpy(), network(inputs).numpy()
    with sides.in_precision(config):
        params, mlp = sides.in_jax(weights, config), model.make_model(config)
        images = model.normalize(split.images, config.precision)
        logits = jax.jit(functools.partial(mlp.apply, method="logits"))({"params": params}, images)
        log_probs = jax.jit(model.log_probs, static_argnums=2)(params, split.images, mlp)
        return difference((logits, log_probs), theirs)


def loss_difference(config: Config) -> float:
    """Both losses, of ordinary logits and of logits up to 10,000; relative."""
    rng = np.random.default_rng(0)
    extreme = np.tile([1e4, -1e4, *rng.normal(size=8)], (10, 1))
    cases = (rng.normal(0, 3, (640, 10)), np.arange(640) % 10), (extreme, np.arange(10))
    ours, theirs = [], []
    for logits, labels in cases:
        scores, targets = torch.tensor(logits.astype(config.precision)), torch.tensor(labels)
        log_probs = nn.LogSoftmax(dim=1)(scores)
        theirs += [nn.NLLLoss()(log_probs, targets), nn.CrossEntropyLoss()(scores, targets)]
        with sides.in_precision(config):
            ours.append(jax.jit(model.nll_loss)(log_probs.numpy(), labels))
            ours.append(jax.jit(model.cross_entropy_loss)(scores.numpy(), labels))
    return difference(ours, theirs, relative=True)


def gradient_difference(weights: StateDict, batch: Split, config: Config) -> float:
    """The gradient of the mean loss by each parameter; relative."""
    theirs = _torch_gradients(weights, batch, config)
    with sides.in_precision(config):
        mlp = model.make_model(config)

        def loss(params: model.Params) -> jax.Array:
            return model.nll_loss(model.log_probs(params, batch.images, mlp), batch.labels)

        ours = jax.jit(jax.grad(loss))(sides.in_jax(weights, config))
        return difference(to_torch_state_dict(ours), theirs, relative=True)


def step_difference(weights: StateDict, batch: Split, config: Config, steps: int) -> float:
    """Loss and parameters of each of `steps` steps on the same batch."""
    network = sides.in_torch(weights, config)
    descent = optim.SGD(network.parameters(), lr=config.learning_rate, momentum=config.momentum)
    batches = [sides.torch_split(batch, config)]
    theirs = []
    for _ in range(steps):
        loss = reference.train_epoch(network, nn.NLLLoss(), descent, batches)
        theirs.append((loss, sides.torch_arrays(network)))
    with sides.in_precision(config):
        mlp, optimizer = model.make_model(config), train.make_optimizer(config)
        params = sides.in_jax(weights, config)
        state, ours = train.State(params, optimizer.init(params)), []
        for _ in range(steps):
            state, value = train.train_step(state, *batch, model=mlp, optimizer=optimizer)
            ours.append((float(value), to_torch_state_dict(state.params)))
            # The next step may overwrite the memory of which the state dict's biases are views.
            state = jax.tree.map(jnp.copy, state)
        return difference(ours, theirs)


def optimizer_difference(weights: StateDict, batches: Sequence[Split], config: Config) -> float:
    """Parameters after each step of the optimizer, given the same gradients: an epoch of batches.

    They are PyTorch's, at the first weights. Each side's own would not do: Adam divides a gradient
    by its size, so that where it is 1e-8 its rounding is 1e8 times as large in the step.
    """
    network = sides.in_torch(weights, config)
    descent = sides.torch_optimizer(network, config, len(batches))
    gradients = [_torch_gradients(weights, batch, config) for batch in batches]
    theirs = []
    for given in gradients:
        for name, parameter in network.named_parameters():
            parameter.grad = torch.tensor(given[name])
        descent.step()
        theirs.append(sides.torch_arrays(network))
    with sides.in_precision(config):
        optimizer, ours = train.make_optimizer(config, len(batches)), []
        params = sides.in_jax(weights, config)
        opt_state = optimizer.init(params)
        update = jax.jit(optimizer.update)
        for given in gradients:
            updates, opt_state = update(from_torch_state_dict(given), opt_state, params)
            params = optax.apply_updates(params, updates)
            ours.append(to_torch_state_dict(params))
        return difference(ours, theirs)


def _torch_gradients(weights: StateDict, batch: Split, config: Config) -> StateDict:
    """Of the mean loss by each parameter, by its name."""
    network, (inputs, targets) = sides.in_torch(weights, config), sides.torch_split(batch, config)
    nn.NLLLoss()(network(inputs), targets).backward()
    return {name: p.grad.numpy() for name, p in network.named_parameters() if p.grad is not None}
