"""What `torch.save` writes, read by PyTorch with `weights_only=True`: nothing in it is run.

A file may hold a state dict, a dict that holds one, or the tutorial's whole `nn.Sequential`. Layers
are read into stand-ins that keep their state and can do nothing: no class of `torch.nn` is made.
"""

import contextlib
import io
import pickletools
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from flax_mnist.errors import DataError, FlaxMnistError, RequestError

#: Bytes of the pickle in a file, beside the numbers; the weights of 30 layers need 7 kB, a whole
#: model of 9 with a Dropout behind each 8 kB.
#: PyTorch's reader searches an error's text, which may be the pickle's, in quadratic time.
MAX_PICKLE = 2**13
#: Of all pickles before 1.6; with the sources of its classes a model needs 20 kB.
MAX_OLD_PICKLES = 2**16
#: The first of the pickles in a file of before 1.6.
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
REMEDY = "Save it with torch.save(model.state_dict(), FILE)."

#: The layers of a whole model, and the settings in which they are the tutorial's.
LAYERS: dict[str, dict[str, tuple[object, ...]]] = {
    "torch.nn.modules.container.Sequential": {},
    "torch.nn.modules.linear.Linear": {"in_features": (), "out_features": ()},
    "torch.nn.modules.activation.ReLU": {"inplace": ()},
    "torch.nn.modules.activation.LogSoftmax": {"dim": (1, -1)},
    "torch.nn.modules.dropout.Dropout": {"p": (), "inplace": ()},
    "torch.nn.modules.flatten.Flatten": {"start_dim": (1,), "end_dim": (-1,)},
}
#: All else that a pickle may name: what tensors and the containers around them are made of.
TENSORS = {
    "collections.OrderedDict", "__builtin__.set", "builtins.set", "torch.Size", "torch.device",
    "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter",
    *(f"torch.{kind}Storage" for kind in (
        "Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"
    )),
}  # fmt: skip


class TorchFile(NamedTuple):
    """The tensors of a file, and what its layers tell."""

    tensors: dict[str, NDArray[Any]]
    #: The linear layers in their order, where a whole model told them, and its functions with them.
    layers: list[str] | None


class _Layer:
    """Stands for a layer of PyTorch's."""

    __slots__ = ("state",)
    state: Any  # the attributes of the layer, as they stand in the file

    def __setstate__(self, state: object) -> None:
        self.state = state


_STAND_INS = {name: type(name.rpartition(".")[2], (_Layer,), {"__slots__": ()}) for name in LAYERS}
_SETTINGS = {_STAND_INS[name].__name__: settings for name, settings in LAYERS.items()}
_CONTAINERS = (dict, list, set, tuple)  # an OrderedDict, too


def to_torch(state_dict: dict[str, NDArray[np.floating]]) -> bytes:
    """The content of a file that `torch.load` reads with `weights_only=True`.

    Raises:
        RequestError: PyTorch is not installed.
        FlaxMnistError: read back, the weights are not the same to the last bit.
    """
    torch = _pytorch("A .pt file is written by PyTorch", "export a .safetensors file")
    file = io.BytesIO()
    torch.save({name: torch.tensor(array) for name, array in state_dict.items()}, file)
    file.seek(0)
    back = {
        name: _array(value, torch) for name, value in torch.load(file, weights_only=True).items()
    }
    there, here = (
        {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}
        for arrays in (back, state_dict)
    )
    if there != here:
        raise FlaxMnistError("The PyTorch export holds other weights; it was not written.")
    return file.getvalue()


