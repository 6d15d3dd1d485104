"""Room ahead: where the content that headers promise fits.

Content ahead is promised in the ledger. It may not lie across the table being read. String tables still
owed must keep room ahead or have a place behind; one place serves them all, since string tables may share
their bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.elf import names, tables
from bytegen.formats.elf.foreseen import foreseen
from bytegen.formats.elf.plan import Plan, Section
from bytegen.formats.elf.written import Table, remembered

_STRINGS = frozenset({names.SHT_STRTAB})


def up(value: int, step: int) -> int:
    """The least multiple of ``step`` that is at least ``value``."""
    return -(-value // step) * step


class Longest(NamedTuple):
    """The greatest sizes of a string table, and of the section name table."""

    plain: int
    names: int


def _shared(plan: Plan, table: Table) -> list[int]:
    """Sizes of the string tables promised ahead."""
    return [r.end - r.start for r in plan.ledger.regions if r.kind == "strings" and r.start >= table.end]


def naming(plan: Plan) -> names.Asked:
    """What the sections read so far ask of the name table."""
    asks: names.Asked | None = plan.asks
    return asks if asks is not None else names.Asked(wanted=dynamic_owed(plan) is not None)


def with_section(plan: Plan, section: Section) -> Plan:
    """The plan with one more section header read."""
    return names.with_section(plan, section, dynamic_owed(plan) is not None)


def dynamic_owed(plan: Plan) -> tables.Dynamic | None:
    """What the dynamic section has settled, where section headers must agree with it."""
    return tables.Hooks.dynamic(plan) if plan.shnum >= 4 else None


@remembered
def longest(plan: Plan, table: Table, without: tuple[int, ...] = ()) -> Longest:
    """The greatest sizes of string tables read later; ``without``: leave out the gaps that begin there."""
    ahead = [high - low for low, high in plan.ledger.gaps(table.end) if low not in without]
    most = max([*ahead, *_shared(plan, table), 0])
    behind = table.behind
    named = most
    if behind.longest_strings() > most:
        named = max(most, names.behind_longest(behind, naming(plan)))
    return Longest(max(most, behind.longest_strings()), named)


def _needs(plan: Plan, index: int) -> Longest:
    """Sizes of the longest string tables owed to sections other than ``index``: plain, and of names."""
    plain, named = foreseen(plan).text, 0
    for i, owed in plan.owed:
        if i == index or owed.place is not None or owed.types != _STRINGS:
            continue
        if i == plan.shstrndx:
            named = owed.need
        else:
            plain = max(plain, owed.need)
    return Longest(plain, named)


def _kept(plan: Plan, table: Table, gap: int, needs: Longest, also: tuple[int, ...] = ()) -> int:
    """Bytes of the gap that begins at ``gap`` which must be left to string tables still owed.

    ``also``: where gaps begin that may be taken besides.
    """
    if not needs.plain and not needs.names:
        return 0
    return _short(needs, longest(plan, table, (gap, *also)))


def _short(needs: Longest, found: Longest) -> int:
    """The longest table that is needed and not found; 0 when there is none."""
    return max(
        needs.plain if found.plain < needs.plain else 0, needs.names if found.names < needs.names else 0
    )


def _kept_of_each(plan: Plan, table: Table, needs: Longest) -> list[int]:
    """`_kept` of each gap ahead."""
    gaps = plan.ledger.gaps(table.end)
    if not gaps or (not needs.plain and not needs.names):
        return [0] * len(gaps)
    # Without any gap but the widest the longest tables are as long as with it.
    found = [_short(needs, longest(plan, table))] * len(gaps)
    widest = max(range(len(gaps)), key=lambda i: gaps[i][1] - gaps[i][0])
    found[widest] = _kept(plan, table, gaps[widest][0], needs)
    return found


def needed(plan: Plan, table: Table) -> list[tuple[int, int, int]]:
    """(start, end, bytes): gaps ahead of which so many must be left to string tables still owed; the widest, or all."""
    kept = _kept_of_each(plan, table, _needs(plan, 0))
    return [(*gap, need) for gap, need in zip(plan.ledger.gaps(table.end), kept, strict=True) if need]


def growth(plan: Plan, table: Table, index: int, regions: list[Region]) -> list[int]:
    """How far the end of each of these promises ahead may move up, all together, for the section ``index``."""
    needs = _needs(plan, index)
    ends = tuple(region.end for region in regions)
    return [plan.ledger.room(end) - _kept(plan, table, end, needs, ends) for end in ends]


def starts(plan: Plan, table: Table, kind: str, index: int, least: int, align: int = 1) -> list[Piece]:
    """Offsets ahead at which a region of that kind with at least ``least`` bytes may begin."""
    kept = _kept_of_each(plan, table, _needs(plan, index))
    pieces: list[Piece] = []
    for (low, high), need in zip(plan.ledger.gaps(table.end), kept, strict=True):
        if not need:
            pieces.append(Span(low, high - least, align))
        elif kind == "strings":
            pieces += [Span(low, high - max(need, least)), Span(low + need, high - least)]
        else:
            pieces += [Span(low, high - least - need, align), Span(low + need, high - least, align)]
    return [piece for piece in pieces if piece.bounds()]


def same(plan: Plan, table: Table, kind: str, least: int) -> Piece:
    """Offsets of the regions of that kind already promised ahead."""
    return Finite(
        [
            r.start
            for r in plan.ledger.regions
            if r.kind == kind and r.start >= table.end and r.end - r.start >= least
        ]
    )


def ahead(plan: Plan, table: Table, offset: int, kind: str, index: int, step: int, least: int) -> list[Piece]:
    """Sizes of a new region of that kind at ``offset``, or of the same one already promised there."""
    if offset < table.end:
        return []
    known = plan.ledger.at(offset, kind)
    if known is not None:
        size = known.end - known.start
        return [Finite((size,))] if size >= least and size % step == 0 else []
    for low, high in plan.ledger.gaps(table.end):
        if low <= offset < high:
            break
    else:
        return []
    least = up(least, step)
    need = _kept(plan, table, low, _needs(plan, index))
    if not need or offset - low >= need:
        return [Span(least, high - offset, step)]
    pieces: list[Piece] = [Span(least, high - need - offset, step)]
    if kind == "strings":
        pieces.append(Span(max(least, need), high - offset))
    return pieces


def longest_ahead(plan: Plan, table: Table) -> int:
    """The greatest size of a string table ahead."""
    return max([high - low for low, high in plan.ledger.gaps(table.end)] + _shared(plan, table) + [0])
