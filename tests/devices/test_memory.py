"""How many networks fit on a device: the estimate, and what is made of it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import jax
import pytest

from flax_mnist import Config
from flax_mnist.devices.memory import MEMORY_SHARE, make_plan, member_bytes, memory, shared_bytes
from flax_mnist.runs import sweeping


@pytest.mark.parametrize(
    "config",
    [
        Config(momentum=0.9),
        Config(hidden_sizes=(16,), batch_size=1000, precision="float64"),
    ],
    ids=["much state", "large batch"],
)
def test_the_estimate_is_what_the_compiler_needs(dataset, config):
    with jax.enable_x64(config.precision == "float64"):
        plan = make_plan([config] * 8, dataset.counts, jax.devices()[:1], math.inf)
        needed = sweeping.compile_programs(plan, dataset, together=True).train.memory_analysis()
    images = sum(array.nbytes for array in dataset.train)
    state, rest = needed.output_size_in_bytes, needed.temp_size_in_bytes
    member = (needed.argument_size_in_bytes - images + state + rest) / 8
    assert 0.95 < member_bytes(config, dataset.counts) / member < 1.5
    assert plan.bytes > 8 * member + images


def test_what_does_not_fit_is_cut_evenly(dataset):
    members, devices = [Config(seed=i) for i in range(24)], jax.devices()
    each, shared = (f(members[0], dataset.counts) for f in (member_bytes, shared_bytes))

    def sizes(free: float, count: int = 1) -> list[int]:
        return [
            len(g) for g in make_plan(members, dataset.counts, devices[:1] * count, free).groups
        ]

    assert sizes(math.inf) == sizes(shared + 24 * each) == [24]
    assert sizes(shared + 23.5 * each) == [12, 12]
    assert sizes(shared + 10 * each) == [8, 8, 8]
    assert sizes(shared + 7 * each) == [6, 6, 6, 6]
    assert sizes(shared + 1 * each) == sizes(0) == [1] * 24  # one must be tried
    plan = make_plan(members, dataset.counts, devices, shared + 10 * each)
    assert [config for group in plan.groups for config in group] == members
    assert plan.bytes <= shared + 10 * each


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
