"""How many networks fit on a device at once."""

import math
import os

import jax

from flax_mnist.config import CLASSES, PIXELS, Config
from flax_mnist.train import GATHERED

#: Of a device's memory, what a sweep may fill: it is only estimated, and not all of it is free.
MEMORY_SHARE = 0.5
#: What compiling, and at the end drawing, add to a process's memory; measured on Linux.
COMPILING = 130_000_000
#: How many times the states of a group a process has besides, when groups have come and gone: the C
#: library does not use again all that they have freed; measured on Linux.
HELD_BACK = 1


def cores() -> int:
    """Into how many devices a CPU is divided, for networks that are trained side by side.

    Two cores that share a step gain little, but each can train a network by itself.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def memory(device: jax.Device) -> float:
    """Bytes that a sweep may fill on the device; infinite where the system does not say."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is None and hasattr(os, "sysconf"):  # CPU devices share the machine's
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        limit = pages * size / jax.local_device_count(device.platform)
    return math.inf if limit is None else MEMORY_SHARE * limit


def member_bytes(config: Config, counts: tuple[int, int], platform: str) -> int:
    """Estimate of what a device needs for each member of a group; see
    `flax_mnist.sweeps.plan.make_plan`.

    The compilers of an H100 and a v5e ask for as much within 25 %, as
    `tests/programs/test_accelerators.py` sees.
    """
    n_train, n_test = counts
    states = state_bytes(config)
    best = _width(config) * _parameters(config) if config.validation else 0
    # A CPU trains one member after the other, into a second array of states.
    training = states if platform == "cpu" else _step_bytes(config, n_train)
    probabilities = _width(config) * CLASSES * n_test  # at the end, when nothing is trained
    order = 4 * n_train
    return states + best + order + max(training, probabilities)


def state_bytes(config: Config) -> int:
    """Of a member's parameters and what its optimizer keeps of them."""
    means = {"sgd": 1 if config.momentum else 0}.get(config.optimizer, 2)
    return _width(config) * _parameters(config) * (1 + means)


def shared_bytes(config: Config, counts: tuple[int, int]) -> int:
    """Estimate of what a device needs besides its members: the images, and one member's test."""
    n_train, n_test = counts
    image_and_label = PIXELS + 4  # uint8 and int32
    testing = _width(config) * n_test * _units(config)
    # Where members are trained one after the other, it is a member's step.
    return image_and_label * sum(counts) + max(testing, _step_bytes(config, n_train))


def _step_bytes(config: Config, n_train: int) -> int:
    """What a member needs while it takes steps: its images, gradients and activations."""
    gathered = PIXELS * max(config.batch_size, min(GATHERED, n_train))
    hidden = sum(config.hidden_sizes) + CLASSES
    activations = config.batch_size * (PIXELS + 2 * hidden)
    return gathered + _width(config) * (_parameters(config) + activations)


def _parameters(config: Config) -> int:
    return config.weights + sum(config.hidden_sizes) + CLASSES


def _units(config: Config) -> int:
    return PIXELS + sum(config.hidden_sizes) + CLASSES


def _width(config: Config) -> int:
    return 8 if config.sums_in_float64 else 4
