"""The types of program headers that describe content at an address: PT_INTERP, PT_DYNAMIC, notes, properties.

The content is promised ahead, or for notes lies behind. Where the loader or the dynamic loader reads it in
memory, a PT_LOAD maps it: one read before, or one to come. ``header.ways`` are the ways to do that: worlds and
seats, of which each field keeps those that its value leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, groupby
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.intset import IntSet, anything, exactly
from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.elf import entry, names
from bytegen.formats.elf.constants import PT_DYNAMIC, PT_INTERP
from bytegen.formats.elf.held import Read, Seat, beside_table, hold, seats
from bytegen.formats.elf.interp import LONGEST, SHORTEST
from bytegen.formats.elf.kinds import Choice, Kind, Offered
from bytegen.formats.elf.phdr import Header
from bytegen.formats.elf.plan import Plan
from bytegen.formats.elf.worlds import (
    MOST_ENTRIES,
    World,
    dynamic_size,
    keeping,
    reserving,
    worlds,
)
from bytegen.formats.elf.written import Lazily


class Way(NamedTuple):
    """A world, and a way to hold the content in it; no seat where the content may have any address."""

    world: World
    seat: Seat | None


class Content(Kind):
    """Content of at least ``least`` bytes. Subclasses say where it starts and how long it may be."""

    writable = False  # whether its PT_LOAD must be
    settles = True  # whether the program header table lies at its shift, at every level (`Plan.table_noted`)

    def offered(self, header: Header, spare: bool) -> Offered:
        """See `Kind.offered`."""
        return spare and (lambda: self._possible(header))

    def begin(self, header: Header) -> None:
        """See `Kind.begin`."""
        header.ways = list(self._find_ways(header))

    def _possible(self, header: Header) -> bool:
        """Whether there is a place for the content; one way to it is enough."""
        header.ways = self._find_ways(header)
        return any(True for _ in self._offsets(header))

    def _find_ways(self, header: Header) -> Iterator[Way]:
        plan = self.after(header.plan)
        for world in keeping(plan, header.slots):
            yield from self._seats(plan, world)

    def _seats(self, plan: Plan, world: World) -> Iterator[Way]:
        if not self.mapped(plan):
            yield Way(world, None)
            return
        for seat in seats(plan, world.duties, world.slots, self.writable and plan.strict):
            if self.settles and plan.table_noted is not None and not isinstance(seat, Read):
                yield Way(world, beside_table(seat, plan.table_noted))
            else:
                yield Way(world, seat)

    def _ways_beside_entry(self, header: Header) -> Iterator[Way]:
        """More ways where the first instruction's place is open: those in which it lies anywhere but in the content.

        Once the address is known, they are those with a place in the segment of the content, and the first elsewhere.
        """
        plan = self.after(header.plan)
        if not entry.owed(plan) or not self.mapped(plan):
            return
        for world in worlds(plan, header.slots):
            size = self._shortest(header, world, header.offset)
            if size is None:
                continue
            ranges = entry.without(world.duties.places, header.offset, header.offset + size)
            if header.vaddr < 0:
                owed = world.duties._replace(places=ranges)
                if owed.possible(world.slots):
                    yield from self._seats(plan, world._replace(duties=owed))
                continue
            joined = plan.entry - (header.vaddr - header.offset)
            for place in entry.at_or_first(plan, ranges, joined):
                kept = reserving(world, place)
                if kept is not None:
                    yield from self._seats(plan, kept)

    # What subclasses say.

    def after(self, plan: Plan) -> Plan:
        """The plan whose duties must stay possible beside the content."""
        return plan

    def mapped(self, plan: Plan) -> bool:
        """Whether a PT_LOAD must map the content."""
        return True

    def starts(self, header: Header, world: World) -> list[Piece]:
        """Offsets at which the content is or fits; for those of a `Span` any size from ``least`` on does."""
        raise NotImplementedError

    def least(self, header: Header) -> int:
        """Size of the shortest content ahead."""
        raise NotImplementedError

    def lengths(self, header: Header, world: World, offset: int) -> list[Piece]:
        """Sizes of the content at that offset."""
        raise NotImplementedError

    # The fields.

    def _offsets(self, header: Header) -> Iterator[Piece]:
        least, limit = self.least(header), header.plan.limit
        # The seats of a world come one after another.
        for _, ways in groupby(header.ways, key=lambda way: id(way.world)):
            first = next(ways)
            starts = self.starts(header, first.world)
            spans = [piece for piece in starts if isinstance(piece, Span)]
            seats: list[Seat | None] = []
            for way in chain((first,), ways):
                seats.append(way.seat)
                bounds = (0, limit) if way.seat is None else way.seat.offsets(least)
                for piece in spans if bounds is not None else ():
                    lo, hi = max(bounds[0], piece.lo), min(bounds[1], piece.hi)
                    if lo <= hi:
                        clipped = Span(lo, hi, piece.mod, piece.rem)
                        if clipped.bounds() is not None:
                            yield clipped
            for other in starts:
                if not isinstance(other, Span):
                    seated = self._clipped(header, first.world, seats, other)
                    if seated.bounds() is not None:
                        yield seated

    def _shortest(self, header: Header, world: World, offset: int) -> int | None:
        """Size of the shortest content at that offset; None when there is none."""
        ends = [piece.bounds() for piece in self.lengths(header, world, offset)]
        return min((bounds[0] for bounds in ends if bounds is not None), default=None)

    def _all_shortest(self, header: Header, world: World, offsets: np.ndarray) -> np.ndarray:
        """int64: `_shortest` for each offset, -1 for none; found once where all of them lie behind."""
        behind = header.table.behind
        key = "shortest", type(self)
        known = behind.cache.get(key)
        if known is not None and np.array_equal(known[0], offsets):
            return known[1]
        found = [self._shortest(header, world, offset) for offset in offsets.tolist()]
        sizes = np.array([-1 if size is None else size for size in found], np.int64)
        if len(offsets) and offsets[-1] < header.table.start:
            behind.cache[key] = offsets, sizes
        return sizes

    def _clipped(self, header: Header, world: World, seats: list[Seat | None], piece: Piece) -> Piece:
        """The offsets of a piece at which the shortest content has one of the seats."""
        there = [seat for seat in seats if seat is not None]
        if len(there) < len(seats):
            return piece

        def good(offset: int) -> bool:
            size = self._shortest(header, world, offset)
            if size is None:
                return False
            found = (seat.offsets(size) for seat in there)
            return any(bounds is not None and bounds[0] <= offset <= bounds[1] for bounds in found)

        def build() -> np.ndarray:
            assert isinstance(piece, Finite | Lazily)
            members = piece.members()
            sizes = self._all_shortest(header, world, members)
            offsets, held = members.astype(np.int64), np.zeros(len(members), dtype=bool)
            for seat in there:
                held |= seat.hold(offsets, sizes)
            return members[(sizes >= 0) & held]

        return Lazily(lambda x: piece.contains(x) and good(x), build)

    def offset(self, header: Header) -> Choice:
        """See `Kind.offset`."""
        return IntSet(header.plan.target.word, *self._offsets(header)), "where the content is or fits"

    def vaddr(self, header: Header) -> Choice:
        """See `Kind.vaddr`."""
        word = header.plan.target.word
        pieces: list[Piece] = []
        for way in (*header.ways, *self._ways_beside_entry(header)):
            size = self._shortest(header, way.world, header.offset)
            if size is None:
                continue
            if way.seat is None:
                return anything(word), "any address"
            pieces += way.seat.addresses(header.offset, size)
        return IntSet(word, *pieces), "where a PT_LOAD maps it: one before, or one to come"

    def filesz(self, header: Header) -> Choice:
        """See `Kind.filesz`."""
        pieces: list[Piece] = []
        for way in (*header.ways, *self._ways_beside_entry(header)):
            most = header.plan.limit
            if way.seat is not None:
                most = way.seat.most(header.offset, header.vaddr)
            pieces += [_below(piece, most) for piece in self.lengths(header, way.world, header.offset)]
        return IntSet(header.plan.target.word, *pieces), "the size of content that is there or fits"

    def memsz(self, header: Header) -> Choice:
        """See `Kind.memsz`."""
        return exactly(header.plan.target.word, header.filesz), "equal to p_filesz"

    def done(self, header: Header) -> Plan:
        """See `Kind.done`."""
        plan = super().done(header)
        if self.mapped(plan):
            writable = self.writable and plan.strict
            held = hold(plan, header.offset, header.vaddr, header.filesz, writable)
            if not self.settles and plan.table_owed and not held.table_owed:
                return held._replace(table_noted=header.vaddr - header.offset)
            if self.settles and held is not plan:
                return held._replace(table_noted=None)
            return held
        return plan


def _below(piece: Piece, most: int) -> Piece:
    """The members up to ``most``."""
    if isinstance(piece, Span):
        return Span(piece.lo, min(piece.hi, most), piece.mod, piece.rem)
    assert isinstance(piece, Finite | Lazily)
    return Lazily(
        lambda x: x <= most and piece.contains(x),
        lambda: (
            piece.members()[piece.members() <= np.uint64(max(most, 0))]
            if most >= 0
            else np.zeros(0, np.uint64)
        ),
    )


def _room(ledger: Ledger, start: int, offset: int) -> int:
    return ledger.room(offset, start)


def _may_be_dynamic(plan: Plan) -> bool:
    """Whether there may be an interpreter, which asks for a PT_DYNAMIC."""
    return not plan.static and not plan.unpaged and bool(plan.entry) and names.kept(plan)


class Interp(Content):
    """PT_INTERP: the path of the program interpreter; at most one."""

    def offered(self, header: Header, spare: bool) -> Offered:
        """See `Kind.offered`."""
        plan = header.plan
        if plan.interp is not None or (plan.strict and not _may_be_dynamic(plan)):
            return False
        return super().offered(header, spare)

    def after(self, plan: Plan) -> Plan:
        """See `Content.after`."""
        return plan._replace(interp=(0, 0))

    def least(self, header: Header) -> int:
        """See `Content.least`."""
        return min(self._sizes(header))

    def _sizes(self, header: Header) -> list[int]:
        if not header.plan.strict:
            return [SHORTEST]
        return sorted({len(path) + 1 for path in header.plan.target.interpreters})

    def starts(self, header: Header, world: World) -> list[Piece]:
        """See `Content.starts`."""
        least = self.least(header)
        gaps = world.ledger.gaps(header.table.end)
        return [Span(low, high - least) for low, high in gaps if high - low >= least]

    def lengths(self, header: Header, world: World, offset: int) -> list[Piece]:
        """See `Content.lengths`."""
        room = _room(world.ledger, header.table.end, offset)
        if not header.plan.strict:
            return [Span(SHORTEST, min(room, LONGEST))]
        return [Finite([size for size in self._sizes(header) if size <= room])]

    def done(self, header: Header) -> Plan:
        """See `Kind.done`."""
        plan = super().done(header)
        offset, end = header.offset, header.offset + header.filesz
        ledger = plan.ledger.add(Region(offset, end, "interp", "interp"))
        return plan._replace(ledger=ledger, interp=(offset, header.filesz))


class Dynamic(Content):
    """PT_DYNAMIC: the dynamic section; at most one. The dynamic loader writes addresses into it."""

    writable = True

    def offered(self, header: Header, spare: bool) -> Offered:
        """See `Kind.offered`."""
        plan = header.plan
        if plan.static or not names.kept(plan):
            return False
        if plan.dynamic is not None or (plan.strict and plan.unpaged):
            return False
        return lambda: self._possible(header)

    def after(self, plan: Plan) -> Plan:
        """See `Content.after`."""
        return plan._replace(dynamic=(0, 0, 0))

    def least(self, header: Header) -> int:
        """See `Content.least`."""
        return dynamic_size(header.plan)

    def starts(self, header: Header, world: World) -> list[Piece]:
        """See `Content.starts`."""
        least, word = self.least(header), header.plan.target.word
        return [Span(low, high - least, word) for low, high in world.ledger.gaps(header.table.end)]

    def lengths(self, header: Header, world: World, offset: int) -> list[Piece]:
        """See `Content.lengths`."""
        entry = header.plan.target.dyn_size
        room = min(_room(world.ledger, header.table.end, offset), MOST_ENTRIES * entry)
        return [Span(self.least(header), room, entry)]

    def done(self, header: Header) -> Plan:
        """See `Kind.done`."""
        plan, offset, size = super().done(header), header.offset, header.filesz
        ledger = plan.ledger.add(Region(offset, offset + size, "dynamic", "dynamic"))
        return plan._replace(ledger=ledger, dynamic=(offset, size, header.vaddr))


HELD: dict[int, Kind] = {PT_INTERP: Interp(), PT_DYNAMIC: Dynamic()}
