"""The files of checkpoints, taken apart and put together by hand."""

from __future__ import annotations

import hashlib
import json
import re
import struct

import numpy as np

DIGEST = re.compile(rb'(?<="sha256":")[0-9a-f]{64}')


def seal(content: bytes) -> bytes:
    """The content with the right digest, where it has a place for one."""
    before, *rest = DIGEST.split(content, maxsplit=1)
    if not rest:
        return content
    digest = hashlib.sha256(before + rest[0]).hexdigest().encode()
    return before + digest + rest[0]


def take_apart(content: bytes) -> tuple[dict, bytes]:
    """Header and data of a safetensors file."""
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def put_together(header: dict, data: bytes) -> bytes:
    """A sealed file of this header and data, whatever they say."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return seal(struct.pack("<Q", len(text)) + text + data)


def arrays_in(content: bytes) -> dict[str, np.ndarray]:
    header, data = take_apart(content)
    kinds = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4"}
    return {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], kinds[entry["dtype"]]).reshape(
            entry["shape"]
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def with_arrays(content: bytes, arrays: dict[str, np.ndarray]) -> bytes:
    """A sealed file with the metadata of another one, and these arrays in this order."""
    names = {"float16": "F16", "float32": "F32", "float64": "F64", "int32": "I32"}
    header, data = {"__metadata__": take_apart(content)[0]["__metadata__"]}, b""
    for name, array in arrays.items():
        end = len(data) + array.nbytes
        header[name] = {
            "dtype": names[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [len(data), end],
        }
        data += array.tobytes()
    return put_together(header, data)
