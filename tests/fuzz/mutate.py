"""Changes to inputs, for machines without atheris: bytes, numbers, pieces and what seeds have elsewhere."""

from __future__ import annotations

import random
import re

_NUMBERS = (
    b"0",
    b"-1",
    b"1e999",
    b"NaN",
    b"4294967295",
    b"9223372036854775808",
    b"1" + b"0" * 400,
    b"0.5",
    b"true",
    b"null",
)
_BYTES = (
    b"\0",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\r\n",
    b'"',
    b"\\",
    b"\xed\xa0\x80",
    b"../",
    b"{",
    b"[" * 3000,
)


def mutated(seeds: list[bytes], words: tuple[bytes, ...], source: random.Random) -> bytes:
    """One of the seeds with one to six changes; `words` are what the format is made of."""
    data = bytearray(source.choice(seeds))
    for _ in range(source.choice((1, 1, 2, 3, 6))):
        _change(data, seeds, words, source)
    return bytes(data)


def _change(data: bytearray, seeds: list[bytes], words: tuple[bytes, ...], source: random.Random) -> None:
    start = source.randrange(len(data) + 1)
    end = min(len(data), start + source.choice((1, 1, 2, 4, 8, 32, 256)))
    kind = source.randrange(8)
    if kind == 0 and start < len(data):
        data[start] ^= 1 << source.randrange(8)
    elif kind == 1 and start < len(data):
        data[start] = source.randrange(256)
    elif kind == 2:
        del data[start:end]
    elif kind == 3:
        data[start:start] = data[start:end] * source.choice((1, 2, 50))
    elif kind == 4:
        other = source.choice(seeds)
        at = source.randrange(len(other) + 1)
        data[start:end] = other[at : at + end - start]
    elif kind == 5:
        data[start:end] = source.choice(words + _BYTES)
    elif kind == 6:
        numbers = list(re.finditer(rb"\d+", data))
        if numbers:
            found = source.choice(numbers)
            data[found.start() : found.end()] = source.choice(_NUMBERS)
    else:
        data[start:end] = source.choice(_BYTES)
