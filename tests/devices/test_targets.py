"""Machines that are only compiled for."""

from __future__ import annotations

import math
import os
from typing import get_args

import pytest

from flax_mnist.cli.inspect import Target
from flax_mnist.devices.environment import version
from flax_mnist.devices.targets import find_devices, names
from flax_mnist.errors import RequestError

PLUGINS = {"tpu": "libtpu", "gpu": "jax-cuda13-pjrt"}


def chips(name: str) -> int:
    _, _, size = name.partition(":")
    return math.prod(map(int, size.split("x"))) if size else 1


@pytest.mark.parametrize("name", names())
def test_a_target_is_devices_or_says_what_to_install(name):
    platform = "tpu" if name.startswith("tpu-") else "gpu"
    before = dict(os.environ)
    if version(PLUGINS[platform]) is None:
        extra = {"tpu": "tpu", "gpu": "cuda13"}[platform]
        with pytest.raises(RequestError, match=rf"{name}: needs .* 'flax-mnist\[{extra}\]'$"):
            find_devices(name)
        return
    devices = find_devices(name)
    assert len(devices) == chips(name)
    assert {device.platform for device in devices} == {platform}
    hosts = {device.process_index for device in devices}
    assert len(hosts) == (math.ceil(len(devices) / 4) if platform == "tpu" else 1)
    assert os.environ == before


def test_what_a_shell_completes_is_all_kinds_there_are():
    assert set(get_args(Target)) == {name for name in names() if ":" not in name}


@pytest.mark.parametrize("name", ["", "v5e", "tpu-v5e:1x1", "tpu-v5e:3x3", "h100:3", "cpu"])
def test_what_is_no_target_is_refused(name):
    with pytest.raises(RequestError, match=r"tpu-v5e, .*, b200") as refused:
        find_devices(name)
    assert refused.value.exit_code == 2
    assert f"target {name}:" in str(refused.value)
