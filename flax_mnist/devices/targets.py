"""Accelerators that programs are compiled for, whether or not they are there.

JAX's plugins hold the compilers of TPUs and of NVIDIA's GPUs. Both compile for devices that are
only described to them, on any machine.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax.experimental import topologies

from flax_mnist.devices.environment import version
from flax_mnist.errors import RequestError


class Tpu(NamedTuple):
    """A generation of TPUs."""

    generation: str  #: As libtpu names it.
    shapes: str  #: Of the slices that Google rents out: chips along each axis.
    memory: int  #: Bytes of a chip.
    clock: float | None  #: GHz, if it is known.


class Gpu(NamedTuple):
    """What XLA's compiler asks of a GPU: its `GpuTargetConfigProto`."""

    kind: str  #: As the driver names it.
    compute_capability: int  #: The part before the point.
    multiprocessors: int
    fp32_units: int  #: Of a multiprocessor.
    clock: float  #: GHz.
    memory: int  #: Bytes.
    bandwidth: float  #: Bytes a second.
    l2_cache: int  #: Bytes.
    shared_memory: int  #: Bytes of a multiprocessor.
    shared_memory_of_block: int  #: Bytes, if a kernel asks for them.


# Shapes: https://cloud.google.com/tpu/docs/v5e, .../v5p and .../v6e; of v5p up to 256 chips.
# Memory: `jax.experimental.pallas.tpu.get_tpu_info_for_chip`. Clock: 1.5 GHz for v5e stands in
# https://jax-ml.github.io/scaling-book/tpus, and is what 197 TFLOP/s in bfloat16 by four arrays of
# 128 x 128 come to; 459 TFLOP/s by eight make 1.75 GHz for v5p. Of v6e it is not published.
_FLAT = "1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16"
_TPUS = {
    "tpu-v5e": Tpu("v5e", _FLAT, 17_200_000_000, 1.5),
    "tpu-v5p": Tpu("v5p", "1x1x1 2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8", 103_000_000_000, 1.75),
    "tpu-v6e": Tpu("v6e", _FLAT, 34_400_000_000, None),
}
# https://github.com/openxla/xla, xla/backends/gpu/target_config/specs: a100_sxm_80.txtpb,
# h100_sxm.txtpb, h200.txtpb and b200.txtpb.
_GPUS = {
    "a100": Gpu(
        "NVIDIA A100-SXM4-80GB", 8, 108, 64, 1.41, 85_100_068_864, 2.03904e12, 40 << 20, 167_936,
        166_912,
    ),
    "h100": Gpu(
        "NVIDIA H100 80GB HBM3", 9, 132, 128, 1.98, 84_942_979_072, 3.35232e12, 50 << 20, 233_472,
        232_448,
    ),
    "h200": Gpu(
        "NVIDIA H200 141GB HBM3e", 9, 132, 128, 1.98, 151_397_597_184, 4.8e12, 50 << 20, 233_472,
        232_448,
    ),
    "b200": Gpu(
        "NVIDIA B200", 10, 148, 128, 1.965, 191_514_411_008, 7.67232e12, 132_644_864, 233_472,
        232_448,
    ),
}  # fmt: skip
_COUNTS = "1 2 4 8"  # GPUs of a machine, all joined by NVLink.
# Packages, one of which is needed.
_PLUGINS = {"tpu": ("libtpu",), "cuda13": ("jax-cuda13-pjrt", "jax-cuda12-pjrt")}
# libtpu asks the cloud which machine this is, and complains where nobody answers. It would serve a
# single process at a time, as if there were a TPU to share.
_NO_MACHINE = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}


def names() -> list[str]:
    """All that `find_devices` finds: `tpu-v5e`, `tpu-v5e:2x2`, ..., `b200:8`."""
    sizes = {name: tpu.shapes for name, tpu in _TPUS.items()} | dict.fromkeys(_GPUS, _COUNTS)
    return [
        name if i == 0 else f"{name}:{size}"
        for name, some in sizes.items()
        for i, size in enumerate(some.split())
    ]


