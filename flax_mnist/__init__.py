"""The PyTorch MNIST tutorial as pure functions in JAX, Flax and optax."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from flax_mnist.config import Config as Config
    from flax_mnist.data.dataset import Dataset as Dataset
    from flax_mnist.data.dataset import Split as Split
    from flax_mnist.data.dataset import load_dataset as load_dataset
    from flax_mnist.data.order import epoch_order as epoch_order
    from flax_mnist.evaluation import Evaluation as Evaluation
    from flax_mnist.evaluation import evaluate as evaluate
    from flax_mnist.evaluation import predict as predict
    from flax_mnist.model import MLP as MLP
    from flax_mnist.model import cross_entropy_loss as cross_entropy_loss
    from flax_mnist.model import make_model as make_model
    from flax_mnist.model import nll_loss as nll_loss
    from flax_mnist.model import normalize as normalize
    from flax_mnist.pictures.reading import read_image as read_image
    from flax_mnist.runs.fitting import Fitted as Fitted
    from flax_mnist.runs.fitting import fit as fit
    from flax_mnist.runs.trained import LoadedRun as LoadedRun
    from flax_mnist.runs.trained import load_run as load_run
    from flax_mnist.store.weights import from_torch_state_dict as from_torch_state_dict
    from flax_mnist.store.weights import load_weights as load_weights
    from flax_mnist.store.weights import save_weights as save_weights
    from flax_mnist.store.weights import to_torch_state_dict as to_torch_state_dict
    from flax_mnist.train import State as State
    from flax_mnist.train import init_state as init_state
    from flax_mnist.train import make_optimizer as make_optimizer
    from flax_mnist.train import sgd as sgd
    from flax_mnist.train import train_epoch as train_epoch
    from flax_mnist.train import train_step as train_step

_NAMES = {
    "config": ["Config"],
    "data.dataset": ["Dataset", "Split", "load_dataset"],
    "data.order": ["epoch_order"],
    "evaluation": ["Evaluation", "evaluate", "predict"],
    "model": ["MLP", "cross_entropy_loss", "make_model", "nll_loss", "normalize"],
    "pictures.reading": ["read_image"],
    "runs.fitting": ["Fitted", "fit"],
    "runs.trained": ["LoadedRun", "load_run"],
    "store.weights": [
        "from_torch_state_dict",
        "load_weights",
        "save_weights",
        "to_torch_state_dict",
    ],
    "train": ["State", "init_state", "make_optimizer", "sgd", "train_epoch", "train_step"],
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    # Only what is used is imported: `flax-mnist --help` need not wait for jax.
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
