"""Headers of dynamic symbols, hash and version tables that come before the dynamic section itself (`elf.foreseen`).

Symbols and hash tables lie behind, judged by their bytes, or ahead, promised with the size of their section;
version tables lie behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.elf.contents import symbols
from bytegen.formats.elf.dynamic import gnu_hash, hashes, versions
from bytegen.formats.elf.dynamic.foreseen import settle_headers
from bytegen.formats.elf.foreseen import UNBOUNDED, foreseen, waiting
from bytegen.formats.elf.plan import Plan
from bytegen.formats.elf.sections import expected, links
from bytegen.formats.elf.sections.types import (
    DYNSYM,
    GNU_HASH,
    GNU_VERDEF,
    GNU_VERSYM,
    HASH,
    NAMED,
    STRTAB,
    TABLES,
)
from bytegen.formats.elf.written import Lazily, Table

_There = Callable[[int, int], bool]
_Find = Callable[[int, int], np.ndarray]
HASHES = {HASH: "hash", GNU_HASH: "gnu_hash"}
HASH_HEAD = 12  # bytes of a hash table of one bucket before its chains
_STRINGS = frozenset({STRTAB})


def rules(plan: Plan, kind: int) -> bool:
    """Whether a header of this type is read by the rules of this module."""
    return (kind == DYNSYM or kind in TABLES) and waiting(plan)


class _Names(versions.Table):
    """A version table that takes note of the greatest place of a name."""

    greatest = 0

    def name(self, place: int) -> bytes | None:
        self.greatest = max(self.greatest, place)
        return super().name(place)


def _read_versions(raw: bytes, kind: int, offset: int, end: int) -> tuple[versions.Versions, int] | None:
    """The version table at ``offset`` of the bytes up to ``end``, and the greatest place of a name in it."""
    read = versions.read_definitions if kind == GNU_VERDEF else versions.read_needs
    names = _Names(raw, end, None, UNBOUNDED * 2, False, frozenset())
    found = read(names, offset)
    return None if found is None else (found, names.greatest)


def _versions(plan: Plan, table: Table, kind: int, offset: int) -> tuple[versions.Versions, int] | None:
    """The version table behind at ``offset``, and the bytes that its string table has at least."""
    end = max(
        (high for low, high, _ in expected.map_to(plan, table).ranges() if low <= offset < high), default=0
    )
    read = _read_versions(table.behind.raw, kind, offset, end)
    return None if read is None else (read[0], read[1] + 1)


def _version_places(table: Table, kind: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the version tables in a range begin, and the greatest place of a name in each."""
    key = ("version tables", kind, low, high)
    if key not in table.behind.cache:
        raw, definitions = table.behind.raw, kind == GNU_VERDEF
        starts = (versions.definition_starts if definitions else versions.starts)(raw, low, high)
        found = [
            (start, read[1])
            for start in starts
            if (read := _read_versions(raw, kind, start, high)) is not None
        ]
        table.behind.cache[key] = tuple(np.array(found, np.int64).reshape(-1, 2).T)
    places, greatest = table.behind.cache[key]
    return places, greatest


