"""Pieces of integer sets (see `bytegen.formats.core.intset.Piece`) that only PE files need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from bytegen.formats.core.pieces import Piece, Window
from bytegen.formats.core.recent import Replayed, remember


class Slot:
    """Integers of [lo, hi] whose value modulo ``period`` lies in [first, last], multiples of ``align``.

    ``period`` and ``align`` are powers of two; align is at most 256 and at most the period.
    """

    __slots__ = ("_window", "align", "first", "hi", "last", "lo", "period")

    def __init__(self, lo: int, hi: int, period: int, first: int, last: int, align: int = 1) -> None:
        self.lo, self.hi, self.period, self.first, self.last, self.align = lo, hi, period, first, last, align
        self._window = Window(lo, hi, period, first, last)

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`: the alignment is a matter of the first byte alone."""
        if k:
            if prefix % self.align == 0:
                self._window.mark(k, prefix, out)
            return
        whole = np.zeros(257, dtype=bool)
        self._window.mark(0, 0, whole)
        out[: 256 : self.align] |= whole[: 256 : self.align]

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`."""
        if k:
            return prefix % self.align == 0 and self._window.has(k, prefix)
        return self.bounds() is not None

    def contains(self, x: int) -> bool:
        """See `Piece.contains`."""
        return x % self.align == 0 and self._window.contains(x)

    def bounds(self) -> tuple[int, int] | None:
        """See `Piece.bounds`."""
        least, most = self._least(), self._most()
        return (least, most) if least is not None and most is not None else None

    def _least(self) -> int | None:
        align, period = self.align, self.period
        first = -(-self.first // align) * align
        if first > self.last:
            return None
        low = -(-max(self.lo, 0) // align) * align
        inside = low % period
        if inside > self.last:
            low += period - inside + first
        elif inside < first:
            low += first - inside
        return low if low <= self.hi else None

    def _most(self) -> int | None:
        align, period = self.align, self.period
        last = self.last // align * align
        if last < self.first:
            return None
        high = self.hi // align * align
        inside = high % period
        if inside < self.first:
            high -= inside + period - last
        elif inside > last:
            high -= inside - last
        return high if high >= self.lo else None


class When:
    """Pieces that are worked out only when a mask asks for them; ``contains`` answers for one value at once.

    All members are multiples of ``align``: no piece is asked for that could add nothing to a mask.
    """

    __slots__ = ("_align", "_build", "_pieces", "contains")

    def __init__(
        self, contains: Callable[[int], bool], build: Callable[[], Iterable[Piece]], align: int = 1
    ) -> None:
        self.contains = contains
        self._build = build
        self._align = align
        self._pieces: Replayed[Piece] | None = None

    def pieces(self) -> Iterator[Piece]:
        """The pieces, each made when it is asked for."""
        pieces = self._pieces
        if pieces is None:
            pieces = self._pieces = Replayed(self._build())
            remember(self)
        return iter(pieces)

    def forget(self) -> None:
        """Lets go of the pieces, which can be made again."""
        self._pieces = None

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`."""
        if k and prefix % self._align:
            return
        step, pieces = 1 if k else self._align, self.pieces()
        while 0 in out.tobytes()[:256:step]:  # ten times as fast as `all` of so few
            piece = next(pieces, None)
            if piece is None:
                return
            piece.mark(k, prefix, out)

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`."""
        return any(piece.has(k, prefix) for piece in self.pieces())

    def bounds(self) -> tuple[int, int] | None:
        """See `Piece.bounds`."""
        ends = [b for b in (piece.bounds() for piece in self.pieces()) if b]
        return (min(a for a, _ in ends), max(b for _, b in ends)) if ends else None


class NotBeginning:
    """Integers of ``size`` bytes, the lowest of which (in file order) do not begin with any of ``patterns``.

    No pattern is empty, and none has more than ``size`` bytes.
    """

    __slots__ = ("patterns", "size")

    def __init__(self, size: int, *patterns: bytes) -> None:
        self.size = size
        self.patterns = patterns

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`."""
        if not self.has(k, prefix):
            return
        written = prefix.to_bytes(k, "little")
        last = [p[k] for p in self.patterns if len(p) == k + 1 and p[:k] == written]
        keep = out[last].copy()
        out[:256] = True
        out[last] = keep

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`: some byte is always left."""
        written = prefix.to_bytes(k, "little")
        return not any(written.startswith(p) for p in self.patterns)

    def contains(self, x: int) -> bool:
        """See `Piece.contains`."""
        return self.has(self.size, x)

    def bounds(self) -> tuple[int, int] | None:
        """See `Piece.bounds`: an outer bound."""
        return 0, (1 << 8 * self.size) - 1


class Decimal:
    """Numbers of [lo, hi] written in decimal, without leading zeros, and padded with NULs to ``size`` bytes."""

    __slots__ = ("hi", "lo", "size")

    def __init__(self, size: int, lo: int, hi: int) -> None:
        self.size, self.lo, self.hi = size, lo, min(hi, 10**size - 1)

    def _open(self, digits: bytes) -> bool:
        """Whether the digits can be completed to a member by more digits or none."""
        if not digits:
            return self.lo <= self.hi
        if not digits.isdigit() or (digits[0] == 48 and digits != b"0"):
            return False
        low = high = int(digits)
        if digits == b"0":
            return self.lo <= 0
        for _ in range(self.size - len(digits) + 1):
            if low <= self.hi and high >= self.lo:
                return True
            low, high = low * 10, high * 10 + 9
        return False

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`."""
        written = prefix.to_bytes(k, "little")
        digits = written.rstrip(b"\0")
        if len(digits) == k:
            return self._open(digits)
        return digits.isdigit() and self._open(digits) and self.lo <= int(digits) <= self.hi

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`."""
        for byte in (0, *range(48, 58)):
            if (byte or k) and self.has(k + 1, prefix | byte << 8 * k):
                out[byte] = True

    def contains(self, x: int) -> bool:
        """See `Piece.contains`."""
        digits = x.to_bytes(self.size, "little").rstrip(b"\0")
        return bool(digits) and self._open(digits) and self.lo <= int(digits) <= self.hi

    def bounds(self) -> tuple[int, int] | None:
        """See `Piece.bounds`: an outer bound."""
        return (0, (1 << 8 * self.size) - 1) if self.lo <= self.hi else None
