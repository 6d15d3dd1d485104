# cython: boundscheck=False
"""The parts of which sets of integers are made (`intset`): each answers exactly which byte may come next.

Source of the arithmetic: a prefix fixes x modulo 256**k; with x = prefix + y * 256**k, an interval of x is
an interval of y, a congruence of x a congruence of y (Chinese remainder), and the next byte is y mod 256.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import gcd
from typing import Protocol

import numpy as np

_FITS = 1 << 62  # numbers below it, either way, are reckoned with in 64 bits
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

    __slots__ = ("_plain", "hi", "lo", "mod", "rem")

    def __init__(self, lo: int, hi: int, mod: int = 1, rem: int = 0) -> None:
        self.lo, self.hi, self.mod, self.rem = max(lo, 0), hi, mod, rem % mod
        # Nearly all: powers of two, and numbers that a machine's word holds.
        self._plain = -_FITS < hi < _FITS and lo < _FITS and mod < _FITS and not mod & (mod - 1)

    # For those, with y as above: the first, and how far apart they are.

    def _first(self, k: int, prefix: int) -> int:
        """The least y with a member, -1 where there is none."""
        lo, hi, mod, rem, shift = self.lo, self.hi, self.mod, self.rem, 8 * k
        one = 1  # of 64 bits
        unit = one << shift
        first = 0 if lo <= prefix else lo - prefix + unit - 1 >> shift
        if mod > 1:
            gap = rem - prefix
            if gap & (mod if mod < unit else unit) - 1:
                return -1
            if mod > unit:
                first += (gap >> shift) - first & (mod >> shift) - 1
        return first if first <= hi - prefix >> shift else -1

    def write(self, k: int, prefix: int, cells: memoryview, row: int, out: np.ndarray) -> None:
        """`mark`, into that row of the cells of `Blanks`, which is ``out``."""
        if not self._plain or k > 6:
            self.mark(k, prefix, out)
            return
        first = self._first(k, prefix)
        if first < 0:
            return
        hi, fixed, step = self.hi, prefix, self.mod
        last = hi - fixed >> 8 * k
        step = max(step >> 8 * k, 1)
        if last - first >= 256:
            last = first + 255
        if step > 256:
            step = 256
        while first <= last:
            cells[row, first & 255] = 1
            first += step

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
        if self._plain and k <= 6:
            least = self._first(k, prefix)
            hi, fixed, apart = self.hi, prefix, self.mod
            apart = max(apart >> 8 * k, 1)
            many = (hi - fixed >> 8 * k) - least
            many = 0 if least < 0 else min(many // apart + 1, 256)
            return _progression_mask(least & 255, apart & 255, many)
        first, step, count = _progression(self.lo, self.hi, self.mod, self.rem, k, prefix)
        return _progression_mask(first & 255, step & 255, count if count < 256 else 256)

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`."""
        if self._plain and k <= 6:
            return self._first(k, prefix) >= 0
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
_MANY = 256  # of a list, which no set is made of
_NONE = np.zeros(0, np.uint64)


class Finite:
    """The listed integers (each below 2**64)."""

    __slots__ = ("_array", "_few")

    def __init__(self, values: object) -> None:
        listed = values.tolist() if isinstance(values, np.ndarray) and len(values) <= _FEW else values
        many = isinstance(listed, np.ndarray) or (isinstance(listed, list) and len(listed) > _MANY)
        few = None if many else frozenset(listed)  # type: ignore[call-overload,arg-type]
        if few is not None and len(few) <= _FEW:
            self._few: tuple[int, ...] | None = tuple(sorted(few))
            self._array = _NONE
        else:
            self._few = None
            array = np.array(listed if few is None else list(few), np.uint64)
            array.sort()
            self._array = array[np.flatnonzero(np.diff(array, prepend=~array[:1]))]

    def members(self) -> np.ndarray:
        """uint64, ascending: all of them."""
        return self._array if self._few is None else np.array(self._few, np.uint64)

    def _matching(self, k: int, prefix: int) -> np.ndarray:
        return self._array[(self._array & np.uint64((1 << 8 * k) - 1)) == np.uint64(prefix)]

    def write(self, k: int, prefix: int, cells: memoryview, row: int, out: np.ndarray) -> None:
        """`mark`, into that row of the cells of `Blanks`, which is ``out``."""
        if self._few is None or k > 7:
            self.mark(k, prefix, out)
            return
        shift, fixed, low = 8 * k, prefix, 1  # ``low`` is of 64 bits
        low = (low << shift) - 1
        for value in self._few:
            if value & low == fixed:
                cells[row, value >> shift & 255] = 1

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
        if self._few is not None:
            return x in self._few
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

    def write(self, k: int, prefix: int, cells: memoryview, row: int, out: np.ndarray) -> None:
        """`mark`, into that row of the cells of `Blanks`, which is ``out``."""
        if not self.has(k, prefix):
            return
        may, must, byte = (self.may >> 8 * k) & 255, (self.must >> 8 * k) & 255, 0
        while byte < 256:
            if not byte & ~may and not must & ~byte:
                cells[row, byte] = 1
            byte += 1

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`: every byte is independent of the others."""
        self.write(k, prefix, memoryview(out.view(np.uint8)[None]), 0, out)  # type: ignore[arg-type]

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


class Ranges:
    """Integers of any of many intervals [lo, hi], below 2**62, that are ``rem`` modulo ``mod``.

    ``mod`` is a power of two up to 256. It marks what as many `Span`s would, at once.
    """

    __slots__ = ("highs", "lows", "mod", "rem")

    def __init__(self, parts: Iterable[tuple[int, int]] | np.ndarray, mod: int = 1, rem: int = 0) -> None:
        self.mod, self.rem = mod, rem % mod
        table = np.array(parts if isinstance(parts, list | np.ndarray) else list(parts), np.int64)
        lows, highs = table.reshape(-1, 2).T
        if mod > 1:  # from the first member to the last
            lows, highs = lows + (rem - lows) % mod, highs - (highs - rem) % mod
        there = lows <= highs
        self.lows, self.highs = lows[there], highs[there]

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`."""
        if k and prefix % self.mod != self.rem:
            return
        cells = memoryview(out.view(np.uint8))  # type: ignore[arg-type]
        lows, highs = memoryview(self.lows), memoryview(self.highs)  # type: ignore[arg-type]
        fixed, shift, step, left = prefix, 8 * k, self.mod if k == 0 else 1, 256
        one = 1  # of 64 bits
        unit = one << shift
        for i in range(len(lows)):
            low, high = lows[i], highs[i]
            last = high - fixed >> shift
            first = 0 if low <= fixed else low - fixed + unit - 1 >> shift
            if last - first >= 256:
                last = first + 255
            while first <= last:  # a range with a step in a variable is not compiled to a loop
                if not cells[first & 255]:
                    cells[first & 255] = 1
                    left -= step
                first += step
            if left <= 0:
                return

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`."""
        if k and prefix % self.mod != self.rem:
            return False
        shift = 8 * k
        first = np.maximum(-((prefix - self.lows) >> shift), 0)
        return bool((self.highs - prefix >> shift >= first).any())

    def contains(self, x: int) -> bool:
        """See `Piece.contains`."""
        return x % self.mod == self.rem and bool(((self.lows <= x) & (x <= self.highs)).any())

    def bounds(self) -> tuple[int, int] | None:
        """See `Piece.bounds`."""
        return (int(self.lows.min()), int(self.highs.max())) if len(self.lows) else None
