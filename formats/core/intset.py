"""Exact sets of n-byte little-endian unsigned integers, and the mask of their next byte.

A set is a union of pieces. Each piece answers one question exactly: given that the low ``k`` bytes of the
integer are fixed to ``prefix``, which values of the next byte leave at least one member? Integers are
Python's, so nothing wraps.

Source of the arithmetic: a prefix fixes x modulo 256**k; with x = prefix + y * 256**k, an interval of x is
an interval of y, a congruence of x a congruence of y (Chinese remainder), and the next byte is y mod 256.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import Protocol

import numpy as np

_COUNT = np.arange(256, dtype=np.int64)


class Piece(Protocol):
    """One exactly solvable part of an `IntSet`."""

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """Set ``out[b]`` for every byte b that may come after the ``k`` low bytes ``prefix``."""

    def has(self, k: int, prefix: int) -> bool:
        """Whether any member has ``prefix`` as its ``k`` low bytes."""

    def contains(self, x: int) -> bool:
        """Whether x is a member."""

    def bounds(self) -> tuple[int, int] | None:
        """Least and greatest member; None when there is none."""


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


def _progression(lo: int, hi: int, mod: int, rem: int, k: int, prefix: int) -> tuple[int, int, int]:
    """The y with prefix + y * 256**k in [lo, hi] and congruent to rem: (first, step, how many)."""
    shift = 8 * k
    unit = 1 << shift
    low = 0 if lo <= prefix else (lo - prefix + unit - 1) >> shift
    high = (hi - prefix) >> shift
    if high < low:
        return 0, 1, 0
    if mod == 1:
        return low, 1, high - low + 1
    common = gcd(unit, mod)
    gap = rem - prefix
    if gap % common:
        return 0, 1, 0
    step = mod // common
    if step == 1:
        return low, 1, high - low + 1
    want = (gap // common) * pow(unit // common, -1, step) % step
    first = low + (want - low) % step
    if first > high:
        return 0, 1, 0
    return first, step, (high - first) // step + 1


class Span:
    """Integers of [lo, hi] congruent to ``rem`` modulo ``mod`` (any mod >= 1)."""

    __slots__ = ("hi", "lo", "mod", "rem")

    def __init__(self, lo: int, hi: int, mod: int = 1, rem: int = 0) -> None:
        self.lo, self.hi, self.mod, self.rem = max(lo, 0), hi, mod, rem % mod

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`: the bytes form an arithmetic progression modulo 256."""
        first, step, count = _progression(self.lo, self.hi, self.mod, self.rem, k, prefix)
        if not count:
            return
        if step == 1:
            if count >= 256:
                out[:256] = True
                return
            start = first & 255
            stop = start + count
            out[start : min(stop, 256)] = True
            if stop > 256:
                out[: stop - 256] = True
        elif count == 1:
            out[first & 255] = True
        else:
            period = 256 // gcd(step, 256)
            out[((first & 255) + (step & 255) * _COUNT[: min(count, period)]) & 255] = True

    def mask(self, k: int, prefix: int) -> np.ndarray:
        """bool[257], read-only: the bytes that `mark` sets."""
        first, step, count = _progression(self.lo, self.hi, self.mod, self.rem, k, prefix)
        return _progression_mask(first & 255, step & 255, count if count < 256 else 256)

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`."""
        return _progression(self.lo, self.hi, self.mod, self.rem, k, prefix)[2] > 0

    def contains(self, x: int) -> bool:
        """See `Piece.contains`."""
        return self.lo <= x <= self.hi and x % self.mod == self.rem

    def bounds(self) -> tuple[int, int] | None:
        """See `Piece.bounds`."""
        low = self.lo + (self.rem - self.lo) % self.mod
        return (low, self.hi - (self.hi - self.rem) % self.mod) if low <= self.hi else None


@lru_cache(maxsize=8192)
def _progression_mask(first: int, step: int, count: int) -> np.ndarray:
    """bool[257], read-only: ``count`` bytes from ``first`` on, ``step`` apart, modulo 256."""
    out = np.zeros(257, dtype=bool)
    out[(first + step * _COUNT[:count]) & 255] = True
    out.flags.writeable = False
    return out


class Window:
    """Integers of [lo, hi] whose value modulo ``period`` (a power of two) lies in [first, last]."""

    __slots__ = ("_parts", "first", "hi", "last", "lo", "mid_hi", "mid_lo", "period")

    def __init__(self, lo: int, hi: int, period: int, first: int, last: int) -> None:
        lo = max(lo, 0)
        self.lo, self.hi, self.period, self.first, self.last = lo, hi, period, first, last
        below, above = lo // period, hi // period
        parts = [Span(max(lo, below * period + first), min(hi, below * period + last))]
        if above > below:
            parts.append(Span(above * period + first, min(hi, above * period + last)))
        self._parts = parts
        self.mid_lo, self.mid_hi = below + 1, above - 1

    def _middles(self, k: int, prefix: int) -> list[Span]:
        """Spans over the whole periods, one for each residue that agrees with the fixed bytes."""
        unit = 1 << 8 * k
        step = min(unit, self.period)
        rem = prefix % step
        start = self.first + (rem - self.first) % step
        lo, hi, period = self.mid_lo * self.period, self.mid_hi * self.period, self.period
        return [Span(lo + r, hi + r, period, r) for r in range(start, self.last + 1, step)]

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`."""
        for part in self._parts:
            part.mark(k, prefix, out)
        if self.mid_lo > self.mid_hi:
            return
        if 1 << 8 * (k + 1) <= self.period:
            Span(self.first, self.last).mark(k, prefix, out)
        else:
            for part in self._middles(k, prefix):
                part.mark(k, prefix, out)

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`."""
        if any(part.has(k, prefix) for part in self._parts):
            return True
        if self.mid_lo > self.mid_hi:
            return False
        if 1 << 8 * k <= self.period:
            return Span(self.first, self.last).has(k, prefix)
        return any(part.has(k, prefix) for part in self._middles(k, prefix))

    def contains(self, x: int) -> bool:
        """See `Piece.contains`."""
        return self.lo <= x <= self.hi and self.first <= x % self.period <= self.last

    def bounds(self) -> tuple[int, int] | None:
        """See `Piece.bounds`."""
        ends = [b for b in (part.bounds() for part in self._parts) if b]
        if self.mid_lo <= self.mid_hi:
            ends.append((self.mid_lo * self.period + self.first, self.mid_hi * self.period + self.last))
        return (min(a for a, _ in ends), max(b for _, b in ends)) if ends else None