def read_torch(path: Path) -> TorchFile:
    """Reads the state dict or the whole model in a file of `torch.save`'s.

    Raises:
        RequestError: PyTorch is not installed.
        DataError: there is none, there are several, or there is more that could run code; or a
            layer is another function than the tutorial's.
    """
    names = _names_in(path)
    torch = _pytorch(
        f"{path}: reading it needs PyTorch", "save the weights as safetensors where it is"
    )
    try:
        with warnings.catch_warnings(), _stand_ins(torch, names):
            warnings.simplefilter("ignore")  # of what is refused anyway
            with path.open("rb") as file:  # of a path PyTorch asks what it ends with
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler and the zip reader raise
        raise DataError(
            f"{path}: refused by PyTorch's safe reader: damaged, or more than tensors. {REMEDY}"
        ) from error
    found = _the_one_in(content, torch, path)
    layers = None
    if isinstance(found, _Layer):
        found, layers = _of_model(found, path)
    try:
        return TorchFile({name: _array(value, torch) for name, value in found.items()}, layers)
    except Exception as error:  # sparse, quantized, on no device, no tensor at all, ...
        raise DataError(f"{path}: not all of its weights are dense tensors. {REMEDY}") from error


def _pytorch(why: str, remedy: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise RequestError(f"{why}, which is not installed. Install torch, or {remedy}.") from error
    return torch


def _stand_ins(torch: Any, names: set[str]) -> contextlib.AbstractContextManager[Any]:
    if names.isdisjoint(LAYERS):
        return contextlib.nullcontext()  # PyTorch has allowed more since 2.5 only
    allowed = [(stand_in, name) for name, stand_in in _STAND_INS.items()]
    context: contextlib.AbstractContextManager[Any] = torch.serialization.safe_globals(allowed)
    return context


def _names_in(path: Path) -> set[str]:
    """The names of all functions and classes in the file's pickles.

    Raises:
        DataError: there are others than those of tensors and of the tutorial's layers, or the file
            is not as `torch.save` writes one, which with its reader may take gigabytes, or hours.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\3\4"
        names = _names_in_zip(path) if is_zip else _names_in_old(path)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except Exception as error:  # whatever a damaged file makes of its readers
        raise DataError(f"{path}: is not as torch.save writes files. {REMEDY}") from error
    others = sorted(names - TENSORS - LAYERS.keys())
    foreign = [name.rpartition(".")[2] for name in others if name.startswith("torch.nn.modules.")]
    if foreign:
        raise DataError(
            f"{path}: its model has {', '.join(foreign)}. A whole model is taken if its layers are "
            f"{', '.join(stand_in.__name__ for stand_in in _STAND_INS.values())}."
        )
    if others:
        raise DataError(
            f"{path}: holds more than plain tensors, of which nothing is run: {', '.join(others)}. "
            f"{REMEDY}"
        )
    if not is_zip and not names.isdisjoint(LAYERS):
        raise DataError(
            f"{path}: is a whole model as PyTorch before 1.6 wrote it, which its safe reader does "
            f"not take. {REMEDY}"
        )
    return names


def _names_in_zip(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.filename.endswith("/constants.pkl") for entry in entries):
            raise DataError(
                f"{path}: is TorchScript, a program. Save its weights with "
                "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')."
            )
        (pickle,) = (entry for entry in entries if entry.filename.endswith("/data.pkl"))
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        size = sum(entry.file_size for entry in entries)  # more, where they lie over each other
        if not stored or size > path.stat().st_size or pickle.file_size > MAX_PICKLE:
            raise ValueError
        return _names_in_pickle(io.BytesIO(archive.read(pickle)))


def _names_in_old(path: Path) -> set[str]:
    """Of the five pickles with which a file began before PyTorch 1.6."""
    with path.open("rb") as file:
        head = file.read(MAX_OLD_PICKLES)
    if not head.startswith(MAGIC):
        raise DataError(
            f"{path}: is a pickle that torch.save did not write, and could run code. {REMEDY}"
        )
    pickles = io.BytesIO(head)
    names = set().union(*(_names_in_pickle(pickles) for _ in range(5)))
    if pickles.tell() > MAX_PICKLE and names.isdisjoint(LAYERS):  # of which it has the sources
        raise ValueError
    return names


def _names_in_pickle(pickle: io.BytesIO) -> set[str]:
    """Of what stands up to its end, by the operations of the pickle, of which none is done."""
    return {
        str(argument).replace(" ", ".")
        for operation, argument, _ in pickletools.genops(pickle)
        if operation.name == "GLOBAL"
    }


def _the_one_in(content: object, torch: Any, path: Path) -> Any:
    """The state dict or model that the file holds, at its top or under one of its keys."""

    def fits(value: object) -> bool:
        if not isinstance(value, dict):
            return isinstance(value, _Layer)
        # By dict's own method: an OrderedDict may come with attributes of any name.
        items = dict.items(value)
        return len(items) > 0 and all(
            isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in items
        )

    found = {"": content} if fits(content) else {}
    if not found and isinstance(content, dict):
        found = {str(key): value for key, value in dict.items(content) if fits(value)}
    if len(found) > 1:
        raise DataError(f"{path}: holds several state dicts, {', '.join(found)}. Save one of them.")
    if not found:
        raise DataError(f"{path}: is not a state dict of tensors, and holds none. {REMEDY}")
    (one,) = found.values()
    return dict(dict.items(one)) if isinstance(one, dict) else one


def _array(value: Any, torch: Any) -> NDArray[Any]:
    value = value.detach()
    if value.dtype == torch.bfloat16:  # which NumPy has from elsewhere
        array: NDArray[Any] = value.view(torch.int16).numpy().view(jnp.bfloat16)
    else:
        array = value.numpy()
    return array


def _of_model(model: _Layer, path: Path) -> tuple[dict[str, Any], list[str]]:
    """The tensors of a whole model by their names, and its linear layers in order."""
    tensors: dict[str, Any] = {}
    functions: list[str] = []
    names: list[str] = []
    try:
        for name, layer in _called(model, "", set()):
            kind = type(layer).__name__
            if kind == "Linear":
                names.append(name)
                parameters = dict.items(layer.state["_parameters"])
                tensors |= {
                    f"{name}.{key}": value for key, value in parameters if value is not None
                }
            if kind not in ("Dropout", "Flatten"):  # of rows of numbers, once trained, nothing
                functions.append(kind)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # a state that is none
        raise DataError(f"{path}: is damaged: its layers lack what layers have.") from error
    if functions[-1:] == ["LogSoftmax"]:
        functions.pop()
    if functions != ["Linear", "ReLU"] * (len(names) - 1) + ["Linear"]:
        raise DataError(
            f"{path}: its model is {', '.join(functions)}, not Linear, ReLU, Linear, ..., Linear, "
            "with a LogSoftmax at most behind them."
        )
    return tensors, names


def _called(layer: Any, name: str, seen: set[int]) -> Iterator[tuple[str, _Layer]]:
    """The layers of a model in the order in which it calls them.

    Raises:
        DataError: one stands twice, or is not as PyTorch's constructor makes it.
    """
    if not isinstance(layer, _Layer) or id(layer) in seen:
        raise DataError(f"its layer {name!r} stands twice, or is none.")
    seen.add(id(layer))
    _require_plain(layer, name)
    if type(layer).__name__ != "Sequential":
        yield name, layer
        return
    for key, inner in dict.items(layer.state["_modules"]):
        yield from _called(inner, f"{name}.{key}" if name else key, seen)


def _require_plain(layer: _Layer, name: str) -> None:
    """A hook, buffer, method or setting of a layer's own would make it another function."""
    kind = type(layer).__name__
    settings = _SETTINGS[kind]
    parts = {"Linear": "_parameters", "Sequential": "_modules"}
    for key, allowed in settings.items():
        value = layer.state[key]
        if allowed and not any(type(value) is int and value == one for one in allowed):
            raise DataError(f"its layer {name!r} ({kind}) has another {key} than {allowed[0]}.")
    for key, value in dict.items(layer.state):
        if key in settings or key in ("training", parts.get(kind)):
            continue
        empty = value is None or value is False or (isinstance(value, _CONTAINERS) and not value)
        if not (isinstance(key, str) and key.startswith("_") and empty):
            raise DataError(f"its layer {name!r} ({kind}) has a {key!r} of its own.")
