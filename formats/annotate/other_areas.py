"""What can be said of a file in no format of ours: runs of like bytes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from bytegen.formats.annotate.reading import MOST_AREAS, Reading

WINDOW = 256
_BLOCK = 1 << 20
_TEXT = np.zeros(256, dtype=bool)
_TEXT[[9, 10, 13, *range(32, 127)]] = True
CLASSES = ("zeros", "text", "dense bytes", "mixed bytes")
_KINDS = ("padding", "names", "unknown", "data")


def entropy(data: bytes, window: int = WINDOW) -> np.ndarray:
    """float[windows]: the entropy of each `window` bytes (the last may be shorter), in bits a byte.

    The greatest that 256 bytes can show is 8; a shorter window can show at most log2 of its length.
    """
    parts = [_entropy(counts) for counts in _counts(data, window)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _entropy(counts: np.ndarray) -> np.ndarray:
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return -(share * np.log2(np.where(share > 0, share, 1.0))).sum(axis=1)


def _counts(data: bytes, window: int) -> Iterator[np.ndarray]:
    """int[windows, 256], in blocks: how often each byte occurs."""
    values = np.frombuffer(data, dtype=np.uint8)
    block = max(_BLOCK // window, 1) * window
    for start in range(0, len(values), block):
        part = values[start : start + block]
        number = -(-len(part) // window)
        places = np.arange(len(part), dtype=np.int64) // window * 256 + part
        yield np.bincount(places, minlength=number * 256).reshape(number, 256)


def classes(data: bytes, window: int = WINDOW) -> np.ndarray:
    """int[windows], into `CLASSES`: all zeros; at least 95% text; entropy of compressed data; the rest."""
    parts = [_classes(counts) for counts in _counts(data, window)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _classes(counts: np.ndarray) -> np.ndarray:
    total = np.maximum(counts.sum(axis=1), 1)
    result = np.full(len(counts), 3)
    result[_entropy(counts) > 0.88 * np.log2(np.minimum(total, 256) + 1)] = 2
    result[counts[:, _TEXT].sum(axis=1) >= 0.95 * total] = 1
    result[counts[:, 0] == total] = 0
    return result


def read_other(data: bytes) -> Reading:
    """Areas of like bytes; a window grows with the file so that there are not too many."""
    reading = Reading(len(data))
    if not data:
        return reading
    window = WINDOW
    while len(data) // window > MOST_AREAS // 4:
        window *= 2
    found = classes(data, window)
    edges = [0, *(np.flatnonzero(np.diff(found)) + 1).tolist(), len(found)]
    for first, last in pairwise(edges):
        kind = int(found[first])
        reading.area(first * window, (last - first) * window, CLASSES[kind], _KINDS[kind])
    return reading
