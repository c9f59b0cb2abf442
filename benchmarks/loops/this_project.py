"""This project's loops. Every one runs `flax_mnist.train`: nothing of a step is written here."""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.harness.program import Program, Settings, Weights, batches, require
from flax_mnist import model, sweep, train
from flax_mnist.config import Config, Precision
from flax_mnist.data.dataset import Dataset
from flax_mnist.data.order import epoch_order, steps_per_epoch
from flax_mnist.devices import runtime
from flax_mnist.devices.memory import cores
from flax_mnist.runs import loop
from flax_mnist.store.checkpoint import Progress
from flax_mnist.store.weights import to_torch_state_dict
from flax_mnist.sweeps import group
from flax_mnist.sweeps.plan import make_plan


class _Jax(Program):
    def __init__(
        self, dataset: Dataset, settings: Settings, precision: Precision | None = None
    ) -> None:
        precision = precision or settings.config.precision
        self.config = dataclasses.replace(settings.config, precision=precision)
        cached, devices = settings.compilation_cache, self.cpu_devices(settings)
        self.place = runtime.start(settings.device, self.config, cached, devices)
        self.device = self.place.device_kind
        self.dataset, self.n = dataset, len(dataset.train.labels)
        self.numbers = itertools.count()  #: Of the epochs to come.
        self.data = jax.device_put(dataset.train)
        start = time.perf_counter()
        self.state = self.init_state(settings)
        self.run = self.compile(settings)
        self.compile_seconds = time.perf_counter() - start

    def cpu_devices(self, settings: Settings) -> int:
        return 1

    def init_state(self, settings: Settings) -> Any:
        return train.init_state(self.config)

    def compile(self, settings: Settings) -> Any:
        raise NotImplementedError

    def order(self) -> Any:
        """The next epoch's, made while the clock runs: a loop has to shuffle too."""
        return epoch_order(self.config.seed, next(self.numbers), self.n)

    def epoch(self) -> None:
        self.state, self.loss = self.run(self.state, *self.data, self.order())

    def wait(self) -> None:
        jax.block_until_ready(self.state)

    def weights(self) -> list[Weights]:
        # Copies: the next call may overwrite the memory of donated arrays.
        weights = to_torch_state_dict(self.state.params)
        return [{name: np.array(value) for name, value in weights.items()}]

    def device_memory(self) -> int | None:
        statistics = self.place.memory_stats() or {}
        return statistics.get("peak_bytes_in_use") if self.place.platform != "cpu" else None


class EpochScan(_Jax):
    """What `flax-mnist train` runs: a compiled scan over the epoch's batches."""

    def compile(self, settings: Settings) -> Any:
        none = train.no_losses(model.make_model(self.config))
        steps = steps_per_epoch(self.config, self.n)
        start = Progress(self.state, none)
        # One chunk: a network whose epoch the command line cuts is none of the benchmark's.
        run_chunk = loop.compile_chunks(self.config, start, self.dataset.train, steps)

        def run(state: train.State, *images_labels_order: Any) -> tuple[train.State, Any]:
            state, losses = run_chunk(state, none, *images_labels_order)
            return state, losses.total / steps

        return run


class Step(_Jax):
    """One call of the compiled step a batch, the batches gathered by NumPy."""

    def compile(self, settings: Settings) -> Any:
        network, optimizer = model.make_model(self.config), train.make_optimizer(self.config)
        return functools.partial(train.train_step, model=network, optimizer=optimizer)

    def epoch(self) -> None:
        images, labels = self.dataset.train
        losses = []
        for rows in batches(self.order(), self.config.batch_size):
            self.state, loss = self.run(self.state, images[rows], labels[rows])
            losses.append(loss)
        self.loss = np.mean(jax.device_get(losses))


