"""Weights in PyTorch's names and layouts: `0.weight [128, 784]`, `0.bias [128]`, `2.weight`, ...

The numbers are the places of the linear layers in the tutorial's `nn.Sequential`, where a ReLU
follows each; PyTorch keeps a weight as [out, in], Flax a kernel as [in, out].
"""

import os
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jax import Array
from numpy.typing import NDArray

from flax_mnist.checks import require_float64
from flax_mnist.config import CLASSES, MAX_WEIGHTS, PIXELS
from flax_mnist.errors import DataError, FlaxMnistError, FlaxMnistWarning, RequestError
from flax_mnist.files import write_atomically
from flax_mnist.model import Params
from flax_mnist.store.naming import KINDS, in_order
from flax_mnist.store.torch_files import read_torch

StateDict = dict[str, NDArray[np.floating]]  #: Arrays by PyTorch's names.
MAX_BYTES = 10**10  #: A larger file is not read; the largest network there is in float64 has 8 GB.
#: Of safetensors, the number formats that are read.
DTYPES = {"F16": np.float16, "BF16": jnp.bfloat16, "F32": np.float32, "F64": np.float64}


class WeightsFile(NamedTuple):
    """Weights from elsewhere, and how they were read."""

    state_dict: StateDict  #: With the tutorial's names.
    layers: list[str]  #: What the linear layers are called in the file, from input to output.
    activations_known: bool  #: Whether the file told that it is ReLU between them.


def to_torch_state_dict(params: Params) -> StateDict:
    """Flax parameters as what `nn.Sequential.load_state_dict` takes, tensors as NumPy arrays."""
    state_dict: StateDict = {}
    for i in range(len(params)):
        layer = params[f"Dense_{i}"]
        # A copy in C order: safetensors writes the memory as it lies and knows no strides.
        state_dict[f"{2 * i}.weight"] = np.ascontiguousarray(np.asarray(layer["kernel"]).T)
        state_dict[f"{2 * i}.bias"] = np.asarray(layer["bias"])
    return state_dict


