"""What must stay possible while program headers are read: places for a PT_DYNAMIC that is still owed.

A program with an interpreter, and a shared object, must have a PT_DYNAMIC: its section needs room in the file
that nobody has been promised, and a PT_LOAD that holds it. There are several ways to keep that possible; each is
a *world*: the duties of the PT_LOADs to come, how many of those may come, and a ledger in which the room is
taken.
A value may be chosen when it is good in some world, so the set of a field is the union over the worlds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.elf.held import hold
from bytegen.formats.elf.load import Duties, duties, up
from bytegen.formats.elf.plan import OPENERS, Plan

LEAST_ENTRIES = 3  # DT_STRTAB, DT_STRSZ and DT_NULL: what loaders ask for
MOST_ENTRIES = 1000  # LIEF reads no more
TAIL = 16  # bytes after the section in which its string table can lie


class World(NamedTuple):
    """One way to keep what is owed possible; ``slots`` PT_LOADs may still come.

    ``tail``: bytes that stay free right after the content in question.
    """

    duties: Duties
    slots: int
    ledger: Ledger
    tail: int = 0


def dynamic_size(plan: Plan) -> int:
    """Bytes of the shortest dynamic section."""
    return (LEAST_ENTRIES if plan.strict else 1) * plan.target.dyn_size


def tail(plan: Plan) -> int:
    """Bytes that must stay free after the dynamic section, in some PT_LOAD."""
    return TAIL if plan.strict else 0


def dynamic_room(plan: Plan) -> int:
    """Bytes of the file that are sure to hold the shortest dynamic section and its tail."""
    return up(dynamic_size(plan) + tail(plan), plan.target.word) + plan.target.word


def readable() -> bool:
    """Whether there is a grammar for dynamic sections."""
    return "dynamic" in OPENERS


def ahead(plan: Plan, ledger: Ledger, start: int) -> list[tuple[int, int]]:
    """Ranges from ``start`` on that nobody has been promised, before the section header table."""
    stop = plan.shoff if plan.shoff > plan.phoff else plan.limit
    return [(low, min(high, stop)) for low, high in ledger.gaps(start) if low < stop]


def mapped(plan: Plan, ledger: Ledger, start: int) -> list[tuple[int, int]]:
    """Those of them inside a PT_LOAD already read."""
    found = []
    for low, high in ahead(plan, ledger, start):
        for segment in plan.segments:
            first, last = max(low, segment.offset), min(high, segment.offset + segment.filesz)
            if first < last:
                found.append((first, last))
    return sorted(found)


def last_tail(plan: Plan, ledger: Ledger) -> int:
    """The greatest offset at which a tail can lie in a PT_LOAD already read; -1 when there is none."""
    return max((high for _, high in mapped(plan, ledger, plan.phdrs_end)), default=-1) - tail(plan)


def _ends(ranges: list[tuple[int, int]], size: int, align: int) -> list[tuple[int, int]]:
    """The first and the last place of ``size`` bytes in the ranges."""
    places = []
    for low, high in ranges:
        first, last = up(low, align), (high - size) // align * align
        if first <= last:
            places += [first, last]
    return [(place, place + size) for place in sorted({min(places), max(places)})] if places else []


def _reserved(ledger: Ledger, place: tuple[int, int]) -> Ledger:
    return ledger.add(Region(*place, "reserved", "a dynamic section"))


def worlds(plan: Plan, slots: int) -> Iterator[World]:
    """The worlds in which all that is owed is possible without this header; ``slots`` come after it."""
    for world in worlds_with(plan, slots):
        if world.duties.possible(world.slots):
            yield world


def worlds_with(plan: Plan, slots: int) -> Iterator[World]:
    """The worlds for a header that is a PT_LOAD, which may be what makes them possible."""
    owed = duties(plan)
    ledger = plan.ledger
    if not plan.dynamic_owed:
        yield from _settled(plan, owed, slots)
        return
    if slots < 1 or not readable():
        return
    size, word = dynamic_size(plan) + tail(plan), plan.target.word
    for place in _ends(mapped(plan, ledger, plan.phdrs_end), size, word):
        yield World(owed, slots - 1, _reserved(ledger, place))
    for place in _ends(ahead(plan, ledger, plan.phdrs_end), size, word):
        if slots > 1:
            # One more PT_LOAD, above all else, can hold it.
            roof = owed.roof - up(size, owed.page) - 2 * owed.page
            if not owed.held or owed.held[-1].end < roof:
                yield World(owed._replace(roof=roof), slots - 2, _reserved(ledger, place))
        yield from _beside(plan, owed, place, slots - 1)


def _settled(plan: Plan, owed: Duties, slots: int) -> Iterator[World]:
    """Where no PT_DYNAMIC is owed; one that has been read keeps the place of its tail."""
    if plan.dynamic is None or not plan.strict:
        yield World(owed, slots, plan.ledger)
        return
    offset, size, _ = plan.dynamic
    if plan.dynamic_tail is not None:
        yield World(owed, slots, _reserved(plan.ledger, plan.dynamic_tail))
        return
    for place in _ends(mapped(plan, plan.ledger, offset + size), tail(plan), 1):
        yield World(owed, slots, _reserved(plan.ledger, place))


def _beside(plan: Plan, owed: Duties, place: tuple[int, int], slots: int) -> Iterator[World]:
    """The worlds in which a PT_LOAD that is owed holds the place too."""
    ledger = _reserved(plan.ledger, place)
    if not owed.held:
        table = owed.table or place
        both = (min(place[0], table[0]), max(place[1], table[1]))
        yield World(owed._replace(table=both), slots, ledger)
        return
    for shift in {item.shift for item in owed.held}:
        if place[0] + shift >= owed.low:
            more = hold(plan, place[0], place[0] + shift, place[1] - place[0])
            yield World(owed._replace(held=more.held), slots, ledger)