class AllEpochs(_Jax):
    """All epochs in one program: a scan over `train_epoch`."""

    def compile(self, settings: Settings) -> Any:
        self.epochs_per_call = self.config.epochs
        epoch = _train_epoch(self.config)

        def run(state: train.State, images: Array, labels: Array, orders: Array) -> Any:
            return jax.lax.scan(lambda s, order: epoch(s, images, labels, order), state, orders)

        orders = jax.ShapeDtypeStruct((self.config.epochs, self.n), jnp.int32)
        lowered = jax.jit(run, donate_argnums=0).lower(self.state, *self.dataset.train, orders)
        return lowered.compile(compiler_options=runtime.compiler_options())

    def order(self) -> Any:
        return np.stack([super(AllEpochs, self).order() for _ in range(self.config.epochs)])


class ManyModels(_Jax):
    """`train_epoch` under `vmap`: each model with its own weights and its own order."""

    def init_state(self, settings: Settings) -> Any:
        self.models, seed = settings.models, self.config.seed
        self.configs = [dataclasses.replace(self.config, seed=seed + i) for i in range(self.models)]
        return jax.device_put(sweep.stacked_states(self.configs, self.config))

    def compile(self, settings: Settings) -> Any:
        run = jax.vmap(_train_epoch(self.config), in_axes=(0, None, None, 0))
        orders = jax.ShapeDtypeStruct((self.models, self.n), jnp.int32)
        lowered = jax.jit(run, donate_argnums=0).lower(self.state, *self.dataset.train, orders)
        return lowered.compile()

    def order(self) -> Any:
        epoch = next(self.numbers)
        return np.stack([epoch_order(config.seed, epoch, self.n) for config in self.configs])

    def weights(self) -> list[Weights]:
        return [
            to_torch_state_dict(jax.tree.map(lambda leaf, i=i: leaf[i], self.state.params))
            for i in range(self.models)
        ]


class ModelsByCore(ManyModels):
    """What `flax-mnist sweep` runs on a CPU: a device a core, which trains its models in turn."""

    def cpu_devices(self, settings: Settings) -> int:
        # Each has as many models: a sweep would fill up with models that are not counted.
        return math.gcd(settings.models, cores())

    def compile(self, settings: Settings) -> Any:
        require(self.place.platform == "cpu", "on an accelerator a sweep is one vmap")
        devices = jax.local_devices()[: self.cpu_devices(settings)]
        plan = make_plan(self.configs, self.dataset.counts, devices, self.models)
        (self.group,) = plan.groups
        self.images = group.place_images(plan, self.dataset)
        self.begun = group.begin(plan, self.group, self.images).progress
        self.state = self.begun.state
        self.own, _ = sweep.shardings(plan.mesh)
        return group.compile_programs(plan, self.group, self.images)

    def epoch(self) -> None:
        def run(state: train.State, losses: train.Losses, order: Any) -> Any:
            rows = jax.device_put(order, self.own)
            return self.run.train[order.shape[-1]](state, losses, rows, *self.images.train)

        begun = self.begun._replace(state=self.state)
        for progress in loop.rest_of_epoch(self.config, begun, self.order(), run, self.run.chunk):
            self.state, self.loss = progress.state, progress.losses


class FrameworkPrecision(_Jax):
    """The epoch scan, multiplying as JAX does when it is not told how: on NVIDIA GPUs in TF32."""

    def compile(self, settings: Settings) -> Any:
        require(self.place.platform != "cpu", "a CPU has no TF32: it would be J2")
        network = _DefaultPrecision(self.config.hidden_sizes, self.config.init)
        run = functools.partial(_train_epoch(self.config), model=network)
        return jax.jit(run, donate_argnums=0)


class _DefaultPrecision(model.MLP):
    def _linear(self, size: int, x: Array) -> Any:
        return nn.Dense(size, dtype=self.dtype, param_dtype=self.param_dtype)(x)


def _train_epoch(config: Config) -> Callable[..., tuple[train.State, Array]]:
    static = {"model": model.make_model(config), "optimizer": train.make_optimizer(config)}
    return functools.partial(train.train_epoch, batch_size=config.batch_size, **static)
