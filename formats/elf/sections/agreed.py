"""Where the dynamic section says that sections lie, and whether their headers can agree with it."""

from __future__ import annotations

from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.elf import space, tables
from bytegen.formats.elf.contents import symbols
from bytegen.formats.elf.foreseen import waiting
from bytegen.formats.elf.plan import Plan
from bytegen.formats.elf.sections import expected, foreseen, links
from bytegen.formats.elf.sections.types import DYNAMIC, DYNSYM, GNU_HASH, GNU_VERSYM, HASH, NAMED, TABLES
from bytegen.formats.elf.written import Table

HASH_HEAD = 12  # bytes of a hash table of one bucket before its chains


def place_of(plan: Plan, kind: int) -> tables.Place | None:
    """Where the dynamic section says that a section of this type lies."""
    dynamic = space.dynamic_owed(plan)
    if dynamic is None:
        return None
    if kind == DYNAMIC:
        return tables.Place(dynamic.offset, dynamic.address, dynamic.size)
    name = "symbols" if kind == DYNSYM else TABLES.get(kind)
    return dynamic.places.get(name) if name is not None else None


def strings_size(plan: Plan) -> int | None:
    """Size of the dynamic string table; None where that is not known."""
    place = links.strings_place(plan)
    return None if place is None else place.size


def symbol_sizes(plan: Plan, table: Table, place: tables.Place, number: int) -> list[Piece]:
    """Sizes of the dynamic symbol table at its place, with the symbols that sections before refer to."""
    size = plan.target.sym_size
    owed = plan.owed_at(number) or next((owed for _, owed in plan.owed if owed.types == {DYNSYM}), None)
    least = max(1, place.count or 0, owed.need if owed is not None else 0)
    versions = place_of(plan, GNU_VERSYM)
    if versions is not None and versions.size is not None:
        least = max(least, versions.size // 2)
    if _pending(plan):
        found = counts(plan, table, number)
        return [] if found is None else [Span(size * found[0], size * found[1], size)]
    known = plan.ledger.at(place.offset, "dynsym")
    if known is not None and place.offset >= table.end:
        return [Finite((known.end - known.start,))] if known.end - known.start >= least * size else []
    most = strings_size(plan)
    detail = symbols.SymbolDetail(names=most or 0)
    pieces = symbols.sizes(plan, table, place.offset, tables.Request(least * size, number, detail=detail))
    if place.count is None and versions is None:
        return pieces
    if place.count is None:  # readelf shows the version of each
        high = max([0, *(bounds[1] for piece in pieces if (bounds := piece.bounds()) is not None)])
        return [Span(least * size, min(high, plan.named.indices * size), size)]
    exact = place.count * size
    return [Finite((exact,))] if any(piece.contains(exact) for piece in pieces) else []


def _pending(plan: Plan) -> bool:
    dynamic = space.dynamic_owed(plan)
    return dynamic is not None and dynamic.pending


def unread(plan: Plan, table: Table, kind: int) -> bool:
    """Whether a header is that of a hash table ahead, whose grammar says how long it is."""
    place = place_of(plan, kind)
    return kind in (HASH, GNU_HASH) and place is not None and place.offset >= table.end


def counts(plan: Plan, table: Table, number: int) -> tuple[int, int] | None:
    """The least and the greatest number of dynamic symbols, where a hash table ahead leaves it open."""
    place = place_of(plan, DYNSYM)
    if not _pending(plan) or place is None:
        return None
    size = plan.target.sym_size
    low, high = tables.Hooks.counts(plan, table.behind.raw)
    owed = plan.owed_at(number) or next((owed for _, owed in plan.owed if owed.types == {DYNSYM}), None)
    low = max(low, owed.need if owed is not None and owed.types == {DYNSYM} else 0)
    if place.offset < table.start:
        detail = symbols.SymbolDetail(names=strings_size(plan) or 0)
        pieces = symbols.sizes(plan, table, place.offset, tables.Request(low * size, number, detail=detail))
        ends = [bounds[1] for bounds in (piece.bounds() for piece in pieces) if bounds]
        high = min(high, max(ends, default=0) // size)
    # What grows with the symbols leaves room for string tables still owed.
    growing = [
        (region, unit)
        for region, unit in ((plan.ledger.at(place.offset, "dynsym"), size), (_hash_ahead(plan, table), 4))
        if region is not None and region.start >= table.end
    ]
    room = space.growth(plan, table, number, [region for region, _ in growing])
    for (region, unit), more in zip(growing, room, strict=True):
        head = HASH_HEAD if unit == 4 else 0
        high = min(high, (region.end - region.start + max(more, 0) - head) // unit)
    return (low, high) if low <= high else None


def _hash_ahead(plan: Plan, table: Table) -> Region | None:
    """The promise of a hash table with a chain entry for each symbol."""
    place = place_of(plan, HASH)
    return plan.ledger.at(place.offset, "hash") if place is not None else None


def settle(plan: Plan, kind: int, size: int) -> Plan:
    """The plan after the size of a section, which may settle how many dynamic symbols there are."""
    if kind not in (DYNSYM, GNU_VERSYM) or not size or not _pending(plan):
        return plan
    return tables.Hooks.count(plan, size // (2 if kind == GNU_VERSYM else plan.target.sym_size))


def symbols_fit(plan: Plan, table: Table, number: int) -> bool:
    """Whether the header ``number`` may be that of the dynamic symbols."""
    if waiting(plan):
        return foreseen.fits(plan, table, number, DYNSYM)
    if links.read(plan, frozenset({DYNSYM})) or any(
        index != number and owed.types == {DYNSYM} for index, owed in plan.owed
    ):
        return False
    dynamic = space.dynamic_owed(plan)
    if dynamic is None:
        return True
    place = place_of(plan, DYNSYM)
    return (
        dynamic.read
        and place is not None
        and any(piece.bounds() for piece in symbol_sizes(plan, table, place, number))
        and any(piece.bounds() for piece in links.dynamic_strings(plan, number))
    )


def table_fits(plan: Plan, table: Table, number: int, kind: int) -> bool:
    """Whether the header ``number`` may be that of a hash or version table."""
    if waiting(plan):
        return foreseen.fits(plan, table, number, kind)
    place = place_of(plan, kind)
    if place is None or (kind in NAMED and place.count is None):
        return False
    known = place.size is not None or unread(plan, table, kind)
    if not known and (kind != GNU_VERSYM or counts(plan, table, number) is None):
        return False
    pieces = links.dynamic_strings(plan, number) if kind in NAMED else symbols_of_table(plan, table, number)
    return any(piece.bounds() for piece in pieces)


def symbols_of_table(plan: Plan, table: Table, number: int) -> list[Piece]:
    """The dynamic symbol table that hash and version tables link."""
    if waiting(plan):
        return links.dynamic_symbols(plan, number, expected.symbols_to_come(plan, table, number) > 0)
    possible = space.dynamic_owed(plan) is not None and symbols_fit(plan, table, number)
    return links.dynamic_symbols(plan, number, possible)
