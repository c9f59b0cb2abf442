"""How many networks fit on a device at once."""

import math
import os
import sys

import jax

from flax_mnist.config import CLASSES, PIXELS, Config
from flax_mnist.train import GATHERED

#: Of a device's memory, what a sweep may fill: it is only estimated, and not all of it is free.
MEMORY_SHARE = 0.5
#: What compiling, and at the end drawing, add to a process's memory; measured on Linux.
COMPILING = 130_000_000


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


def resident() -> int:
    """Bytes of the machine's memory that this process has had at most; 0 where nobody says."""
    try:
        import resource  # Windows has none
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def member_bytes(config: Config, counts: tuple[int, int]) -> int:
    """Estimate of what a device needs for a member while it is trained; see
    `flax_mnist.sweeps.plan.make_plan`."""
    n_train, n_test = counts
    units = PIXELS + sum(config.hidden_sizes) + CLASSES
    weights = config.weights + units
    # The state before an epoch, after it, and in it beside the gradients.
    means = {"sgd": 1 if config.momentum else 0}.get(config.optimizer, 2)
    states = 3 * weights * (1 + means) + weights
    activations = config.batch_size * (2 * units - PIXELS)  # the inputs need no gradients
    probabilities, order = CLASSES * n_test, 4 * n_train
    gathered = PIXELS * max(config.batch_size, min(GATHERED, n_train))
    return _width(config) * (states + activations + probabilities) + gathered + order


def shared_bytes(config: Config, counts: tuple[int, int]) -> int:
    """Estimate of what a device needs besides its members: the images, and one member's test."""
    units = PIXELS + sum(config.hidden_sizes) + CLASSES
    image_and_label = PIXELS + 4  # uint8 and int32
    return image_and_label * sum(counts) + _width(config) * counts[1] * units


def _width(config: Config) -> int:
    return 8 if config.sums_in_float64 else 4