def names_need(plan: Plan, table: Table, kind: int, offset: int, size: int) -> int:
    """Bytes that the string table of such a section has at least."""
    if kind in NAMED:
        found = _versions(plan, table, kind, offset)
        assert found is not None
        return found[1]
    if offset >= table.start:
        return 1
    run = symbols.symbols_behind(plan, table.behind, offset)
    return int(run.names[size // plan.target.sym_size - 1]) + 1


# Tables behind


def _symbol_run(plan: Plan, table: Table, offset: int, high: int, bound: int) -> int:
    """How many good symbols begin at ``offset``, by the rules of sections and by those of the dynamic section."""
    count = symbols.symbols_behind(plan, table.behind, offset).within(bound)
    return min(count, expected.view(plan, table).symbols.run(offset, high, count, bound))


def _finders(plan: Plan, table: Table, number: int, kind: int) -> tuple[_There, _Find]:
    """Of tables that are written already: whether there is one at an offset up to an end, and all in a range."""
    seen = expected.view(plan, table)
    least, bound = expected.least(plan), expected.string_bound(plan, table, number)
    zero = _at_zero(plan)
    low_count, high_count = least, expected.most(plan, table, number)

    def symbols_there(offset: int, high: int) -> bool:
        return _symbol_run(plan, table, offset, high, bound) >= least

    def hash_there(offset: int, high: int) -> bool:
        count = seen.hash_symbols(kind == GNU_HASH, offset, high)
        return count == 0 or (count is not None and low_count <= count <= high_count)

    def indices_there(offset: int, high: int) -> bool:
        return offset % 2 == 0 and offset + 2 * low_count <= high and 2 * low_count <= zero

    def versions_there(offset: int, high: int) -> bool:
        read = _read_versions(table.behind.raw, kind, offset, high)
        return read is not None and read[1] < bound

    def find(low: int, high: int) -> np.ndarray:
        if kind == DYNSYM:
            starts = seen.symbols.tables(low, high, least, bound)
        elif kind in HASHES:
            starts = seen.hashed(kind == GNU_HASH, low, high).starts
        elif kind == GNU_VERSYM and 2 * low_count > zero:
            return np.zeros(0, np.int64)
        elif kind == GNU_VERSYM:
            return np.arange(low + low % 2, max(low, high - 2 * low_count + 1), 2)
        else:
            places, greatest = _version_places(table, kind, low, high)
            return places[greatest < bound]
        return np.array([x for x in starts.tolist() if there(x, high)], np.int64)

    if kind == DYNSYM:
        there = symbols_there
    elif kind in HASHES:
        there = hash_there
    elif kind == GNU_VERSYM:
        there = indices_there
    else:
        there = versions_there
    return there, find


def behind(plan: Plan, table: Table, number: int, kind: int) -> Lazily:
    """The addresses, of those that sh_addr may be, of tables that are written already."""
    return expected.map_to(plan, table).set_behind(*_finders(plan, table, number, kind))


def _exists(plan: Plan, table: Table, number: int, kind: int) -> bool:
    """Whether there is an address for such a table: as `ahead` and `behind` say, none of which it lists in full."""
    if any(piece.bounds() is not None for piece in ahead(plan, table, kind)):
        return True
    ranges = expected.map_to(plan, table).ranges()
    if kind in NAMED and _least_name(table, kind, ranges) >= expected.string_bound(plan, table, number):
        return False
    _, find = _finders(plan, table, number, kind)
    return any(len(find(low, high)) for low, high, _ in ranges)


def _least_name(table: Table, kind: int, ranges: list[tuple[int, int, int]]) -> int:
    """The least of the greatest places of a name in the version tables behind."""
    key = ("least name", kind)
    if key not in table.behind.cache:
        found = [_version_places(table, kind, low, high)[1] for low, high, _ in ranges]
        table.behind.cache[key] = int(
            min((names.min() for names in found if len(names)), default=UNBOUNDED * 2)
        )
    least: int = table.behind.cache[key]
    return least


def _at_zero(plan: Plan) -> int:
    """How many bytes are mapped at address 0, where readelf looks for version indices that have no DT_VERSYM."""
    first = plan.segments[0]
    return first.filesz if not first.address else 0


# Tables ahead


def _least_size(plan: Plan, kind: int) -> int:
    """The least size of a table ahead."""
    if kind == DYNSYM:
        return expected.least(plan) * plan.target.sym_size
    # A GNU hash table: its head, a word, and a bucket, which may be empty.
    return HASH_HEAD + 4 * expected.least(plan) if kind == HASH else 20 + plan.target.word


def _kept_place(plan: Plan, kind: int) -> Region | None:
    """The place that is reserved for the symbols, as they may use it."""
    region = foreseen(plan).reserved
    size = _least_size(plan, kind) if kind == DYNSYM else 0
    return region if region is not None and 0 < size <= region.end - region.start else None


def ahead(plan: Plan, table: Table, kind: int) -> list[Piece]:
    """The addresses, of those that sh_addr may be, at which such a table may be promised."""
    if kind == GNU_VERSYM or kind in NAMED:
        return []
    pieces: list[Piece] = []
    size, word = _least_size(plan, kind), plan.target.word
    kept = _kept_place(plan, kind)
    if kind == DYNSYM:
        plan = expected.released(plan, table)
    for low, high, shift in expected.gaps(plan, table):
        piece = Span(max(low + shift, 0), high - size + shift, word, shift % word)
        if piece.bounds() is not None:
            pieces.append(piece)
    if kept is not None:
        ranges = expected.map_to(plan, table).gaps(plan, kept.start)
        pieces.append(Finite([kept.start + shift for low, _, shift in ranges if low == kept.start]))
    return pieces


def _end_of(ranges: Iterable[tuple[int, int, int]], offset: int, address: int) -> int:
    """Where the range ends in which an offset is mapped at an address (others may show it too); 0 where none is."""
    shift = address - offset
    return max((high for low, high, moved in ranges if low <= offset < high and moved == shift), default=0)


def _room(plan: Plan, table: Table, offset: int, address: int) -> int:
    """Bytes that a table ahead may have."""
    return max(_end_of(expected.gaps(plan, table), offset, address) - offset, 0)


# The fields


def fits(plan: Plan, table: Table, number: int, kind: int) -> bool:
    """Whether the header ``number`` may be of this type."""
    if kind in plan.of_kind:
        return False
    if kind == DYNSYM:
        if any(index != number and owed.types == expected.ONLY_DYNSYM for index, owed in plan.owed):
            return False
    elif kind not in NAMED:
        kept = expected.reserve(plan, table, number, expected.least(plan))
        if kept is None or not links.dynamic_symbols(plan, number, True):
            return False
        plan = kept
    if not expected.string_bound(plan, table, number) and (kind in NAMED or kind == DYNSYM):
        return False
    return _exists(plan, table, number, kind)


def begun(plan: Plan, table: Table, number: int, kind: int) -> Plan:
    """The plan after sh_type: what links the symbols keeps room for them before it takes its own."""
    return expected.keep(plan, table, number, 1) if kind in HASHES or kind == GNU_VERSYM else plan


def offset_of(plan: Plan, table: Table, address: int) -> int:
    """sh_offset."""
    found = expected.map_to(plan, table).offset(address)
    assert found is not None
    return found


def sizes(plan: Plan, table: Table, number: int, kind: int, offset: int, address: int) -> list[Piece]:
    """The set of sh_size."""
    unit, least, seen = plan.target.sym_size, expected.least(plan), expected.view(plan, table)
    if kind in NAMED:
        found = _versions(plan, table, kind, offset)
        assert found is not None
        return [Finite((found[0].size,))]
    behind = offset < table.start
    high = _end_of(seen.map.ranges(), offset, address)
    if kind == GNU_VERSYM:
        room = min(high - offset, _at_zero(plan))
        return [Span(2 * least, min(2 * expected.most(plan, table, number), room), 2)]
    if kind == DYNSYM:
        exact = foreseen(plan).symbols is not None
        if behind:
            most = _symbol_run(plan, table, offset, high, expected.string_bound(plan, table, number))
        else:
            kept = _kept_place(plan, kind)
            most = _room(expected.released(plan, table), table, offset, address) // unit
            if kept is not None and offset == kept.start:
                most = max(most, least)
        most = min(most, foreseen(plan).most)
        return [Span(least * unit, (least if exact else most) * unit, unit)]
    if not behind:
        return [Span(_least_size(plan, kind), _room(plan, table, offset, address), 4)]
    if kind == HASH:
        return [Finite((hashes.size_of(seen.raw, offset),))]
    return [Finite((_gnu_hash(plan, table, offset, high).size,))]


def _gnu_hash(plan: Plan, table: Table, offset: int, high: int) -> gnu_hash.GnuHash:
    found = gnu_hash.read(table.behind.raw, offset, high, plan.target.word)
    assert found is not None
    return found


def sized(plan: Plan, table: Table, number: int, kind: int, offset: int, size: int) -> Plan:
    """The plan after sh_size: it knows how many symbols there are, keeps room for them, and promises what lies
    ahead."""
    count: int | None = None
    if kind == DYNSYM:
        plan, count = expected.released(plan, table), size // plan.target.sym_size
    elif kind == GNU_VERSYM:
        count = size // 2
    elif kind in HASHES and offset < table.start:
        high = max(high for low, high, _ in expected.map_to(plan, table).ranges() if low <= offset < high)
        count = expected.view(plan, table).hash_symbols(kind == GNU_HASH, offset, high) or None
    elif kind == HASH:
        most = min(foreseen(plan).most, (size - 8) // 4 - 1)
        plan = plan._replace(foreseen=foreseen(plan)._replace(most=most))
    if count is not None:
        plan = plan._replace(foreseen=foreseen(plan)._replace(symbols=count))
        if kind != DYNSYM:
            plan = expected.keep(plan, table, number, count)
    if offset >= table.end:
        name = HASHES.get(kind, "dynsym")
        region = Region(offset, offset + size, name, "dynamic symbols" if kind == DYNSYM else name)
        plan = plan._replace(ledger=plan.ledger.add(region))
    return plan


def link_choices(plan: Plan, table: Table, number: int, kind: int, offset: int, size: int) -> list[Piece]:
    """The set of sh_link."""
    if kind in NAMED or kind == DYNSYM:
        need = names_need(plan, table, kind, offset, size)
        if kind in NAMED:
            need = max(need, foreseen(plan).text)
        return expected.string_links(plan, table, number, need)
    return links.dynamic_symbols(plan, number, True)


def linked(plan: Plan, table: Table, number: int, kind: int, offset: int, size: int, link: int) -> Plan:
    """The plan after sh_link."""
    if kind not in NAMED and kind != DYNSYM:
        return plan.owe(link, expected.ONLY_DYNSYM) if link > number else plan
    need = names_need(plan, table, kind, offset, size)
    return strings_linked(plan, number, link, max(need, foreseen(plan).text) if kind in NAMED else need)


def strings_linked(plan: Plan, number: int, link: int, need: int) -> Plan:
    """The plan in which the strings have their section, of at least ``need`` bytes."""
    plan = plan._replace(foreseen=foreseen(plan)._replace(link=link, text=0))
    return plan.owe(link, _STRINGS, need) if link > number else plan


def count_of(plan: Plan, table: Table, kind: int, offset: int) -> int:
    """sh_info of a version table."""
    found = _versions(plan, table, kind, offset)
    assert found is not None
    return found[0].entries


def finish(plan: Plan, table: Table) -> Plan:
    """The plan after the section headers."""
    return settle_headers(plan, expected.map_to(plan, table)) if waiting(plan) else plan
