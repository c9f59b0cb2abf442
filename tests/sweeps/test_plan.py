"""Which members are trained together: the estimate of their memory, and what is made of it."""

from __future__ import annotations

import dataclasses
import math

import jax
import pytest

from flax_mnist import Config
from flax_mnist.axes import Axes
from flax_mnist.devices import memory
from flax_mnist.devices.memory import member_bytes, shared_bytes
from flax_mnist.sweeps import group
from flax_mnist.sweeps.plan import AT_ONCE, fitting, make_plan

SMALL, LARGE = Config(hidden_sizes=(8,)), Config(hidden_sizes=(512,))


@dataclasses.dataclass(frozen=True)
class Gpu:
    """As far as a plan looks at one."""

    id: int
    platform: str = "gpu"
    process_index: int = 0


@pytest.mark.parametrize(
    "config",
    [
        Config(momentum=0.9),
        Config(hidden_sizes=(16,), batch_size=1000, precision="float64"),
    ],
    ids=["much state", "large batch"],
)
def test_the_estimate_is_what_a_cpus_compiler_needs(dataset, config):
    def needed(members: int) -> int:
        plan = make_plan([config] * members, dataset.counts, jax.devices()[:1], members)
        images = group.place_images(plan, dataset)
        (program,) = group.compile_programs(plan, plan.groups[0], images).train.values()
        sizes = program.memory_analysis()
        given = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
        assert plan.bytes > given + sizes.temp_size_in_bytes
        return given - sizes.alias_size_in_bytes + sizes.temp_size_in_bytes

    with jax.enable_x64(config.precision == "float64"):
        each = (needed(12) - needed(4)) / 8
    assert member_bytes(config, dataset.counts, "cpu") == pytest.approx(each, rel=0.25)


def test_what_does_not_fit_is_cut_evenly(dataset):
    members, devices = [Config(seed=i) for i in range(24)], jax.devices()
    each = member_bytes(members[0], dataset.counts, "cpu")
    shared = shared_bytes(members[0], dataset.counts)

    def sizes(free: float) -> list[int]:
        most = fitting(members, dataset.counts, 1, "cpu", free)
        plan = make_plan(members, dataset.counts, devices[:1], most)
        assert [config for group in plan.groups for config in group.members] == members
        assert [group.start for group in plan.groups] == [
            sum(len(g.members) for g in plan.groups[:i]) for i in range(len(plan.groups))
        ]
        return [len(group.members) for group in plan.groups]

    assert sizes(math.inf) == sizes(shared + 24 * each) == [24]
    assert sizes(shared + 23.5 * each) == [12, 12]
    assert sizes(shared + 10 * each) == [8, 8, 8]
    assert sizes(shared + 7 * each) == [6, 6, 6, 6]
    assert sizes(shared + 1 * each) == sizes(0) == [1] * 24  # one must be tried


def test_however_much_fits_a_group_has_no_more_than_is_of_use():
    members = [Config(seed=i) for i in range(10_000)]
    assert fitting(members, (1000, 200), 2, "cpu", math.inf) == 2 * AT_ONCE["cpu"]


def test_what_fits_is_what_fits_of_the_largest_network(dataset):
    free = shared_bytes(LARGE, dataset.counts) + 3.5 * member_bytes(LARGE, dataset.counts, "gpu")
    assert fitting([SMALL, LARGE, SMALL], dataset.counts, 2, "gpu", free) == 2 * 3


def test_the_memory_is_that_of_the_largest_group_on_all_devices(dataset):
    plan = make_plan([LARGE] * 5 + [SMALL] * 6, dataset.counts, [Gpu(i) for i in range(4)], 100)
    assert [plan.lanes(group) for group in plan.groups] == [8, 8]
    each = member_bytes(LARGE, dataset.counts, "gpu")
    assert plan.bytes == 4 * (shared_bytes(LARGE, dataset.counts) + 2 * each)
    kept = member_bytes(dataclasses.replace(LARGE, validation=10), dataset.counts, "gpu") - each
    assert kept == 4 * (784 * 512 + 512 + 512 * 10 + 10)  # the weights of the best epoch


def test_what_groups_on_a_cpu_free_is_not_all_used_again(dataset, monkeypatch):
    monkeypatch.setattr("flax_mnist.sweeps.plan.peak_memory", lambda: 0)
    each = member_bytes(SMALL, dataset.counts, "cpu")
    shared = shared_bytes(SMALL, dataset.counts)
    for size, groups in ((8, 1), (4, 2)):
        plan = make_plan([SMALL] * 8, dataset.counts, jax.devices()[:1], size)
        assert len(plan.groups) == groups
        again = 4 * (784 * 8 + 8 + 8 * 10 + 10) if groups > 1 else 0
        assert plan.bytes == memory.COMPILING + shared + size * (each + again)


def test_no_device_is_without_a_member_and_groups_share_a_program(dataset):
    plan = make_plan([SMALL] * 3, dataset.counts, [Gpu(i) for i in range(4)], 100)
    assert plan.lanes(plan.groups[0]) == plan.mesh.size == 3
    plan = make_plan([SMALL] * 7, dataset.counts, [Gpu(0)], 4)
    assert [(len(group.members), plan.lanes(group)) for group in plan.groups] == [(4, 4), (3, 4)]


def test_each_network_and_batch_size_has_groups_of_its_own(dataset):
    axes = Axes((0.1, 0.2), (0.0, 0.9), (32, 64), ((8,), (16, 8)), seeds=3)
    plan = make_plan(axes.members(Config()), dataset.counts, jax.devices(), 7)
    kinds = [(g.template.hidden_sizes, g.template.batch_size) for g in plan.groups]
    assert kinds == [
        kind for kind in (((8,), 32), ((8,), 64), ((16, 8), 32), ((16, 8), 64)) for _ in range(2)
    ]
    assert {len(group.members) for group in plan.groups} == {6}
    assert [group.start for group in plan.groups] == list(range(0, 48, 6))
    assert {group.template.momentum for group in plan.groups} == {0.9}
    for group_ in plan.groups:
        assert {(m.hidden_sizes, m.batch_size) for m in group_.members} == {
            (group_.template.hidden_sizes, group_.template.batch_size)
        }
    assert plan.members == axes.members(Config())
