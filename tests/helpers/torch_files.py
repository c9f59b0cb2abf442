"""Weights as people have them: networks of PyTorch's, in the forms in which files hold them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import nn

from benchmarks.equivalence.torch_reference import build_model


class Form(NamedTuple):
    """One form of file."""

    write: Callable[[Path], object]
    file: str = "w.pt"
    network: nn.Module | None = None  #: That computes the truth, if it is not `TUTORIAL`.
    refused: str = ""  #: Why; nothing where it is taken.


def network(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers).eval()


def saved(content: object, **how: bool) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path, **how)


def renamed(*names: str) -> dict[str, torch.Tensor]:
    """The tutorial's state dict with other names of its layers."""
    kinds = [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
    return dict(zip(kinds, STATE.values(), strict=True))


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in STATE.items()}


def script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(TUTORIAL).save(path)


def safe(**tensors: torch.Tensor) -> Callable[[Path], None]:
    return lambda path: safetensors.torch.save_file(tensors, path)


torch.manual_seed(0)
TUTORIAL = build_model((16, 12))
STATE = TUTORIAL.state_dict()
HALF, BFLOAT16 = ({k: v.to(t) for k, v in STATE.items()} for t in (torch.half, torch.bfloat16))
OF_HALF, OF_BFLOAT16 = build_model((16, 12)), build_model((16, 12))
OF_HALF.load_state_dict(HALF)
OF_BFLOAT16.load_state_dict(BFLOAT16)
FLAT = network(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
DROPS = network(
    nn.Linear(784, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 10), nn.LogSoftmax(dim=1)
)
NESTED = network(nn.Flatten(), DROPS)
TANH = network(nn.Linear(784, 16), nn.Tanh(), nn.Linear(16, 10))
RELU = network(TANH[0], nn.ReLU(), TANH[2])
WIDE = network(nn.Linear(784, 2048), nn.ReLU(), nn.Linear(2048, 10))
NO_BIAS = network(nn.Linear(784, 16, bias=False), nn.ReLU(), nn.Linear(16, 10, bias=False))
SOFTMAX = network(nn.Linear(784, 10), nn.LogSoftmax(dim=1))
MOMENTUM = torch.optim.SGD(TUTORIAL.parameters(), lr=0.003, momentum=0.9)

FORMS = {
    "state dict": Form(saved(STATE)),
    "whole model": Form(saved(TUTORIAL)),
    "whole model, nested": Form(saved(NESTED), network=DROPS),
    "whole model in a dict": Form(saved({"epoch": 3, "model": TUTORIAL})),
    "checkpoint": Form(
        saved({"model_state_dict": STATE, "optimizer": MOMENTUM.state_dict(), "loss": 0.4})
    ),
    "Lightning": Form(saved({"state_dict": STATE, "hyper_parameters": {"lr": 0.003}}), "w.ckpt"),
    "compiled": Form(saved(prefixed("_orig_mod."))),
    "data parallel": Form(saved(prefixed("module."))),
    "both": Form(saved(prefixed("module._orig_mod.model."))),
    "module": Form(saved(prefixed("model."))),
    "flatten first": Form(saved(FLAT.state_dict()), network=FLAT),
    "quickstart": Form(saved(prefixed("linear_relu_stack."))),
    "other names": Form(saved(renamed("fc1", "fc2", "fc3"))),
    "names in no order": Form(saved(renamed("out", "hidden", "in"))),
    "dropout": Form(saved(DROPS.state_dict()), network=DROPS),
    "half": Form(saved(HALF), network=OF_HALF),
    "bfloat16": Form(saved(BFLOAT16), network=OF_BFLOAT16),
    "before 1.6": Form(saved(STATE, _use_new_zipfile_serialization=False)),
    "pth.tar": Form(saved(STATE), "w.pth.tar"),
    "bin": Form(saved(STATE), "w.bin"),
    "pkl": Form(saved(STATE), "w.pkl"),
    "no suffix": Form(saved(STATE), "w"),
    "upper case": Form(saved(STATE), "W.PT"),
    "called safetensors": Form(saved(STATE), "w.safetensors"),
    "parameters": Form(saved({name: nn.Parameter(value) for name, value in STATE.items()})),
    "safetensors": Form(safe(**STATE), "w.safetensors"),
    "safetensors called pt": Form(safe(**STATE)),
    "half safetensors": Form(safe(**HALF), "w.safetensors", OF_HALF),
    "bfloat16 safetensors": Form(safe(**BFLOAT16), "w.safetensors", OF_BFLOAT16),
    "prefixed safetensors": Form(safe(**prefixed("model.")), "w.safetensors"),
    "npz": Form(lambda path: np.savez(path, **{k: v.numpy() for k, v in STATE.items()}), "w.npz"),
    "2048 units": Form(saved(WIDE.state_dict()), network=WIDE),
    "tanh that nobody tells": Form(saved(TANH.state_dict()), network=RELU),
    "TorchScript": Form(script, refused=r"is TorchScript, a program.* torch\.save\(torch\.jit"),
    "no bias": Form(
        saved(NO_BIAS.state_dict()),
        refused=r"0\.bias is missing; 2\.bias is missing\. Every layer here has a bias",
    ),
    "softmax regression": Form(saved(SOFTMAX.state_dict()), refused="has no hidden layer"),
    "whole model with tanh": Form(saved(TANH), refused="its model has Tanh"),
    "whole model before 1.6": Form(
        saved(TUTORIAL, _use_new_zipfile_serialization=False),
        refused=r"a whole model as PyTorch before 1\.6 wrote it.*state_dict\(\)",
    ),
    "whole model with tanh, before 1.6": Form(
        saved(TANH, _use_new_zipfile_serialization=False), refused="its model has Tanh"
    ),
    "compressed npz": Form(
        lambda path: np.savez_compressed(path, **{"0.weight": np.zeros((10, 784))}),
        "w.npz",
        refused="is compressed",
    ),
}
