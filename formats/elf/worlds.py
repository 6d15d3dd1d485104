"""What must stay possible while program headers are read: places for a PT_DYNAMIC that is still owed.

A program with an interpreter, and a shared object, must have a PT_DYNAMIC: its section needs room in the file
that nobody has been promised, and a writable PT_LOAD that holds it (the dynamic loader writes to it). There are
several ways to keep that possible; each is a *world*: the duties of the PT_LOADs to come, how many of those may
come, and a ledger in which the room is taken.
A value may be chosen when it is good in some world, so the set of a field is the union over the worlds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.elf import entry, names
from bytegen.formats.elf.constants import PF_W
from bytegen.formats.elf.held import hold
from bytegen.formats.elf.load import Duties, duties
from bytegen.formats.elf.plan import Plan
from bytegen.formats.elf.role import up

# DT_STRTAB, DT_STRSZ and DT_NULL: what loaders ask for. A string table of one zero can lie among the program
# headers, which a PT_LOAD maps.
LEAST_ENTRIES = 3
MOST_ENTRIES = 1000  # LIEF reads no more
NAME_ROOM = 16  # bytes before the section headers that are kept for the name of its section


class World(NamedTuple):
    """One way to keep what is owed possible; ``slots`` PT_LOADs may still come."""

    duties: Duties
    slots: int
    ledger: Ledger


def dynamic_size(plan: Plan) -> int:
    """Bytes of the shortest dynamic section."""
    return (LEAST_ENTRIES if plan.strict else 2) * plan.target.dyn_size


def dynamic_room(plan: Plan) -> int:
    """Bytes of the file that are sure to hold the shortest dynamic section."""
    return dynamic_size(plan) + plan.target.word + NAME_ROOM


def mapped(plan: Plan, ledger: Ledger, start: int) -> list[tuple[int, int]]:
    """Ranges from ``start`` on that nobody has been promised, inside a PT_LOAD already read and writable."""
    found = []
    for low, high in ledger.gaps(start):
        for segment in plan.segments:
            if not segment.flags & PF_W:
                continue
            # Not at address 0, see `seats`.
            start = segment.offset + (segment.address == 0)
            first, last = max(low, start), min(high, segment.offset + segment.filesz)
            if first < last:
                found.append((first, last))
    return sorted(found)


def _places(
    ranges: list[tuple[int, int]], size: int, align: int, near: tuple[int, ...] = (), *, last: bool = False
) -> list[tuple[int, int]]:
    """Places for ``size`` bytes in the ranges: some (`entry.spread`), the first from each of ``near`` on, the last.

    The last depends on the length limit, so it is for those who know that one of the others will do in its stead.
    """
    step = up(size, align)
    runs = [(up(low, align), (high - size - up(low, align)) // step + 1) for low, high in ranges]
    found = set(entry.spread(runs, step))
    for start in near:
        starts = (up(max(low, start), align) for low, high in ranges if max(low, start) + size <= high)
        found.update(x for x in (min(starts, default=-1),) if x >= 0)
    if last:
        found.update(
            (high - size) // align * align for low, high in ranges[-1:] if up(low, align) + size <= high
        )
    found = {x for x in found if any(low <= x and x + size <= high for low, high in ranges)}
    return [(place, place + size) for place in sorted(found)]


def _reserved(ledger: Ledger, place: tuple[int, int]) -> Ledger:
    return ledger.add(Region(*place, "reserved", "a dynamic section"))


def worlds(plan: Plan, slots: int) -> Iterator[World]:
    """The worlds in which all that is owed is possible without this header; ``slots`` come after it."""
    for world in worlds_with(plan, slots):
        if world.duties.possible(world.slots):
            yield world


def keeping(plan: Plan, slots: int) -> Iterator[World]:
    """The same worlds; at level code with a place for the first instruction taken in the ledger."""
    for world in worlds(plan, slots):
        if not entry.owed(plan):
            yield world
            continue
        for place in entry.candidates(plan, world.duties.places):
            kept = reserving(world, place)
            if kept is not None:
                yield kept


def reserving(world: World, place: tuple[int, int]) -> World | None:
    """The world in which the first instruction lies there; None where that is impossible."""
    owed = world.duties._replace(places=(place,))
    return World(owed, world.slots, _reserved(world.ledger, place)) if owed.possible(world.slots) else None


def worlds_with(plan: Plan, slots: int, *, load: bool = False, offset: int | None = None) -> Iterator[World]:
    """The worlds for a header that is a PT_LOAD, which may be what makes them possible.

    ``load``: it is one; ``offset``: its p_offset, once that is known. The first place behind that serves as well
    as any further one.
    """
    ledger = plan.ledger
    if not plan.dynamic_owed:
        yield World(duties(plan), slots, ledger)
        return
    if slots < 1 or not names.kept(plan):
        return
    size, word = dynamic_size(plan), plan.target.word
    noted = plan.table_noted is not None or (plan.table_noting and plan.table_owed)
    for place in _places(mapped(plan, ledger, plan.phdrs_end), size, word):
        taken = _reserved(ledger, place)
        yield World(duties(plan, taken), slots - 1, taken)
    near = tuple(plan.low - shift for shift in {item.shift for item in plan.held})
    if offset is not None:
        near = (*near, offset)
    for place in _places(ledger.gaps(plan.phdrs_end), size, word, near, last=load):
        taken = _reserved(ledger, place)
        owed = duties(plan, taken)
        if slots > 1 and not noted:
            # One more PT_LOAD, above all else, can hold it.
            roof = owed.roof - up(size, owed.page) - 2 * owed.page
            if not owed.held or owed.held[-1].end < roof:
                yield World(owed._replace(roof=roof), slots - 2, taken)
        yield from _beside(plan, owed, place, slots - 1, taken)


def _beside(plan: Plan, owed: Duties, place: tuple[int, int], slots: int, taken: Ledger) -> Iterator[World]:
    """The worlds in which a PT_LOAD that is owed holds the place too."""
    if not owed.held:
        table = owed.table or place
        both = (min(place[0], table[0]), max(place[1], table[1]))
        yield World(owed._replace(table=both, table_writable=True), slots, taken)
        return
    for shift in {item.shift for item in owed.held}:
        if plan.table_noted is not None and shift != plan.table_noted:
            continue
        if place[0] + shift >= max(owed.low, 1):
            more = hold(plan, place[0], place[0] + shift, place[1] - place[0], True)
            yield World(owed._replace(held=more.held), slots, taken)
