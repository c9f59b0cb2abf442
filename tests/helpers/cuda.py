"""A stand-in for PyTorch's CUDA: the CPU computes, streams and graphs are recorded and replayed.

What a real device would leave undone, or get wrong in silence, is an error here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


class OnTheCpu(TorchFunctionMode):
    """Whatever is asked to be on the GPU is on the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def moved(value: Any) -> Any:
            return torch.device("cpu") if isinstance(value, torch.device) else value

        return func(*tree_map(moved, args), **tree_map(moved, kwargs or {}))


class Generator(torch.Generator):
    """One for any device, on the CPU."""

    def __new__(cls, place: Any = "cpu") -> Generator:
        return super().__new__(cls)


class Stream:
    """Tells for which others it waits."""

    def __init__(self, cuda: Cuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def wait_stream(self, other: Stream) -> None:
        self.cuda.events.append(f"{self.name} waits for {other.name}")


class Graph(TorchDispatchMode):
    """The operations of a capture; a replay does them again, in the memory they had."""

    def __init__(self, cuda: Cuda) -> None:
        super().__init__()
        self.cuda, self.operations = cuda, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:  # noqa: SLF001
            raise RuntimeError("a number goes to the host while a graph is captured")
        results = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, results))
        return results

    @torch.no_grad()
    def replay(self) -> None:
        self.cuda.events.append("replay")
        for func, args, kwargs, results in self.operations:
            again = func(*args, **kwargs)
            for place, value in zip(tree_leaves(results), tree_leaves(again), strict=True):
                # Of a view, or of what works in place, the memory is the same.
                if isinstance(place, torch.Tensor) and place.data_ptr() != value.data_ptr():
                    place.copy_(value)


class Cuda:
    """`torch.cuda`, as far as the benchmark uses it; `events` is what was asked of it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.current = Stream(self, "main")

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        self.events.append(f"on {stream.name}")
        yield
        self.events.append(f"off {stream.name}")
        self.current = before

    @contextlib.contextmanager
    def graph(self, graph: Graph) -> Iterator[None]:
        self.events.append("capture")
        with graph:
            yield
        self.events.append("captured")

    def synchronize(self) -> None:
        self.events.append("synchronize")

    def install(self, patch: pytest.MonkeyPatch) -> None:
        stand_ins = {
            "is_available": lambda: True,
            "get_device_name": lambda: "stand-in",
            "synchronize": self.synchronize,
            "max_memory_allocated": lambda: 0,
            "Stream": lambda: Stream(self, "side"),
            "current_stream": lambda: self.current,
            "stream": self.stream,
            "CUDAGraph": lambda: Graph(self),
            "graph": self.graph,
        }
        for name, stand_in in stand_ins.items():
            patch.setattr(torch.cuda, name, stand_in)
        patch.setattr(torch, "Generator", Generator)
