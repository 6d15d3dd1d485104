"""DT_GNU_HASH: the GNU table of symbols by the hash of their names.

nbuckets, symoffset, bloom_size, bloom_shift (4 bytes each), bloom_size words, nbuckets times 4 bytes, then 4
bytes for each symbol from symoffset on. A bucket holds 0 or the first symbol of its chain; a chain ends at an odd
hash. Source: glibc elf/dl-setup_hash.c (bloom_size a power of two) and elf/dl-lookup.c.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

HEAD = 16
_NONE = np.zeros(0, np.int64)


class GnuHash(NamedTuple):
    """A good table: the number of symbols (0: no bucket tells), the first hashed one, its bytes."""

    symbols: int
    first: int
    size: int


def read(raw: bytes, offset: int, high: int, word: int) -> GnuHash | None:
    """The good table at ``offset``, for words of ``word`` bytes; None when there is none."""
    if offset % word or offset + HEAD > high:
        return None
    buckets, first, bloom, shift = (int(n) for n in np.frombuffer(raw, "<u4", 4, offset))
    chains = offset + HEAD + word * bloom + 4 * buckets
    if not buckets or not first or not bloom or bloom & bloom - 1 or shift >= 64 or chains + 4 > high:
        return None
    heads = np.frombuffer(raw, "<u4", buckets, chains - 4 * buckets)
    last = int(heads.max())
    if not last:
        return GnuHash(0, first, chains - offset)
    if int(heads[heads > 0].min()) < first:
        return None
    tail = chains + 4 * (last - first)
    if tail + 4 > high:
        return None
    odd = _first_odd(raw, tail, high)
    return None if odd is None else GnuHash(last + odd + 1, first, tail + 4 * (odd + 1) - offset)


def _first_odd(raw: bytes, start: int, high: int) -> int | None:
    step = 64
    seen, count = 0, (high - start) // 4
    while seen < count:
        have = min(step, count - seen)
        odd = np.frombuffer(raw, "<u4", have, start + 4 * seen) & np.uint32(1)
        if odd.any():
            return seen + int(odd.argmax())
        seen += have
        step *= 2
    return None


def starts(raw: bytes, low: int, high: int, word: int) -> np.ndarray:
    """Where good tables begin in a range."""
    base = low + -low % word
    count = max(0, high - base) // 4
    if count < 5:
        return _NONE
    words = np.frombuffer(raw, "<u4", count, base).astype(np.int64)
    buckets, first, bloom, shift = words[:-3], words[1:-2], words[2:-1], words[3:]
    room = (count - 4 - np.arange(len(buckets))) * 4
    likely = (buckets > 0) & (first > 0) & (bloom > 0) & (bloom & (bloom - 1) == 0) & (shift < 64)
    likely &= word * bloom + 4 * buckets <= room
    places = np.flatnonzero(likely) * 4 + base
    places = places[places % word == 0]
    return np.array([x for x in places.tolist() if read(raw, x, high, word) is not None], np.int64)
