"""What sections hold: exact sets of sh_addr, sh_offset, sh_size, sh_link and sh_info of each type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bytegen.formats.core.pieces import Bits, Finite, Piece, Span
from bytegen.formats.elf import names, space, tables
from bytegen.formats.elf.contents import relative, relocations, strings, symbols
from bytegen.formats.elf.contents.compressed import any_compressed, compressed_offsets, compressed_sizes
from bytegen.formats.elf.foreseen import waiting
from bytegen.formats.elf.notes import NoteDetail, note_offsets, note_sizes, promise_notes
from bytegen.formats.elf.plan import Plan, Section
from bytegen.formats.elf.sections import agreed, foreseen, linked, links
from bytegen.formats.elf.sections.types import (
    ALLOC,
    ARRAYS,
    COMPRESSED,
    DYNAMIC,
    DYNSYM,
    GNU_VERSYM,
    HASH,
    INFO_LINK,
    NAMED,
    NOBITS,
    NOTE,
    PROGBITS,
    RELA,
    RELOCATIONS,
    RELR,
    STRTAB,
    SYMBOLS,
    TABLES,
    kinds,
)
from bytegen.formats.elf.written import Table

if TYPE_CHECKING:
    from bytegen.formats.elf.sections.header import Header

DYNAMIC_NAME = len(names.DYNAMIC)
_NOTHING: Piece = Finite((0,))
_STRINGS = frozenset({STRTAB})
_Choices = tuple[list[Piece], str]

TAKES_ROOM = frozenset({NOTE, STRTAB, RELR, *SYMBOLS, *RELOCATIONS, *TABLES})
"""Types whose content may be promised room ahead: what others may be does not depend on the room that is left."""


# The fields


def compressed_flags(plan: Plan, table: Table) -> Piece:
    """Flags of a compressed section: not allocated, and there is one among the bytes already written."""
    return _Flags(plan, table)


class _Flags:
    """The piece of `compressed_flags`: it looks for a compressed section only where the flag is asked for."""

    __slots__ = ("_bits", "_plan", "_table")

    def __init__(self, plan: Plan, table: Table) -> None:
        self._plan, self._table = plan, table
        self._bits = Bits(kinds(plan.target).flags & ~ALLOC, COMPRESSED)

    def _there(self) -> bool:
        return any_compressed(self._table.behind, self._plan.target)

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`."""
        if self._bits.has(k, prefix) and self._there():
            self._bits.mark(k, prefix, out)

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`."""
        return self._bits.has(k, prefix) and self._there()

    def contains(self, x: int) -> bool:
        """See `Piece.contains`."""
        return self._bits.contains(x) and self._there()

    def bounds(self) -> tuple[int, int] | None:
        """See `Piece.bounds`."""
        return self._bits.bounds() if self._there() else None


def address(plan: Plan, kind: int) -> int | None:
    """sh_addr where the dynamic section settles it."""
    place = agreed.place_of(plan, kind)
    return None if place is None else place.address


def _request(plan: Plan, header: Header) -> tuple[Plan, tables.Request]:
    """The plan as the string table's rules see it, its own name included, and what is asked of it."""
    owed = plan.owed_at(header.number)
    if header.number == plan.shstrndx:
        own = Section(STRTAB, 0, 0, 0, 0, header.name)
        plan = space.with_section(plan, own)
    return plan, tables.Request(owed.need if owed is not None else 0, header.number)


def offsets(plan: Plan, header: Header) -> _Choices:
    """The set of sh_offset, and its rule."""
    table, kind = header.table, header.kind
    if foreseen.rules(plan, kind):
        return [Finite((foreseen.offset_of(plan, table, header.address),))], "where its address is mapped"
    place = agreed.place_of(plan, kind)
    if place is not None:
        return [Finite((place.offset,))], "where the dynamic section says"
    owed = plan.owed_at(header.number)
    if owed is not None and owed.place is not None:
        return [Finite((owed.place[0],))], "where the dynamic section says"
    if kind == STRTAB and owed is not None and owed.need:
        seen, request = _request(plan, header)
        rule = f"where a string table of at least {owed.need} bytes, with the names asked of it, is or fits"
        return strings.offsets(seen, table, request), rule
    if kind == NOTE:
        return note_offsets(plan, table, header.number), "a multiple of 4 where notes are or fit"
    if header.flags & COMPRESSED:
        return [compressed_offsets(table.behind, plan.target)], "where a compressed section has been written"
    return [Span(0, plan.limit)], f"at most {plan.limit}"


def sizes(plan: Plan, header: Header) -> _Choices:
    """The set of sh_size, and its rule."""
    kind, offset, table, number = header.kind, header.offset, header.table, header.number
    if foreseen.rules(plan, kind):
        found_sizes = foreseen.sizes(plan, table, number, kind, offset, header.address)
        return found_sizes, "the size of the table there, or one that fits"
    owed, place = plan.owed_at(number), agreed.place_of(plan, kind)
    if kind == NOBITS:
        return [Span(0, plan.target.top - offset)], "any size that does not wrap"
    if owed is not None and owed.place is not None:
        return [Finite((owed.place[1],))], "the size that the dynamic section gives"
    if kind == DYNSYM and place is not None:
        return agreed.symbol_sizes(plan, table, place, number), "the dynamic symbols"
    if agreed.unread(plan, table, kind) and (place is None or place.size is None):
        return [Span(0, plan.limit - offset)], f"inside the {plan.limit} bytes of the file"
    if place is not None:
        bounds = agreed.counts(plan, table, number)
        if kind == GNU_VERSYM and bounds is not None:
            return [Span(2 * bounds[0], 2 * bounds[1], 2)], "a version index for each dynamic symbol"
        assert place.size is not None
        return [Finite((place.size,))], "the size of the table that the dynamic section names"
    if kind == STRTAB:
        seen, request = _request(plan, header)
        rule = "a string table ends with a zero, holds the names that refer to it, and fits"
        return strings.sizes(seen, table, offset, request), rule
    if kind in SYMBOLS:
        rule = "whole symbols, good ones where they are already written, and fits"
        return _symbol_sizes(plan, header), rule
    if kind in RELOCATIONS:
        most = max([plan.sections[i].entries for i in links.read(plan, SYMBOLS)], default=0)
        most = max(most, linked.symbols_to_come(plan, header))
        found = tables.find(relocations.RELA if kind == RELA else relocations.REL)
        assert found is not None
        detail = relocations.RelocationDetail(symbols=most)
        rule = "whole relocations, good ones where they are already written, and fits"
        return found.sizes(plan, table, offset, tables.Request(index=number, detail=detail)), rule
    if kind == RELR:
        rule = "whole words, the first one even, and fits"
        return relative.sizes(plan, table, offset, tables.Request(index=number)), rule
    if kind == NOTE:
        return note_sizes(plan, table, offset, number), "a whole number of notes that fit"
    if header.flags & COMPRESSED:
        return [compressed_sizes(table.behind, plan.target, offset)], "that of the compressed section there"
    return _plain_sizes(plan, header)


def sized(plan: Plan, header: Header, size: int) -> Plan:
    """The plan after sh_size, which may settle how many dynamic symbols there are."""
    if foreseen.rules(plan, header.kind):
        return foreseen.sized(plan, header.table, header.number, header.kind, header.offset, size)
    return agreed.settle(plan, header.kind, size)


def _plain_sizes(plan: Plan, header: Header) -> _Choices:
    room = plan.limit - header.offset
    if header.kind == PROGBITS and plan.shstrndx < header.number:
        table = plan.sections[plan.shstrndx]
        if table.offset < header.table.start and header.table.behind.raw.startswith(
            names.STAB, table.offset + header.name
        ):
            return [Span(0, room, names.STAB_SIZE)], "records of 12 bytes, for its name is .stab"
    return [Span(0, room)], f"inside the {plan.limit} bytes of the file"


def _symbol_sizes(plan: Plan, header: Header) -> list[Piece]:
    """Sizes of symbols whose names some string table can hold."""
    table, offset, number = header.table, header.offset, header.number
    read = links.read(plan, _STRINGS)
    later = links.later(plan, number, _STRINGS)
    longest = max(
        [plan.sections[i].size for i in read] + ([space.longest(plan, table).plain] if later else [])
    )
    if not longest:
        return [_NOTHING]
    detail = symbols.SymbolDetail(names=longest)
    return symbols.sizes(plan, table, offset, tables.Request(0, number, detail=detail))


def infos(plan: Plan, header: Header) -> _Choices:
    """The set of sh_info, and its rule."""
    kind = header.kind
    if kind in SYMBOLS:
        return _symbol_infos(plan, header), "the number of local symbols"
    if kind in RELOCATIONS:
        types = kinds(plan.target).relocatable
        read = links.read(plan, types)
        later = links.later(plan, header.number, types)
        return [Finite((0, *read)), *later], "0, or a section that can be relocated"
    if kind in NAMED and waiting(plan):
        count = foreseen.count_of(plan, header.table, kind, header.offset)
        return [Finite((count,))], "the number of versions in the table"
    if kind in NAMED:
        place = agreed.place_of(plan, kind)
        assert place is not None
        assert place.count is not None
        return [Finite((place.count,))], "the number of versions that the dynamic section gives"
    if kind in ARRAYS or kind in (DYNAMIC, HASH) or not header.flags & INFO_LINK:
        return [_NOTHING], "0"
    return [Span(1, plan.shnum - 1)], "a section, since SHF_INFO_LINK is set"


def _symbol_infos(plan: Plan, header: Header) -> list[Piece]:
    """Numbers of local symbols that the table may have."""
    if not header.size:
        return [_NOTHING]
    count = header.size // plan.target.sym_size
    if header.offset < header.table.start:
        run = symbols.symbols_behind(plan, header.table.behind, header.offset)
        return [Finite((int(run.locals[count - 1]),))]
    known = plan.ledger.at(header.offset, "symbols")
    if known is not None and known.detail.locals >= 0:
        return [Finite((known.detail.locals,))]
    return [Span(1, count)]


def informed(plan: Plan, header: Header, info: int) -> Plan:
    """The plan that owes a section to be relocated before it is read."""
    if header.kind in RELOCATIONS and info > header.number:
        return plan.owe(info, kinds(plan.target).relocatable)
    return plan


def promise(plan: Plan, header: Header) -> Plan:
    """The plan that promises the content of a section ahead."""
    kind, offset, size = header.kind, header.offset, header.size
    path = f"section[{header.number}]"
    if kind == DYNAMIC or kind in TABLES or foreseen.rules(plan, kind):
        return plan  # promised with the dynamic section, or with the size
    if kind == NOTE:
        return promise_notes(plan, offset, size, NoteDetail(8 if header.align == 8 else 4, False), path)
    if kind == STRTAB:
        return strings.promise(plan, offset, size, path)
    if kind in SYMBOLS:
        return symbols.promise(plan, offset, size, path, symbols.SymbolDetail(header.link, header.info))
    if kind in RELOCATIONS:
        found = tables.find(relocations.RELA if kind == RELA else relocations.REL)
        assert found is not None
        return found.promise(plan, offset, size, path, relocations.RelocationDetail(header.link))
    if kind == RELR:
        return relative.promise(plan, offset, size, path)
    return plan._replace(labels=(*plan.labels, (offset, offset + size, path)))
