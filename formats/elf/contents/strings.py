"""String tables: a zero first and last. The section name table keeps the rules of `names` too."""

from __future__ import annotations

import itertools
from typing import Any

from bytegen.formats.core.intset import IntSet, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.elf import names, space, tables
from bytegen.formats.elf.plan import Plan, opener, proceed
from bytegen.formats.elf.written import Table

_ZERO = exactly(1, 0)
_NOTHING: Piece = Finite((0,))


@opener("strings")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    first, last = region.start, region.end - 1
    fixed: dict[int, int] = {}
    watched: dict[int, list[names.Point]] = {}
    if plan.shstrndx and len(plan.sections) > plan.shstrndx:
        table = plan.sections[plan.shstrndx]
        if table.offset == first and table.size == last + 1 - first:
            fixed, watched = names.points(plan, first, table.size, space.naming(plan))
    places = sorted({first, last, *fixed, *watched})

    def settled(place: int, data: bytearray) -> IntSet | None:
        """The set of the byte at ``place``; None where it is any."""
        if place in (first, last):
            return _ZERO
        if place in fixed:
            return exactly(1, fixed[place])
        barred = sorted({byte for point in watched[place] for byte in point(data)})
        if not barred:
            return None
        edges = [-1, *barred, 256]
        return IntSet(1, *(Span(a + 1, b - 1) for a, b in itertools.pairwise(edges) if b - a > 1))

    def at(i: int, position: int, data: bytearray) -> Step:
        """From ``position`` on, the i-th place being the next that is looked at."""
        if i == len(places):
            return proceed(plan, region.end, data)
        place = places[i]
        if position < place:
            return FreeStep(position, place, None, region.path, "any byte", lambda data: at(i, place, data))
        choices = settled(place, data)
        if choices is None:
            return FreeStep(
                position, place + 1, None, region.path, "any byte", lambda data: at(i + 1, place + 1, data)
            )
        edge = place in (first, last)
        return IntStep(
            place,
            1,
            choices,
            f"{region.path}.{'begin' if place == first else 'end'}" if edge else region.path,
            "a string table begins and ends with a zero" if edge else "part of a section's name",
            lambda value, data: at(i + 1, place + 1, data),
        )

    return at(0, first, data)


def offsets(plan: Plan, table: Table, request: tables.Request) -> list[Piece]:
    """Where a string table of at least ``request.least`` bytes is or fits.

    ``request.index`` is that of the section; the section name table holds its names.
    """
    need = max(request.least, 1)
    behind: Piece
    if request.index and request.index == plan.shstrndx:
        behind = names.behind_offsets(table.behind, space.naming(plan), need)
    else:
        behind = table.behind.string_offsets(need)
    return [
        behind,
        *space.starts(plan, table, "strings", request.index, need),
        space.same(plan, table, "strings", need),
    ]


def sizes(plan: Plan, table: Table, offset: int, request: tables.Request) -> list[Piece]:
    """Sizes of a string table at ``offset``."""
    need = request.least
    pieces: list[Piece] = [] if need else [_NOTHING]
    if offset < table.start:
        if request.index and request.index == plan.shstrndx:
            need = names.behind_need(table.behind, space.naming(plan), offset, need)
        pieces.append(table.behind.string_sizes(offset, need))
    return pieces + space.ahead(plan, table, offset, "strings", request.index, 1, max(need, 1))


def promise(plan: Plan, offset: int, size: int, path: str, detail: Any = None) -> Plan:
    """The plan with a string table promised ahead."""
    return plan._replace(ledger=plan.ledger.add(Region(offset, offset + size, "strings", path, detail)))


tables.register(tables.Kind("strings", offsets, sizes, promise))
