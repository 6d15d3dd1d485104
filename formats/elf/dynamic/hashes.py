"""DT_HASH: the gABI's table of symbols by the hash of their names.

nbucket, nchain, then the buckets and the chains, 4 bytes each. nchain is the number of dynamic symbols; every
bucket and chain entry is one of them or 0, and none is named twice: so every chain from a bucket ends at 0, and no
two share a symbol, of which binutils' readelf complains.
"""

from __future__ import annotations

import numpy as np

_NONE = np.zeros(0, np.int64)
HEAD = 8
_LOOK = 10  # entries that are looked at everywhere at once


def symbols_of(raw: bytes, offset: int, high: int) -> int | None:
    """The number of symbols of the good table at ``offset``; None when there is none."""
    if offset % 4 or offset + HEAD > high:
        return None
    buckets, chains = (int(n) for n in np.frombuffer(raw, "<u4", 2, offset))
    if not buckets or not chains or offset + HEAD + 4 * (buckets + chains) > high:
        return None
    table = np.frombuffer(raw, "<u4", buckets + chains, offset + HEAD)
    # What is no table shows it soon, so that looking for one in a large file does not read it over and over.
    seen = min(len(table), 64)
    while not _repeats(table[:seen], chains):
        if seen == len(table):
            return chains
        seen = min(len(table), 16 * seen)
    return None


def _repeats(entries: np.ndarray, chains: int) -> bool:
    """Whether an entry is no symbol, or a symbol is named twice."""
    if int(entries.max()) >= chains:
        return True
    named = np.sort(entries[entries > 0])
    return bool((named[1:] == named[:-1]).any())


def size_of(raw: bytes, offset: int) -> int:
    """Bytes of the good table at ``offset``."""
    buckets, chains = (int(n) for n in np.frombuffer(raw, "<u4", 2, offset))
    return HEAD + 4 * (buckets + chains)


def starts(raw: bytes, low: int, high: int) -> np.ndarray:
    """Where good tables begin in a range."""
    base = low + -low % 4
    count = max(0, high - base) // 4
    if count < 4:
        return _NONE
    words = np.frombuffer(raw, "<u4", count, base).astype(np.int64)
    room = np.arange(count, 1, -1) - 2
    buckets, chains = words[:-1], words[1:]
    likely = (buckets > 0) & (chains > 0) & (buckets + chains <= room)
    found = np.flatnonzero(likely)
    for ahead in range(2, _LOOK):
        entry = words[np.minimum(found + ahead, count - 1)]
        found = found[(entry < chains[found]) | (buckets[found] + chains[found] <= ahead - 2)]
    places = (found * 4 + base).tolist()
    return np.array([x for x in places if symbols_of(raw, x, high) is not None], np.int64)
