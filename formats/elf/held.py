"""Where a program header may put what a PT_LOAD holds: inside one already read, or inside one to come.

A *seat* is one way to do it: file bytes that lie inside a PT_LOAD read before, at the address which that gives
them, or addresses at which the PT_LOADs to come can hold them beside all else that they owe. Each seat says
exactly which offsets leave an address, which addresses a given offset has, and up to which size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.elf.constants import PF_W
from bytegen.formats.elf.load import Duties, Run
from bytegen.formats.elf.plan import Held, Plan, Segment
from bytegen.formats.elf.role import down, up


class Seat(Protocol):
    """One way to hold file bytes at an address."""

    def offsets(self, least: int) -> tuple[int, int] | None:
        """(lowest, highest) offset at which ``least`` bytes have an address; None when there is none."""

    def hold(self, offsets: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """bool for each offset and size (int64): whether `offsets` of that size has that offset."""

    def addresses(self, offset: int, least: int) -> list[Piece]:
        """The addresses of ``least`` bytes at that offset."""

    def most(self, offset: int, address: int) -> int:
        """How many bytes at most may lie there; negative when none."""


class Read(NamedTuple):
    """Inside a PT_LOAD already read; with ``lowest`` 1, not at address 0."""

    segment: Segment
    lowest: int = 0

    def offsets(self, least: int) -> tuple[int, int] | None:
        """See `Seat.offsets`."""
        start, last = self._start(), self.segment.offset + self.segment.filesz - least
        return (start, last) if start <= last else None

    def _start(self) -> int:
        return self.segment.offset + max(0, self.lowest - self.segment.address)

    def hold(self, offsets: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """See `Seat.hold`."""
        end = self.segment.offset + self.segment.filesz
        return (offsets >= self._start()) & (offsets + sizes <= end)

    def addresses(self, offset: int, least: int) -> list[Piece]:
        """See `Seat.addresses`."""
        found = self.offsets(least)
        if found is None or not found[0] <= offset <= found[1]:
            return []
        return [Finite((offset + self.segment.shift,))]

    def most(self, offset: int, address: int) -> int:
        """See `Seat.most`."""
        segment = self.segment
        if offset < self._start() or address - offset != segment.shift:
            return -1
        return segment.offset + segment.filesz - offset


class Later(NamedTuple):
    """Addresses [low, high), at a shift from ``least_shift`` to ``most_shift``, of PT_LOADs to come."""

    low: int
    high: int
    least_shift: int
    most_shift: int
    page: int
    limit: int

    def offsets(self, least: int) -> tuple[int, int] | None:
        """See `Seat.offsets`."""
        if self.least_shift > self.most_shift:
            return None
        if self.least_shift < self.most_shift and self.high - self.low - least < self.page:
            return None  # not every offset has an address there
        start = max(0, self.low - self.most_shift)
        last = min(self.limit, self.high - self.least_shift) - least
        return (start, last) if start <= last else None

    def hold(self, offsets: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """See `Seat.hold`."""
        found = self.offsets(0)
        if found is None:
            return np.zeros(len(offsets), dtype=bool)
        good = (offsets >= found[0]) & (offsets + sizes <= found[1])
        if self.least_shift < self.most_shift:
            good &= sizes <= min(self.high - self.low - self.page, self.limit)
        return good

    def addresses(self, offset: int, least: int) -> list[Piece]:
        """See `Seat.addresses`."""
        if self.offsets(least) is None:
            return []
        low = max(self.low, offset + self.least_shift)
        high = min(self.high - least, offset + self.most_shift)
        span = Span(low, high, self.page, offset)
        return [span] if low <= high and span.bounds() is not None else []

    def most(self, offset: int, address: int) -> int:
        """See `Seat.most`."""
        shift = address - offset
        if not self.least_shift <= shift <= self.most_shift or shift % self.page or address < self.low:
            return -1
        return min(self.limit - offset, self.high - address)


def _furthest(good: int, last: int, holds: Callable[[int], bool]) -> int:
    """The greatest number up to ``last`` of which something holds that holds of ``good`` and of a range from there."""
    bad = last + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return good


class Beside(NamedTuple):
    """In PT_LOADs to come that hold the program header table too, at the same shift; its address is open."""

    duties: Duties
    slots: int

    def _shifts(self, offset: int, size: int) -> list[tuple[int, int]]:
        table = self.duties.table
        assert table is not None
        return self.duties.shifts(min(table[0], offset), max(table[1], offset + size), self.slots)

    def offsets(self, least: int) -> tuple[int, int] | None:
        """See `Seat.offsets`."""
        last = self.duties.limit - least
        if last < 0:
            return None
        if self._shifts(0, least) and self._shifts(last, least):
            return 0, last
        # The further from the table, the more memory both span.
        start, stop = self.duties.table or (0, 0)
        if start > last or not self._shifts(start, least):
            return None
        high = _furthest(start, last, lambda offset: bool(self._shifts(offset, least)))
        below = stop - least
        if below < start or not self._shifts(below, least):
            return start, high
        return -_furthest(-start, 0, lambda offset: bool(self._shifts(-offset, least))), high

    def hold(self, offsets: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """See `Seat.hold`."""
        good = np.zeros(len(offsets), dtype=bool)
        for size in set(sizes.tolist()):
            found = self.offsets(size) if size >= 0 else None
            if found is not None:
                good |= (sizes == size) & (offsets >= found[0]) & (offsets <= found[1])
        return good

    def addresses(self, offset: int, least: int) -> list[Piece]:
        """See `Seat.addresses`."""
        page = self.duties.page
        return [Span(offset + a, offset + b, page, offset) for a, b in self._shifts(offset, least)]

    def most(self, offset: int, address: int) -> int:
        """See `Seat.most`."""
        duties, shift = self.duties, address - offset
        end = duties.roof
        if duties.entry is not None and address <= duties.entry and not duties.joins(shift):
            end = down(duties.entry, duties.page)
        size = min(duties.limit - offset, end - address)
        good = size > 0 and any(low <= shift <= high for low, high in self._shifts(offset, size))
        return size if good else -1


def _windows(duties: Duties, slots: int) -> Iterator[Later]:
    """The addresses at which PT_LOADs to come may hold one thing more."""
    runs, alone = duties.runs(), duties.runs(alone=True)
    if runs is not None:
        yield from _around(duties, runs, slots)
    if alone is not None and alone != runs and len(alone) <= slots:
        yield from _around(duties, alone, slots)


def _around(duties: Duties, runs: tuple[Run, ...], slots: int) -> Iterator[Later]:
    """The addresses beside and between runs."""
    page, limit = duties.page, duties.limit
    before = [duties.low, *(up(run.end, page) for run in runs)]
    after = [*(down(run.start, page) for run in runs), duties.roof]
    for i, run in enumerate(runs):
        for least, most in _shifts(duties, run):
            yield Later(before[i], after[i + 1], least, most, page, limit)
    if len(runs) < slots:
        for low, high in zip(before, after, strict=True):
            if low < high:
                yield Later(low, high, up(low - limit, page), down(high, page), page, limit)


def _shifts(duties: Duties, run: Run) -> list[tuple[int, int]]:
    return [(run.shift, run.shift)] if run.shift is not None else duties.entry_shifts()


def seats(plan: Plan, duties: Duties, slots: int, writable: bool = False) -> list[Seat]:
    """The ways to hold something more, where ``slots`` more PT_LOADs may come.

    ``writable``: it is the dynamic section, in memory that can be written to, and not at address 0, which the
    dynamic loader takes for none (glibc elf/dl-load.c: "object file has no dynamic section").
    """
    lowest = int(writable)
    found: list[Seat] = [Read(segment, lowest) for segment in _fit(plan, writable) if segment.filesz]
    if slots <= 0:
        return found
    duties = duties._replace(low=max(duties.low, lowest))
    if duties.table is not None:
        return [*found, Beside(duties, slots)]
    return [*found, *_windows(duties, slots)]


def beside_table(seat: Seat, shift: int) -> Seat:
    """The seat with only the addresses at that shift."""
    assert isinstance(seat, Later)
    return seat._replace(least_shift=max(seat.least_shift, shift), most_shift=min(seat.most_shift, shift))


def _fit(plan: Plan, writable: bool) -> Iterator[Segment]:
    return (segment for segment in plan.segments if segment.flags & PF_W or not writable)


def hold(plan: Plan, offset: int, address: int, size: int, writable: bool = False) -> Plan:
    """The plan in which a PT_LOAD holds those file bytes at that address: one already read, or one to come."""
    if any(Read(segment).most(offset, address) >= size for segment in _fit(plan, writable)):
        return plan
    shift = address - offset
    items = {*plan.held, Held(address, address + size, shift, writable)}
    if plan.table_owed:
        items.add(Held(plan.phoff + shift, plan.phdrs_end + shift, shift))
    return plan._replace(held=tuple(sorted(items)), table_owed=False)
