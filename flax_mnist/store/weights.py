"""Weights in PyTorch's names and layouts: `0.weight [128, 784]`, `0.bias [128]`, `2.weight`, ...

The numbers are the places of the linear layers in the tutorial's `nn.Sequential`, where a ReLU
follows each; PyTorch keeps a weight as [out, in], Flax a kernel as [in, out].
"""

import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax import Array
from numpy.typing import NDArray

from flax_mnist.config import CLASSES, MAX_WEIGHTS, PIXELS
from flax_mnist.errors import DataError, FlaxMnistError, RequestError
from flax_mnist.files import write_atomically
from flax_mnist.model import Params

StateDict = dict[str, NDArray[np.floating]]
MAX_BYTES = 10**10  #: A larger file is not read; the largest network there is in float64 has 8 GB.
MAX_PICKLE = 2**13  #: Bytes of the pickle in a `.pt` file, beside the numbers; 30 layers need 7 kB.


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
    if state_dict["0.bias"].dtype == np.float64 and jnp.result_type(float) != np.float64:
        raise RequestError("float64 weights need float64 in JAX: switch jax_enable_x64 on.")
    params: Params = {}
    for i in range(len(state_dict) // 2):
        kernel: Array = jnp.asarray(np.asarray(state_dict[f"{2 * i}.weight"]).T)
        params[f"Dense_{i}"] = {"kernel": kernel, "bias": jnp.asarray(state_dict[f"{2 * i}.bias"])}
    return params


def check_state_dict(state_dict: Mapping[str, NDArray[Any]], where: str = "") -> None:
    """Raises the `DataError` that `from_torch_state_dict` would; it begins with `where`."""
    problems = "; ".join(_differences(state_dict))
    if problems:
        raise DataError(f"{where}not the weights of a {PIXELS}-...-{CLASSES} MLP: {problems}.")


def _differences(state_dict: Mapping[str, NDArray[Any]]) -> list[str]:
    layers = max(1, (len(state_dict) + 1) // 2)
    expected = [f"{2 * i}.{kind}" for i in range(layers) for kind in ("weight", "bias")]
    problems = [f"{name} is missing" for name in expected if name not in state_dict]
    problems += [f"{name} is not expected" for name in state_dict if name not in expected]
    if problems:
        return problems
    arrays = {name: np.asarray(state_dict[name]) for name in expected}
    dtypes = {str(array.dtype) for array in arrays.values()}
    if dtypes not in ({"float32"}, {"float64"}):
        problems.append(f"dtypes are {', '.join(sorted(dtypes))}, not all float32 or all float64")
    size = PIXELS
    for i in range(layers):
        weight, bias = arrays[f"{2 * i}.weight"], arrays[f"{2 * i}.bias"]
        units = bias.size if bias.ndim == 1 and bias.size > 0 else -1
        out = CLASSES if i == layers - 1 else units
        for name, array, shape in (("weight", weight, (out, size)), ("bias", bias, (out,))):
            if array.shape != shape:
                wanted = "[" + ", ".join("?" if n < 0 else str(n) for n in shape) + "]"
                problems.append(f"{2 * i}.{name} is {list(array.shape)}, not {wanted}")
        size = out
    if problems:
        return problems
    if sum(array.size for array in arrays.values() if array.ndim == 2) > MAX_WEIGHTS:
        return [f"there are more than {MAX_WEIGHTS:,} weights"]
    return [
        f"{name} has values that are not finite"
        for name, array in arrays.items()
        if not np.isfinite(array).all()
    ]


def save_weights(path: Path, params: Params) -> None:
    """Writes the parameters to a safetensors file that PyTorch can load, all of it or nothing."""
    write_atomically(path, safetensors.numpy.save(to_torch_state_dict(params)))


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


def load_weights(path: Path) -> StateDict:
    """Reads a state dict from a `.safetensors` file, or from a `.pt` or `.pth` file of PyTorch's.

    A `.pt` file is read by PyTorch with `weights_only=True`: no code that its pickle names is run.
    PyTorch writes the form that is read since 1.6.

    Raises:
        RequestError: there is no such file, or PyTorch is needed and not installed.
        DataError: it cannot be read, or does not hold the weights of such a network.
    """
    if not os.path.isfile(path):
        what = "is no ordinary file" if os.path.exists(path) else "there is no such file"
        raise RequestError(f"{path}: {what}.")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: is larger than the weights of any network here.")
    state_dict = _load_pt(path) if path.suffix in (".pt", ".pth") else _load_safetensors(path)
    check_state_dict(state_dict, f"{path}: ")
    return state_dict


def _load_safetensors(path: Path) -> StateDict:
    try:
        # safetensors' own reader of files says of one that may not be read that it is missing.
        return safetensors.numpy.load(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except Exception as error:  # it raises SafetensorError, KeyError, TypeError, ...
        raise DataError(f"{path}: cannot be read as safetensors ({error}).") from error


def _load_pt(path: Path) -> StateDict:
    try:
        import torch
    except ImportError as error:
        raise RequestError(
            f"{path}: reading it needs PyTorch, which is not installed. Install torch, or save the "
            "weights as safetensors where it is."
        ) from error
    remedy = "Save it with torch.save(model.state_dict(), FILE)."
    if not _is_from_torch_save(path):
        raise DataError(f"{path}: is not as torch.save has written files since 1.6. {remedy}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is refused anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler and the zip reader raise
        raise DataError(
            f"{path}: refused by PyTorch's safe reader: damaged, or more than tensors. {remedy}"
        ) from error
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        raise DataError(f"{path}: is not a state dict of tensors. {remedy}")
    wide = {torch.float32, torch.float64}  # NumPy has no bfloat16
    if not wide.issuperset(value.dtype for value in content.values()):
        raise DataError(f"{path}: not all of its tensors are float32 or float64.")
    try:
        return {name: value.detach().numpy() for name, value in content.items()}
    except Exception as error:  # sparse, quantized, on no device, ...
        raise DataError(f"{path}: not all of its tensors are dense. {remedy}") from error


def _is_from_torch_save(path: Path) -> bool:
    """Whether it is a zip archive as PyTorch writes it: stored, and what is unpickled is short.

    With any other its reader may spend gigabytes, or hours: it searches its own error message with
    a regular expression that takes quadratic time.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            file.seek(0)
            return file.read(4) == b"PK\3\4" and all(
                entry.compress_type == zipfile.ZIP_STORED
                and (entry.file_size <= MAX_PICKLE or not entry.filename.endswith(".pkl"))
                for entry in archive.infolist()
            )
    except Exception:  # whatever a damaged archive makes of its reader
        return False


def hidden_sizes(state_dict: Mapping[str, NDArray[np.floating]]) -> tuple[int, ...]:
    """Units of each hidden layer, read off the shapes of a checked state dict."""
    return tuple(len(state_dict[f"{2 * i}.bias"]) for i in range(len(state_dict) // 2 - 1))
