"""JAX's process-wide settings, made once, before its first use."""

import contextlib
import importlib
import os
import shutil
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import jax

from flax_mnist.config import Config
from flax_mnist.errors import FlaxMnistWarning, RequestError
from flax_mnist.files import cache_dir

DeviceName = Literal["auto", "cpu", "gpu", "tpu"]  #: Kinds of devices; `auto` is JAX's choice.

_EXTRAS = {"gpu": "flax-mnist[cuda13] or [cuda12]", "tpu": "flax-mnist[tpu]"}
# Settings that help to find mistakes, and break a program that has none: a loss is looked at by
# itself, a member of a sweep may diverge, programs are compiled before they are called.
_PINNED: dict[str, object] = {
    "jax_disable_jit": False,
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_transfer_guard_host_to_device": "allow",
    "jax_transfer_guard_device_to_device": "allow",
    "jax_transfer_guard_device_to_host": "allow",
}
#: What `start` changes, and a caller may want back.
SETTINGS = (
    "jax_compilation_cache_dir", "jax_default_device", "jax_default_matmul_precision",
    "jax_enable_compilation_cache", "jax_enable_x64", "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes", "jax_platforms", *_PINNED,
)  # fmt: skip
# Below it a disk is nearly full, and a compiled program might be kept by half.
_ROOM = 10_000_000  # Bytes.
_CHECKED = "checked"


def start(
    device: DeviceName, config: Config, compilation_cache: bool = True, cpu_devices: int = 1
) -> jax.Device:
    """`start_devices` and `set_precision` in one."""
    chosen = start_devices(device, compilation_cache, cpu_devices)
    set_precision(config)
    return chosen


def start_devices(
    device: DeviceName, compilation_cache: bool = True, cpu_devices: int = 1
) -> jax.Device:
    """Chooses the device that everything runs on; `auto` is JAX's choice: TPU, then GPU, then CPU.

    With `compilation_cache` compiled programs are kept in the user's cache folder, unless JAX was
    given another by `JAX_COMPILATION_CACHE_DIR`, or `JAX_ENABLE_COMPILATION_CACHE` is false. The
    CPU is divided into `cpu_devices`, if this is JAX's first use.

    Raises:
        RequestError: there is no such device; the message names those there are.
    """
    for name, value in _PINNED.items():
        jax.config.update(name, value)
    if not compilation_cache:
        jax.config.update("jax_enable_compilation_cache", False)
    elif "JAX_COMPILATION_CACHE_DIR" not in os.environ and (folder := cache_dir()):
        _keep_compiled(folder / "compiled")
    if cpu_devices > 1:
        with contextlib.suppress(RuntimeError):  # too late: it stays as it is
            jax.config.update("jax_num_cpu_devices", cpu_devices)
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")  # leaves an accelerator to others
    try:
        chosen = jax.local_devices(backend=None if device == "auto" else device)[0]
    except Exception as error:  # RuntimeError, or AssertionError where a plugin is missing
        raise RequestError(_no_device(device)) from error
    jax.config.update("jax_default_device", chosen)
    return chosen


def set_precision(config: Config) -> None:
    """Switches float64 on in JAX where `config` needs it, and lower precisions off."""
    jax.config.update("jax_enable_x64", config.sums_in_float64)
    precision = "highest" if config.deterministic else None
    jax.config.update("jax_default_matmul_precision", precision)


@contextlib.contextmanager
def settings_restored() -> Iterator[None]:
    """After the block JAX's settings are what they were before it."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def compiler_options(
    deterministic: bool = False, platform: str | None = None
) -> dict[str, str | bool]:
    """What XLA is told besides `XLA_FLAGS`; a scheduler named there is left alone.

    The platform is a device's, by default that of JAX's default device.

    By itself XLA orders a program for the CPU so that independent instructions can overlap. A step
    this small has no use for that: in the order that needs the least memory it is 1.2 to 1.35 times
    as fast (`benchmarks/NOTES.md`), and its results have the same bits. A GPU that shall be
    deterministic adds in a fixed order, and does not pick the kernel that was faster this time; a
    CPU does so anyway.
    """
    platform = platform or jax.default_backend()
    if platform == "gpu" and deterministic:
        return {"xla_gpu_deterministic_ops": True}
    if platform != "cpu" or "scheduler" in os.environ.get("XLA_FLAGS", ""):
        return {}
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


def _no_device(device: DeviceName) -> str:
    try:
        there = ", ".join(sorted({d.platform for d in jax.devices()}))
    except Exception:  # JAX_PLATFORMS names something that is not there
        return f"JAX finds no device. JAX_PLATFORMS is {os.environ.get('JAX_PLATFORMS')!r}."
    if device == "auto":  # JAX starts all that it names, or none
        platforms = os.environ.get("JAX_PLATFORMS")
        return f"JAX_PLATFORMS is {platforms!r}, and not all of it is there; JAX finds {there}."
    reason = f"--device {device}: there is none; JAX finds {there}."
    if device in _EXTRAS:
        reason += f" JAX needs its plugin for it: install {_EXTRAS[device]}."
    return reason


def _keep_compiled(folder: Path) -> None:
    with contextlib.suppress(OSError):  # costs only the cache
        folder.mkdir(parents=True, exist_ok=True)
        _mend(folder)
        if shutil.disk_usage(folder).free < _ROOM:
            warnings.warn(
                f"{folder}: its disk is full: compiled programs are not kept.",
                FlaxMnistWarning,
                stacklevel=4,
            )
        elif os.access(folder, os.W_OK):
            jax.config.update("jax_compilation_cache_dir", str(folder))
            # Every program of ours is small and quick to compile: keep them all.
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
            jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _mend(folder: Path) -> None:
    """Removes programs that are not whole: JAX would complain of them, and never replace them.

    A disk that was full leaves them. Each is looked at once, at the first start after it is kept.
    """
    mark = folder / _CHECKED
    since = mark.stat().st_mtime_ns if mark.exists() else 0
    mark.touch()
    for file in folder.glob("*-cache"):
        if file.stat().st_mtime_ns >= since and not _is_whole(file.read_bytes()):
            file.unlink(missing_ok=True)


def _is_whole(program: bytes) -> bool:
    """Whether it can be unpacked, as JAX packs it: by zstandard where that is installed."""
    if not program.startswith(b"\x28\xb5\x2f\xfd"):
        unpacker = zlib.decompressobj()
        with contextlib.suppress(zlib.error):
            unpacker.decompress(program)
        return unpacker.eof
    for module in ("compression.zstd", "zstandard"):
        with contextlib.suppress(ImportError):
            zstd = importlib.import_module(module)
            try:
                zstd.decompress(program)
            except Exception:  # each has an error of its own
                return False
            return True
    return True
