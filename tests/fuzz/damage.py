"""What is done to a file."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.fuzz.readers import Reader

TOKENS = (
    b"", b"\0", b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\0\0\0\1",
    b"0", b"-1", b"1.5", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b'"x"',
    b"9" * 5000, b"[" * 100_000, b'"\\ud800"', b'"\\u0000"', b"F64", b"I64", b"BF16",
    b"GIF89a", b"\n",
)  # fmt: skip


def damaged(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """One to four changes, of which half are near the beginning, where headers are."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        size = len(changed)
        reach = rng.choice((16, 64, 256, size, size, size))
        at = rng.randrange(max(1, min(size, reach)))
        length = rng.choice((1, 2, 4, 8, rng.randrange(size + 1)))
        part = slice(at, at + length)
        match rng.randrange(8):
            case 0 if size:
                changed[at] ^= 1 << rng.randrange(8)
            case 1 if size:
                changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                del changed[part]
            case 3:
                del changed[at:]
            case 4:
                changed[at:at] = rng.choice(TOKENS)
            case 5:
                changed[part] = rng.choice(TOKENS)
            case 6:
                changed[at:at] = changed[part]
            case _:
                other = rng.choice(others)
                start = rng.randrange(len(other))
                changed[part] = other[start : start + length]
    return bytes(changed)


def contents(reader: Reader, seed: int) -> Iterator[bytes]:
    """The valid ones first, then damaged ones without end."""
    seeds = reader.seeds()
    yield from map(reader.mend, seeds)
    rng = random.Random(seed)
    while True:
        content = damaged(rng.choice(seeds), seeds, rng)
        yield reader.mend(content) if rng.random() < 0.9 else content