def from_torch_state_dict(state_dict: Mapping[str, NDArray[Any]]) -> Params:
    """The reverse: NumPy arrays by PyTorch's names, all float32 or all float64, any hidden sizes.

    Raises:
        DataError: names, shapes or dtypes are not those of such a network, or a weight is not
            finite; every difference is listed.
        RequestError: they are float64, and JAX would make them float32.
    """
    check_state_dict(state_dict)
    if state_dict["0.bias"].dtype == np.float64:
        require_float64("float64 weights need")
    params: Params = {}
    for i in range(len(state_dict) // 2):
        kernel: Array = jnp.asarray(np.asarray(state_dict[f"{2 * i}.weight"]).T)
        params[f"Dense_{i}"] = {"kernel": kernel, "bias": jnp.asarray(state_dict[f"{2 * i}.bias"])}
    return params


def check_state_dict(
    state_dict: Mapping[str, NDArray[Any]], where: str = "", names: Sequence[str] = ()
) -> None:
    """Raises the `DataError` that `from_torch_state_dict` would; it begins with `where`.

    Layers may have other names than the tutorial's, those of `names`.
    """
    names = names or [str(2 * i) for i in range(max(1, (len(state_dict) + 1) // 2))]
    problems = "; ".join(_differences(state_dict, names))
    if problems:
        raise DataError(f"{where}not the weights of a {PIXELS}-...-{CLASSES} MLP: {problems}.")


def _differences(state_dict: Mapping[str, NDArray[Any]], names: Sequence[str]) -> list[str]:
    expected = [f"{name}.{kind}" for name in names for kind in KINDS]
    problems = [f"{name} is missing" for name in expected if name not in state_dict]
    problems += [f"{name} is not expected" for name in state_dict if name not in expected]
    if problems:
        return problems
    arrays = {name: np.asarray(state_dict[name]) for name in expected}
    if _too_many(arrays):
        return [f"there are more than {MAX_WEIGHTS:,} weights"]
    dtypes = {str(array.dtype) for array in arrays.values()}
    if dtypes not in ({"float32"}, {"float64"}):
        problems.append(f"dtypes are {', '.join(sorted(dtypes))}, not all float32 or all float64")
    size = PIXELS
    for layer in names:
        weight, bias = (arrays[f"{layer}.{kind}"] for kind in KINDS)
        units = bias.size if bias.ndim == 1 and bias.size > 0 else -1
        out = CLASSES if layer == names[-1] else units
        for name, array, shape in (("weight", weight, (out, size)), ("bias", bias, (out,))):
            if array.shape != shape:
                wanted = "[" + ", ".join("?" if n < 0 else str(n) for n in shape) + "]"
                problems.append(f"{layer}.{name} is {list(array.shape)}, not {wanted}")
        size = out
    if problems:
        return problems
    return [
        f"{name} has values that are not finite"
        for name, array in arrays.items()
        if not np.isfinite(array).all()
    ]


def _too_many(arrays: Mapping[str, NDArray[Any]]) -> bool:
    return sum(array.size for array in arrays.values() if array.ndim == 2) > MAX_WEIGHTS


def save_weights(path: Path | str, params: Params) -> None:
    """Writes the parameters to a safetensors file that PyTorch can load, all of it or nothing."""
    write_atomically(Path(path), safetensors.numpy.save(to_torch_state_dict(params)))


def to_safetensors(params: Params) -> bytes:
    """The weights in PyTorch's names and layouts, as `nn.Sequential.load_state_dict` takes them.

    Raises:
        FlaxMnistError: read back, they are not the same to the last bit.
    """
    content = safetensors.numpy.save(to_torch_state_dict(params))
    both = from_torch_state_dict(safetensors.numpy.load(content)), params
    there, here = jax.tree.map(lambda a: (a.dtype, a.shape, np.asarray(a).tobytes()), both)
    if there != here:
        raise FlaxMnistError("The safetensors export holds other weights; it was not written.")
    return content


def load_weights(path: Path | str) -> StateDict:
    """The state dict that `read_weights` finds, with the tutorial's names."""
    return read_weights(Path(path)).state_dict


def read_weights(path: Path) -> WeightsFile:
    """Reads safetensors, a file of `torch.save`'s or NumPy's `.npz`, whatever the file is called.

    Numbers of 16 bits become float32, with a warning. PyTorch reads its own files, with
    `weights_only=True`: no code that a pickle names is run.

    Raises:
        RequestError: there is no such file, or PyTorch is needed and not installed.
        DataError: it cannot be read, or does not hold the weights of such a network.
    """
    if not os.path.isfile(path):
        what = "is no ordinary file" if os.path.exists(path) else "there is no such file"
        raise RequestError(f"{path}: {what}.")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: is larger than the weights of any network here.")
    where = f"{path}: "
    tensors, names = _read(path)
    activations_known = names is not None
    shapes = {name: array.shape for name, array in tensors.items()}
    names = in_order(shapes, where) if names is None else names
    if not _too_many(tensors):
        tensors = _widened(tensors, where)
    check_state_dict(tensors, where, names)
    if len(names) == 1:
        raise DataError(f"{path}: it has no hidden layer, and a network here has one or more.")
    state_dict = {
        f"{2 * i}.{kind}": tensors[f"{name}.{kind}"]
        for i, name in enumerate(names)
        for kind in KINDS
    }
    return WeightsFile(state_dict, names, activations_known)


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], list[str] | None]:
    """What a file holds by its content, and the order of the layers, if that tells it."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if head[:4] == b"PK\3\4" and _is_npz(path):
            return _read_npz(path), None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    if head[:4] == b"PK\3\4" or head[:1] == b"\x80":  # a zip archive, or a pickle
        return read_torch(path)
    if head[8:] == b"{":
        return _read_safetensors(path), None
    raise DataError(
        f"{path}: is not read as safetensors, torch.save's file or .npz: it begins like none of "
        "them. (A StableHLO export is not taken apart again.)"
    )


def _read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # safetensors' own reader of files says of one that may not be read that it is missing,
        # and its arrays of NumPy's know no bfloat16.
        tensors = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
        return {
            name: np.frombuffer(entry["data"], DTYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in tensors
        }
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except Exception as error:  # it raises SafetensorError, KeyError, TypeError, ...
        raise DataError(f"{path}: cannot be read as safetensors ({error}).") from error


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    except Exception:  # whatever a damaged archive makes of its reader
        return False


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > path.stat().st_size:  # compressed, or lying over each other
            read = None
        else:
            with np.load(path, allow_pickle=False) as arrays:
                read = dict(arrays)
    except Exception as error:  # whatever the readers of zip and of npy raise
        raise DataError(f"{path}: cannot be read as .npz ({error}).") from error
    if read is None:
        raise DataError(f"{path}: is compressed. Save it with numpy.savez.")
    return read


def _widened(tensors: Mapping[str, NDArray[Any]], where: str) -> dict[str, NDArray[Any]]:
    """Numbers of 16 bits as float32, which changes none of them."""
    narrow = {str(array.dtype) for array in tensors.values()} & {"float16", "bfloat16"}
    if narrow:
        what = " and ".join(sorted(narrow))
        warnings.warn(f"{where}{what} was widened to float32.", FlaxMnistWarning, stacklevel=4)
    return {
        name: array.astype(np.float32) if str(array.dtype) in narrow else array
        for name, array in tensors.items()
    }


def hidden_sizes(state_dict: Mapping[str, NDArray[np.floating]]) -> tuple[int, ...]:
    """Units of each hidden layer, read off the shapes of a checked state dict."""
    return tuple(len(state_dict[f"{2 * i}.bias"]) for i in range(len(state_dict) // 2 - 1))
