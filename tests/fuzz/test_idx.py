"""IDX files that nobody wrote by hand."""

from __future__ import annotations

import gzip
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_mnist.data.idx import read_idx
from flax_mnist.errors import DataError
from tests.fuzz.examples import mostly, repeatable

NUMBERS = (0, 1, 2, 3, 10, 2**16, 2**31, 2**32 - 1)


@repeatable
@given(st.data())
def test_an_idx_file_is_read_if_it_is_one_and_refused_if_not(folder, data):
    draw = data.draw
    ndim = draw(st.sampled_from([1, 3]))
    shape = draw(st.lists(mostly(3, *NUMBERS), min_size=ndim, max_size=ndim))
    size = math.prod(shape)
    zeros, kind, stated = draw(mostly(0, 1)), draw(mostly(8, 0, 9, 13)), draw(mostly(ndim, 0, 2))
    lacking = draw(mostly(0, -1, 1, 7))
    content = bytes([0, zeros, kind, stated]) + np.array(shape, ">u4").tobytes()
    content += bytes(i % 251 for i in range(min(size, 1000) - lacking))
    cut = draw(mostly(len(content), 0, 3, 4, 7))
    good = 0 < size <= 1000 and (zeros, kind, stated, lacking) == (0, 8, ndim, 0)
    good = good and cut >= len(content)
    form = draw(st.sampled_from(["plain", "gzip", "padded", "two members", "cut", "flipped"]))
    packed = gzip.compress(content[:cut], mtime=0)
    flipped = draw(st.integers(8 * 10, 8 * len(packed) - 1))  # after the header, which says little
    written = {
        "plain": content[:cut],
        "gzip": packed,
        "padded": packed + bytes(draw(st.integers(1, 600))),
        "two members": packed + gzip.compress(b""),
        "cut": packed[: draw(st.integers(0, len(packed) - 1))],
        "flipped": (int.from_bytes(packed, "little") ^ 1 << flipped).to_bytes(
            len(packed), "little"
        ),
    }[form]
    path = folder / ("images" if form == "plain" else "images.gz")
    path.write_bytes(written)
    if good and form in ("plain", "gzip"):
        array = read_idx(path, ndim)
        assert array.shape == tuple(shape)
        assert array.tobytes() == content[4 + 4 * ndim :]
    else:
        with pytest.raises(DataError, match=str(path)):
            read_idx(path, ndim)
