"""How much memory a device has."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import pytest

from flax_mnist.devices.memory import MEMORY_SHARE, memory


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads Linux's /proc")
def test_a_cpus_memory_is_the_machines():
    kilobytes = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    expected = MEMORY_SHARE * 1024 * int(kilobytes[1]) / len(jax.devices())
    assert memory(jax.devices()[0]) == pytest.approx(expected, rel=0.01)


def test_an_accelerators_memory_is_its_own():
    class Gpu:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 1000}

    assert memory(Gpu()) == 500