_FEW = 128
_NONE = np.zeros(0, np.uint64)


class Finite:
    """The listed integers (each below 2**64)."""

    __slots__ = ("_array", "_few", "_members")

    def __init__(self, values: object) -> None:
        listed = values.tolist() if isinstance(values, np.ndarray) and len(values) <= _FEW else values
        few = None if isinstance(listed, np.ndarray) else frozenset(listed)  # type: ignore[call-overload,arg-type]
        if few is not None and len(few) <= _FEW:
            self._few: tuple[int, ...] | None = tuple(sorted(few))
            self._members: frozenset[int] | None = few
            self._array = _NONE
        else:
            self._few = self._members = None
            array = np.array(listed if few is None else list(few), np.uint64)
            array.sort()
            self._array = array[np.flatnonzero(np.diff(array, prepend=~array[:1]))]

    def members(self) -> np.ndarray:
        """uint64, ascending: all of them."""
        return self._array if self._few is None else np.array(self._few, np.uint64)

    def _matching(self, k: int, prefix: int) -> np.ndarray:
        return self._array[(self._array & np.uint64((1 << 8 * k) - 1)) == np.uint64(prefix)]

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`."""
        shift = 8 * k
        if self._few is not None:
            low = (1 << shift) - 1
            for value in self._few:
                if value & low == prefix:
                    out[(value >> shift) & 255] = True
        else:
            out[((self._matching(k, prefix) >> np.uint64(shift)) & np.uint64(255)).astype(np.int64)] = True

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`."""
        if self._few is not None:
            low = (1 << 8 * k) - 1
            return any(value & low == prefix for value in self._few)
        if k >= 8:
            return self.contains(prefix)
        return len(self._matching(k, prefix)) > 0

    def contains(self, x: int) -> bool:
        """See `Piece.contains`."""
        if self._members is not None:
            return x in self._members
        i = int(np.searchsorted(self._array, np.uint64(x)))
        return i < len(self._array) and int(self._array[i]) == x

    def bounds(self) -> tuple[int, int] | None:
        """See `Piece.bounds`."""
        if self._few is not None:
            return (self._few[0], self._few[-1]) if self._few else None
        return int(self._array[0]), int(self._array[-1])


class Bits:
    """Integers with every bit of ``must`` set and none outside ``may`` (must is part of may)."""

    __slots__ = ("may", "must")

    def __init__(self, may: int, must: int = 0) -> None:
        self.may, self.must = may | must, must

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`: every byte is independent of the others."""
        if self.has(k, prefix):
            may, must = (self.may >> 8 * k) & 255, (self.must >> 8 * k) & 255
            out[:256] |= (_COUNT & ~may == 0) & (_COUNT & must == must)

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`."""
        low = (1 << 8 * k) - 1
        must = self.must & low
        return prefix & ~(self.may & low) == 0 and prefix & must == must

    def contains(self, x: int) -> bool:
        """See `Piece.contains`."""
        return x & ~self.may == 0 and x & self.must == self.must

    def bounds(self) -> tuple[int, int] | None:
        """See `Piece.bounds`."""
        return self.must, self.may


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
        out = np.zeros(257, dtype=bool)
        for piece in self.pieces:
            piece.mark(k, prefix, out)
        out.flags.writeable = False
        self._keep(k, prefix, out)
        return out

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
