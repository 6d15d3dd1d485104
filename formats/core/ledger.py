"""The ledger of promises: byte ranges ahead that a header has already described.

A range is reserved for one kind of content. Ranges do not overlap; two promises may share a range when they
are the same in place and kind. Ranges are sorted by start, and the ledger is immutable, so a step keeps it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any, NamedTuple


class Region(NamedTuple):
    """Bytes [start, end) promised to hold ``kind``; ``detail`` is what its grammar needs to know."""

    start: int
    end: int
    kind: str
    path: str
    detail: Any = None


class Ledger:
    """Sorted, disjoint promises of a file that is at most ``limit`` bytes long."""

    __slots__ = ("_asked", "_starts", "limit", "more", "regions")

    def __init__(self, limit: int, regions: tuple[Region, ...] = ()) -> None:
        self.limit = limit
        self.regions = regions
        self._starts = [region.start for region in regions]
        self._asked: tuple[int, list[tuple[int, int]]] = (-1, [])  # the last answer of `gaps`
        # What it was made from by one promise, new or longer: what is known of that ledger need not be found anew.
        self.more: tuple[Ledger, Region] | None = None

    def add(self, region: Region) -> Ledger:
        """A ledger with one promise more; a promise of the same place and kind is kept once."""
        i = bisect_left(self._starts, region.start)
        if i < len(self.regions) and self.regions[i].start == region.start:
            return self
        return self.inserted(i, region)

    def inserted(self, i: int, region: Region) -> Ledger:
        """A ledger with a promise more, before the ``i``-th."""
        new = object.__new__(Ledger)
        new.limit, new._asked, new.more = self.limit, (-1, []), (self, region)
        new.regions = (*self.regions[:i], region, *self.regions[i:])
        starts = self._starts.copy()
        starts.insert(i, region.start)
        new._starts = starts
        return new

    def replace(self, old: Region, new: Region) -> Ledger:
        """A ledger with the detail of one promise changed."""
        return Ledger(self.limit, tuple(new if region is old else region for region in self.regions))

    def without(self, kind: str) -> Ledger:
        """A ledger without the promises of a kind."""
        kept = tuple(region for region in self.regions if region.kind != kind)
        return self if len(kept) == len(self.regions) else Ledger(self.limit, kept)

    def after(self, position: int) -> Region | None:
        """The first promise that starts at or after ``position``."""
        i = bisect_left(self._starts, position)
        return self.regions[i] if i < len(self.regions) else None

    def at(self, start: int, kind: str) -> Region | None:
        """The promise of that kind which starts there."""
        i = bisect_left(self._starts, start)
        if i < len(self.regions) and self.regions[i].start == start and self.regions[i].kind == kind:
            return self.regions[i]
        return None

    def gaps(self, position: int) -> list[tuple[int, int]]:
        """The ranges [start, end) from ``position`` to the limit that nobody has been promised; not to be changed."""
        first = position
        if self._asked[0] == first:
            return self._asked[1]
        gaps = []
        for region in self.regions[max(bisect_right(self._starts, position) - 1, 0) :]:
            if region.end <= position:
                continue
            if region.start > position:
                gaps.append((position, region.start))
            position = region.end
        if position < self.limit:
            gaps.append((position, self.limit))
        self._asked = first, gaps
        return gaps

    def room(self, position: int, start: int) -> int:
        """Bytes free from ``start`` (at or after ``position``) to the next promise or the limit."""
        for low, high in self.gaps(position):
            if low <= start < high:
                return high - start
        return 0

    def end(self) -> int:
        """Where the last promise ends; 0 when there is none."""
        return self.regions[-1].end if self.regions else 0
