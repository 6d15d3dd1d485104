"""The ledger of promises: byte ranges ahead that a header has already described.

A range is reserved for one kind of content. Ranges do not overlap; two promises may share a range when they
are the same in place and kind. Ranges are sorted by start, and the ledger is immutable, so a step keeps it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

_MOST = 64  # promises in a part


class Region(NamedTuple):
    """Bytes [start, end) promised to hold ``kind``; ``detail`` is what its grammar needs to know."""

    start: int
    end: int
    kind: str
    path: str
    detail: Any = None


class Ledger:
    """Sorted, disjoint promises of a file that is at most ``limit`` bytes long.

    They are kept in parts, which a ledger shares with the one that it was made from: every step of a file has its
    own ledger, and a table of names promises thousands of places.
    """

    __slots__ = ("_asked", "_firsts", "_parts", "limit", "more")

    def __init__(self, limit: int, regions: tuple[Region, ...] = ()) -> None:
        self.limit = limit
        half = _MOST // 2
        self._parts = tuple(regions[i : i + half] for i in range(0, len(regions), half))
        self._firsts = [part[0].start for part in self._parts]
        self._asked: tuple[int, list[tuple[int, int]]] = (-1, [])  # the last answer of `gaps`
        # What it was made from by one promise, new or longer: what is known of that ledger need not be found anew.
        self.more: tuple[Ledger, Region] | None = None

    @property
    def regions(self) -> tuple[Region, ...]:
        """All promises."""
        return self._parts[0] if len(self._parts) == 1 else tuple(chain.from_iterable(self._parts))

    def _place(self, start: int) -> tuple[int, int]:
        """Part, and index in it, of the first promise that starts at or after ``start``."""
        i = bisect_right(self._firsts, start) - 1
        if i < 0:
            return 0, 0
        j = bisect_left(self._parts[i], (start,))
        return (i, j) if j < len(self._parts[i]) else (i + 1, 0)

    def _with(self, i: int, *parts: tuple[Region, ...]) -> Ledger:
        """A ledger with these parts in place of the ``i``-th."""
        new = object.__new__(Ledger)
        new.limit, new.more, new._asked = self.limit, None, (-1, [])
        new._parts = (*self._parts[:i], *parts, *self._parts[i + 1 :])
        new._firsts = self._firsts.copy()
        new._firsts[i : i + 1] = [part[0].start for part in parts]
        return new

    def add(self, region: Region) -> Ledger:
        """A ledger with one promise more; the same one where there is one at its start already."""
        i, j = self._place(region.start)
        if i < len(self._parts) and self._parts[i][j].start == region.start:
            return self
        if i == len(self._parts) and i:
            i, j = i - 1, len(self._parts[-1])
        part = self._parts[i] if self._parts else ()
        part = (*part[:j], region, *part[j:])
        half = len(part) // 2
        new = self._with(i, part) if len(part) <= _MOST else self._with(i, part[:half], part[half:])
        new.more = self, region
        return new

    def replace(self, old: Region, new: Region) -> Ledger:
        """A ledger with another promise, of the same start, for one of its own."""
        i, j = self._place(old.start)
        part = self._parts[i]
        assert part[j] is old
        assert new.start == old.start
        return self._with(i, (*part[:j], new, *part[j + 1 :]))

    def grown(self, start: int, end: int) -> Ledger:
        """A ledger in which the promise at ``start`` ends at ``end``."""
        old = self.after(start)
        assert old is not None
        assert old.start == start
        longer = old._replace(end=end)
        new = self.replace(old, longer)
        if end >= old.end:
            new.more = self, longer
        return new

    def each(self, change: Callable[[Region], Region]) -> Ledger:
        """A ledger with what ``change`` makes of each promise, at its start."""
        return Ledger(self.limit, tuple(map(change, self.regions)))

    def where(self, keep: Callable[[Region], bool]) -> Ledger:
        """A ledger of the promises that ``keep`` takes."""
        kept = [tuple(filter(keep, part)) for part in self._parts]
        if all(len(part) == len(old) for part, old in zip(kept, self._parts, strict=True)):
            return self
        return Ledger(self.limit, tuple(chain.from_iterable(kept)))

    def without(self, kind: str) -> Ledger:
        """A ledger without the promises of a kind."""
        return self.where(lambda region: region.kind != kind)

    def dropped(self, region: Region) -> Ledger:
        """A ledger without one promise; the one before it, where it came last."""
        if self.more is not None and self.more[1] is region:
            older = self.more[0]
            beside = older.after(region.start)
            if beside is None or beside.start > region.start:  # it was no shorter one there
                return older
        i, j = self._place(region.start)
        if i == len(self._parts) or self._parts[i][j] is not region:
            return self
        part = (*self._parts[i][:j], *self._parts[i][j + 1 :])
        return self._with(i, part) if part else self._with(i)

    def after(self, position: int) -> Region | None:
        """The first promise that starts at or after ``position``."""
        i, j = self._place(position)
        return self._parts[i][j] if i < len(self._parts) else None

    def before(self, position: int) -> Region | None:
        """The last promise that starts before ``position``."""
        i, j = self._place(position)
        if j:
            return self._parts[i][j - 1]
        return self._parts[i - 1][-1] if i else None

    def at(self, start: int, kind: str) -> Region | None:
        """The promise of that kind which starts there."""
        found = self.after(start)
        return found if found is not None and found.start == start and found.kind == kind else None

    def starting(self, position: int) -> Iterator[Region]:
        """The promises that start at or after ``position``."""
        i, j = self._place(position)
        if i < len(self._parts):
            yield from self._parts[i][j:]
            yield from chain.from_iterable(self._parts[i + 1 :])

    def gaps(self, position: int) -> list[tuple[int, int]]:
        """The ranges [start, end) from ``position`` to the limit that nobody has been promised; not to be changed."""
        if self._asked[0] == position:
            return self._asked[1]
        if len(self._parts) > 1:  # to keep each ledger's would take more than its promises do
            return _gaps_of_many(self, position)
        found = _gaps(self, position)
        self._asked = position, found
        return found

    def room(self, start: int, position: int = 0) -> int:
        """Bytes free from ``start`` to the next promise or the limit; 0 inside of one, and before ``position``."""
        before, following = self.before(start + 1), self.after(start + 1)
        if start < position or (before is not None and before.end > start):
            return 0
        return max((self.limit if following is None else following.start) - start, 0)

    def end(self) -> int:
        """Where the last promise ends; 0 when there is none."""
        return self._parts[-1][-1].end if self._parts else 0


def _gaps(ledger: Ledger, position: int) -> list[tuple[int, int]]:
    gaps = []
    before = ledger.before(position)
    if before is not None:
        position = max(position, before.end)
    for region in ledger.starting(position):
        if region.start > position:
            gaps.append((position, region.start))
        position = region.end
    if position < ledger.limit:
        gaps.append((position, ledger.limit))
    return gaps


_gaps_of_many = lru_cache(maxsize=16)(_gaps)
