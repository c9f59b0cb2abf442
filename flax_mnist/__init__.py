"""The PyTorch MNIST tutorial as pure functions in JAX, Flax and optax."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from flax_mnist.config import Config as Config
    from flax_mnist.data.dataset import Dataset as Dataset
    from flax_mnist.data.dataset import load_dataset as load_dataset
    from flax_mnist.evaluation import evaluate as evaluate
    from flax_mnist.evaluation import predict as predict
    from flax_mnist.model import MLP as MLP
    from flax_mnist.model import cross_entropy_loss as cross_entropy_loss
    from flax_mnist.model import nll_loss as nll_loss
    from flax_mnist.model import normalize as normalize
    from flax_mnist.store.weights import from_torch_state_dict as from_torch_state_dict
    from flax_mnist.store.weights import to_torch_state_dict as to_torch_state_dict
    from flax_mnist.train import State as State
    from flax_mnist.train import init_state as init_state
    from flax_mnist.train import sgd as sgd
    from flax_mnist.train import train_epoch as train_epoch
    from flax_mnist.train import train_step as train_step

_NAMES = {
    "config": ["Config"],
    "data.dataset": ["Dataset", "load_dataset"],
    "evaluation": ["evaluate", "predict"],
    "model": ["MLP", "cross_entropy_loss", "nll_loss", "normalize"],
    "store.weights": ["from_torch_state_dict", "to_torch_state_dict"],
    "train": ["State", "init_state", "sgd", "train_epoch", "train_step"],
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    # Only what is used is imported: `flax-mnist --help` need not wait for jax.
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