def facts(name: str) -> Tpu | Gpu:
    """What is known of a device of a target that `find_devices` finds."""
    kind = name.partition(":")[0]
    return _TPUS[kind] if kind in _TPUS else _GPUS[kind]


def find_devices(name: str) -> list[jax.Device]:
    """The devices of a machine, to be compiled for and nothing else.

    They have a `platform` and a `device_kind` as real ones have, and may be those of a mesh. A TPU
    is a chip or, as in `tpu-v5e:4x4`, a slice of so many, four to a host; of GPUs there may be up
    to eight in a machine, as in `h100:8`.

    Raises:
        RequestError: it is none of `names`, or JAX's plugin for it is missing or fails. That for
            GPUs fails on a machine without one, unless JAX was told `JAX_PLATFORMS=cpu`.
    """
    if name not in names():
        kinds = ", ".join((*_TPUS, *_GPUS))
        raise RequestError(
            f"target {name}: is none. There are {kinds}; more than one as in tpu-v5e:4x4, h100:8."
        )
    kind, _, size = name.partition(":")
    extra = "tpu" if kind in _TPUS else "cuda13"
    if not any(map(version, _PLUGINS[extra])):
        raise RequestError(
            f"target {name}: needs JAX's plugin for it: pip install 'flax-mnist[{extra}]'"
        )
    try:
        return _tpus(_TPUS[kind], size) if kind in _TPUS else _gpus(kind, size or "1")
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise RequestError(
            f"target {name}: JAX's plugin fails: {reason}. Try with JAX_PLATFORMS=cpu."
        ) from error


def _tpus(tpu: Tpu, shape: str) -> list[jax.Device]:
    jax.devices()  # A TPU that is there starts before libtpu hears that there is none.
    single = tpu.shapes.split()[0]
    # A host has four chips, unless it has one.
    bounds = {} if shape else {"chips_per_host_bounds": (1, 1, 1)}
    with _without_machine():
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{tpu.generation}:{shape or single}", **bounds
        )
    return list(topology.devices)


@contextlib.contextmanager
def _without_machine() -> Iterator[None]:
    missing = {name: value for name, value in _NO_MACHINE.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def _gpus(kind: str, count: str) -> list[jax.Device]:
    topology = topologies.get_topology_desc(
        platform="cuda",
        topology_name=kind,
        target_config=_target_config(_GPUS[kind]),
        topology=f"1x1x{count}",  # slices, hosts, devices of a host
    )
    return list(topology.devices)


def _target_config(gpu: Gpu) -> str:
    """A text proto of XLA's `GpuTargetConfigProto`, with the limits that all these GPUs share."""
    accelerated = "ACCELERATED_FEATURES" if gpu.compute_capability >= 9 else "NONE"
    return f"""
        platform_name: "CUDA"
        device_description_str: "{gpu.kind}"
        dnn_version_info {{ major: 9 minor: 10 }}
        gpu_device_info {{
            cuda_compute_capability {{
                major: {gpu.compute_capability}
                feature_extension: {accelerated}
            }}
            core_count: {gpu.multiprocessors}
            fpus_per_core: {gpu.fp32_units}
            clock_rate_ghz: {gpu.clock}
            device_memory_size: {gpu.memory}
            memory_bandwidth: {gpu.bandwidth:.0f}
            l2_cache_size: {gpu.l2_cache}
            shared_memory_per_core: {gpu.shared_memory}
            shared_memory_per_block: 49152
            shared_memory_per_block_optin: {gpu.shared_memory_of_block}
            threads_per_warp: 32
            threads_per_block_limit: 1024
            threads_per_core_limit: 2048
            registers_per_block_limit: 65536
            registers_per_core_limit: 65536
            thread_dim_limit_x: 1024
            thread_dim_limit_y: 1024
            thread_dim_limit_z: 64
            block_dim_limit_x: 2147483647
            block_dim_limit_y: 65535
            block_dim_limit_z: 65535
        }}
    """
