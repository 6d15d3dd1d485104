"""Where sections may lie: the exact joint rules of addresses, sizes and file offsets.

Sections are written in ascending order of address and of file offset. Each begins where the one before ends,
rounded up to ``page`` (SectionAlignment); the first begins at ``low`` and the last ends at ``top``. What is
owed are address ranges (the entry point, the data directories), each inside the file-backed part of one
section. The file-backed part of a section is a prefix of it, begins at a multiple of ``block``
(FileAlignment), after the one before, and all of them end by ``limit``.

*Clusters* are the needs merged where they share a page, since no section boundary fits between them. A section
that holds clusters i to j and begins with the page of i costs the bytes from there to the end of j. So the
least cost of all is the span from ``low`` to the end of the last cluster, less the gaps between clusters at
which a section ends: with n sections, the n - 1 largest. That is the whole system: a field's set is what keeps
that cost within the file, and the boundaries left at least as many as the sections left.

Sources: LIEF's check_layout (order, no gaps between addresses, raw data in the file), Microsoft's PE format
specification (alignments), pefile (a raw pointer that is no multiple of FileAlignment).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from bytegen.formats.core.pieces import Piece, Span
from bytegen.formats.pe.sets import Slot

Range = tuple[int, int]
_NEVER = -(1 << 80)


def up(value: int, step: int) -> int:
    """The least multiple of ``step`` that is not below ``value``."""
    return -(-value // step) * step


def greatest(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The greatest x of [low, high] that holds, where ``low`` does and so does everything below one that does."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


class Cluster(NamedTuple):
    """Needs that one section must hold: their first page, their end, and the end of their last page."""

    first: int
    end: int
    last: int


def clustered(low: int, page: int, needs: Iterable[Range]) -> list[Cluster]:
    """The clusters of sorted needs, after an empty one at ``low`` where the first section begins."""
    found = [Cluster(low, low, low)]
    for start, end in needs:
        first, last = start - start % page, up(end, page)
        before = found[-1]
        if first < before.last:
            found[-1] = Cluster(before.first, max(before.end, end), max(before.last, last))
        else:
            found.append(Cluster(first, end, last))
    return found


def _best(savings: list[int], count: int) -> int:
    """The sum of the ``count`` largest; far below zero where the count is negative."""
    if count < 0:
        return _NEVER
    if count >= len(savings):
        return sum(savings)
    return sum(sorted(savings, reverse=True)[:count])


class Layout:
    """The sections that remain: ``slots`` of them, from address ``low`` to ``top``, raw data from ``start``."""

    __slots__ = ("block", "clusters", "glued", "limit", "low", "needs", "page", "slots", "start", "top")

    def __init__(
        self,
        page: int,
        block: int,
        start: int,
        low: int,
        top: int,
        slots: int,
        limit: int,
        needs: tuple[Range, ...],
    ) -> None:
        self.page, self.block, self.start, self.low, self.top = page, block, start, low, top
        self.slots, self.limit, self.needs = slots, limit, needs
        self.clusters = clustered(low, page, needs)
        self.glued = sum((c.last - c.first) // page - 1 for c in self.clusters[1:])

    def replaced(self, *, top: int | None = None, needs: tuple[Range, ...] | None = None) -> Layout:
        """A copy with another top or other needs."""
        return Layout(
            self.page,
            self.block,
            self.start,
            self.low,
            self.top if top is None else top,
            self.slots,
            self.limit,
            self.needs if needs is None else needs,
        )

    def _savings(self) -> list[int]:
        """What ending a section in each gap between clusters saves."""
        block, clusters = self.block, self.clusters
        return [clusters[i + 1].first - up(clusters[i].end, block) for i in range(len(clusters) - 1)]

    def cost(self) -> int:
        """The fewest bytes of raw data that hold every need."""
        return self.clusters[-1].end - self.low - _best(self._savings(), self.slots - 1)

    def feasible(self) -> bool:
        """Whether the sections that remain can hold every need."""
        last = self.clusters[-1]
        if self.needs and self.needs[0][0] < self.low:
            return False
        if last.last > self.top or self.slots > (self.top - self.low) // self.page - self.glued:
            return False
        if not self.slots:
            return self.low == self.top and len(self.clusters) == 1
        return len(self.clusters) == 1 or self.start + self.cost() <= self.limit

    def fits(self, start: int, end: int) -> bool:
        """Whether the range can be owed as well."""
        return start >= self.low and self.replaced(needs=with_need(self.needs, (start, end))).feasible()

    def _greatest(self, low: int, high: int, size: int) -> int:
        """The greatest x of [low, high] where [x, x + size) fits, if that holds from ``low`` on up to some x."""
        if low > high or not self.fits(low, low + size):
            return low - 1
        return greatest(low, high, lambda x: self.fits(x, x + size))

    def places(self, size: int, align: int = 1) -> list[Slot]:
        """The x where [x, x + size) can be owed as well; size is at most a page."""
        found: list[Slot] = []
        page = self.page
        for i, cluster in enumerate(self.clusters):
            following = self.clusters[i + 1] if i + 1 < len(self.clusters) else None
            most = min(cluster.last - 1, self.top - size)
            most = self._greatest(cluster.first, most, size)
            found.append(Slot(cluster.first, most, page, 0, page - 1, align))
            found += self._between(i, size, align)
            # A range that begins in the page before a cluster and ends in it.
            if following is not None and following.first - page >= cluster.last:
                least = max(following.first - size + 1, following.first - page)
                most = self._greatest(least, following.first - 1, size)
                found.append(Slot(least, most, page, 0, page - 1, align))
        return [slot for slot in found if slot.lo <= slot.hi and slot.bounds()]

    def _between(self, i: int, size: int, align: int) -> list[Slot]:
        """The places in the gap after cluster ``i`` that touch no page of another cluster."""
        page, block, slots = self.page, self.block, self.slots
        cluster, final = self.clusters[i], i + 1 == len(self.clusters)
        low, after = cluster.last, self.top if final else self.clusters[i + 1].first
        high = after - size
        spare = (self.top - self.low) // page - self.glued - slots
        last = page - 1 if spare >= 1 else page - size
        savings = self._savings()
        room = self.limit - self.start
        here = up(cluster.end, block)
        if final:
            uncut = _best(savings, slots - 1)
            cut = _best(savings, slots - 2)
            return [
                Slot(low, min(high, room + self.low + uncut - size), page, 0, last, align),
                Slot(low, high, page, 0, min(last, room + self.low + cut - here - size), align),
            ]
        del savings[i]
        owed = self.clusters[-1].end - self.low - room  # what the cuts must save
        none, one, two = (_best(savings, slots - 1 - cuts) for cuts in range(3))
        if none >= owed:
            return [Slot(low, high, page, 0, last, align)]
        before = max(low, up(here + owed - one, page)) if one > _NEVER else high + 1
        behind = (after - owed + one) // block * block - size
        both = (after - here - owed + two) // block * block - size
        return [
            Slot(before, high, page, 0, last, align),
            Slot(low, min(high, behind), page, 0, last, align),
            Slot(low, high, page, 0, min(last, both), align),
        ]

    def most(self, start: int, least: int) -> int:
        """The greatest size from ``least`` on of a range at ``start`` that can be owed; least - 1 if none."""
        low, high = least, self.top - start
        if low > high or not self.fits(start, start + low):
            return least - 1
        return greatest(low, high, lambda size: self.fits(start, start + size))

    def tops(self, highest: int) -> Piece:
        """The values of ``top`` (SizeOfImage), multiples of the page."""
        least = max(self.clusters[-1].last, self.low + (self.slots + self.glued) * self.page)
        return Span(least, highest, self.page)

    # One section: VirtualSize, SizeOfRawData, PointerToRawData.

    def after(self, size: int) -> Layout:
        """What remains after a section of that VirtualSize, with no raw data counted."""
        low = self.low + up(size, self.page)
        needs = tuple(need for need in self.needs if need[0] >= low)
        return Layout(self.page, self.block, self.start, low, self.top, self.slots - 1, self.limit, needs)

    def need(self, size: int) -> int:
        """How many bytes of a section of that VirtualSize are owed."""
        low = self.low + up(size, self.page)
        return max((end - self.low for start, end in self.needs if start < low), default=0)

    def virtual_sizes(self) -> list[Span]:
        """The values of VirtualSize of the section at ``low``."""
        found = []
        low, page, block, slots = self.low, self.page, self.block, self.slots
        clusters, savings = self.clusters, self._savings()
        glued = self.glued
        for j, cluster in enumerate(clusters):
            if j:
                glued -= (cluster.last - cluster.first) // page - 1
            final = j + 1 == len(clusters)
            least = max(cluster.last, low + page)
            most = self.top - page * (slots - 1 + glued)
            room = self.limit - self.start
            if final:
                if cluster.end > low and cluster.end - low > room:
                    continue
                if slots == 1:
                    least = max(least, self.top)
            else:
                if slots == 1:
                    continue
                most = min(most, clusters[j + 1].first)
                room -= up(cluster.end, block) - low
                later = savings[j + 1 :]
                uncut, cut = _best(later, slots - 2), _best(later, slots - 3)
                if clusters[-1].end - clusters[j + 1].first - cut > room:
                    least = max(least, up(clusters[-1].end - uncut - room, page))
            if least <= most:
                found.append(Span(max(least - page + 1 - low, cluster.end - low, 1), most - low))
        return found

    def _room(self, rest: int) -> int:
        """The offset by which this section's raw data ends, where later ones cost ``rest`` bytes."""
        return (self.limit - rest) // self.block * self.block if rest else self.limit

    def raw_sizes(self, size: int) -> tuple[int, int]:
        """The least and greatest SizeOfRawData above zero of a section of that VirtualSize."""
        room = self._room(self.after(size).cost() if self.slots > 1 else 0) - self.start
        return max(self.need(size), 1), min(room, up(size, max(self.block, 4096)))

    def pointers(self, size: int, raw_size: int) -> tuple[int, int]:
        """The least and greatest PointerToRawData of a section of these sizes, multiples of the block."""
        room = self._room(self.after(size).cost() if self.slots > 1 else 0)
        return self.start, (room - raw_size) // self.block * self.block


def with_need(needs: tuple[Range, ...], need: Range) -> tuple[Range, ...]:
    """Sorted needs with one more."""
    return tuple(sorted((*needs, need)))
