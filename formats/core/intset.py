"""Exact sets of n-byte little-endian unsigned integers, and the mask of their next byte.

A set is a union of pieces. Each piece answers one question exactly: given that the low ``k`` bytes of the
integer are fixed to ``prefix``, which values of the next byte leave at least one member? Integers are
Python's, so nothing wraps.
"""

from __future__ import annotations

import numpy as np

from bytegen.formats.core.masks import blank
from bytegen.formats.core.pieces import Bits, Finite, Piece, Span


def _contains_all(piece: Piece, values: np.ndarray) -> np.ndarray:
    """bool for each value: whether it is a member."""
    if isinstance(piece, Span):
        low, high = piece.lo, min(piece.hi, (1 << 64) - 1)
        if high < low:
            return np.zeros(len(values), dtype=bool)
        inside = (values >= np.uint64(low)) & (values <= np.uint64(high))
        return inside if piece.mod == 1 else inside & (values % np.uint64(piece.mod) == np.uint64(piece.rem))
    if isinstance(piece, Bits):
        top = (1 << 64) - 1
        bad = (values & np.uint64(~piece.may & top)) | (~values & np.uint64(piece.must))
        return bad == 0
    few, where = np.unique(values, return_inverse=True)
    return np.array([piece.contains(value) for value in few.tolist()], dtype=bool)[where]


def _one_hot() -> tuple[np.ndarray, ...]:
    masks = np.zeros((256, 257), dtype=bool)
    masks[np.arange(256), np.arange(256)] = True
    masks.flags.writeable = False
    return tuple(masks)


_ONLY = _one_hot()
_MOST_MASKS = 1024


class IntSet:
    """A union of pieces over n-byte little-endian integers. Immutable."""

    __slots__ = ("_masks", "_used", "full", "only", "pieces", "size")

    def __init__(self, size: int, *pieces: Piece, only: int | None = None, full: bool = False) -> None:
        self.size = size
        self.pieces = pieces
        self.only = only  # the one member, where that is known
        self.full = full  # whether every integer is known to be a member
        # Sets that are asked again and again keep their masks; one that serves a single field would waste them.
        self._masks: dict[int, np.ndarray] | None = None
        self._used = False

    def mask(self, k: int, prefix: int) -> np.ndarray:
        """bool[257], read-only: bytes that may follow the ``k`` low bytes ``prefix`` (entry 256 is False)."""
        if self._masks is not None:
            found = self._masks.get(prefix << 4 | k)
            if found is not None:
                return found
        only = self.only
        if only is not None and only & ((1 << 8 * k) - 1) == prefix:
            return _ONLY[(only >> 8 * k) & 255]
        if len(self.pieces) == 1 and isinstance(self.pieces[0], Span):
            return self.pieces[0].mask(k, prefix)
        blanks, row = blank()
        cells, out, found = blanks.cells, blanks.open[row], blanks.views[row]
        for piece in self.pieces:
            if isinstance(piece, Span):
                span = piece
                span.write(k, prefix, cells, row, out)
            elif isinstance(piece, Finite):
                finite = piece
                finite.write(k, prefix, cells, row, out)
            elif isinstance(piece, Bits):
                bits = piece
                bits.write(k, prefix, cells, row, out)
            else:
                piece.mark(k, prefix, out)
        self._keep(k, prefix, found)
        return found

    def _keep(self, k: int, prefix: int, mask: np.ndarray) -> None:
        if self._masks is not None:
            if len(self._masks) >= _MOST_MASKS:
                self._masks.clear()
            self._masks[prefix << 4 | k] = mask
        elif k == 0:
            if self._used:
                self._masks = {0: mask}
            self._used = True

    def has(self, k: int, prefix: int) -> bool:
        """Whether some member has ``prefix`` as its ``k`` low bytes."""
        for piece in self.pieces:
            if piece.has(k, prefix):
                return True
        return False

    def contains(self, x: int) -> bool:
        """Whether x is a member."""
        for piece in self.pieces:
            if piece.contains(x):
                return True
        return False

    def contains_all(self, values: np.ndarray) -> np.ndarray:
        """bool for each value (unsigned integers): whether it is a member."""
        wide = values.astype(np.uint64)
        found = np.zeros(len(wide), dtype=bool)
        for piece in self.pieces:
            found |= _contains_all(piece, wide)
        return found

    def bounds(self) -> tuple[int, int] | None:
        """Least and greatest member; None when the set is empty."""
        ends = [b for b in (piece.bounds() for piece in self.pieces) if b]
        return (min(a for a, _ in ends), max(b for _, b in ends)) if ends else None

    def __bool__(self) -> bool:
        return self.bounds() is not None


def interval(size: int, lo: int, hi: int, mod: int = 1, rem: int = 0) -> IntSet:
    """The set of one `Span`."""
    return IntSet(size, Span(lo, hi, mod, rem))


def exactly(size: int, *values: int) -> IntSet:
    """The set of the given integers."""
    return IntSet(size, Finite(values), only=values[0] if len(values) == 1 else None)


def anything(size: int) -> IntSet:
    """Every integer of ``size`` bytes."""
    return _ANYTHING[size]


_ANYTHING = {size: IntSet(size, Span(0, (1 << 8 * size) - 1), full=True) for size in range(1, 9)}
