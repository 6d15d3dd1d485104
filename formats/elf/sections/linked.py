"""sh_link: which sections a header may link to, and what it owes them (see `links`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.elf import space
from bytegen.formats.elf.contents import relocations, symbols
from bytegen.formats.elf.foreseen import waiting
from bytegen.formats.elf.plan import Plan
from bytegen.formats.elf.sections import agreed, expected, foreseen, links
from bytegen.formats.elf.sections.types import (
    DYNAMIC,
    DYNSYM,
    NAMED,
    RELA,
    RELOCATIONS,
    STRTAB,
    SYMBOLS,
    TABLES,
)

if TYPE_CHECKING:
    from bytegen.formats.elf.sections.header import Header

_STRINGS = frozenset({STRTAB})
_Choices = tuple[list[Piece], str]


def _names_need(plan: Plan, header: Header) -> int:
    """Bytes that the string table of these symbols has at least."""
    if not header.size:
        return 0
    if header.offset < header.table.start:
        run = symbols.symbols_behind(plan, header.table.behind, header.offset)
        return int(run.names[header.size // plan.target.sym_size - 1]) + 1
    return 1


def link_choices(plan: Plan, header: Header) -> _Choices:
    """The set of sh_link, and its rule."""
    kind, number = header.kind, header.number
    if foreseen.rules(plan, kind):
        pieces = foreseen.link_choices(plan, header.table, number, kind, header.offset, header.size)
        return pieces, "the dynamic symbols, or their strings"
    if kind in NAMED or kind == DYNAMIC or (kind == DYNSYM and agreed.place_of(plan, kind) is not None):
        return links.dynamic_strings(plan, number), "the string table that the dynamic section names"
    if kind in SYMBOLS:
        return _symbol_links(plan, header), "a string table that holds the symbols' names"
    if kind in TABLES:
        return agreed.symbols_of_table(plan, header.table, number), "the dynamic symbol table"
    if kind in RELOCATIONS:
        return _relocation_links(plan, header), "0, or a symbol table that has the relocations' symbols"
    return [Span(0, plan.shnum - 1)], "a section"


def _symbol_links(plan: Plan, header: Header) -> list[Piece]:
    offset, size, table = header.offset, header.size, header.table
    ahead = bool(size) and offset >= table.end
    known = plan.ledger.at(offset, "symbols") if ahead else None
    if known is not None and known.detail.link:
        return [Finite((known.detail.link,))]
    need = _names_need(plan, header)
    fitting = [i for i in links.read(plan, _STRINGS) if plan.sections[i].size >= need]
    pieces: list[Piece] = [Finite(fitting)] if fitting else []
    if ahead and known is None:
        # The symbols take their place ahead before the string table does.
        plan = symbols.promise(plan, offset, size, "", None)
    longest = space.longest(plan, table)
    if longest.plain < need:
        return pieces
    for piece in links.later(plan, header.number, _STRINGS):
        if longest.names >= need or not piece.contains(plan.shstrndx):
            pieces.append(piece)
        elif isinstance(piece, Finite):
            low, high = piece.bounds() or (0, -1)
            rest = [i for i in range(low, high + 1) if i != plan.shstrndx and piece.contains(i)]
            pieces += [Finite(rest)] if rest else []
    return pieces


def _greatest_symbol(plan: Plan, header: Header) -> int:
    """The greatest symbol of relocations that are already written; 0 of others."""
    if not header.size or header.offset >= header.table.start:
        return 0
    rela = header.kind == RELA
    run = relocations.symbols_behind(plan, header.table.behind, header.offset, rela)
    return int(run[header.size // relocations.size_of(plan.target, rela) - 1])


def symbols_to_come(plan: Plan, header: Header) -> int:
    """How many symbols the dynamic symbol table may have, if it is still to come."""
    place = agreed.place_of(plan, DYNSYM)
    if not agreed.symbols_of_table(plan, header.table, header.number):
        return 0
    if waiting(plan):
        return expected.symbols_to_come(plan, header.table, header.number)
    if place is None:
        return 0
    pieces = agreed.symbol_sizes(plan, header.table, place, header.number)
    ends = [bounds[1] for bounds in (piece.bounds() for piece in pieces) if bounds]
    return max(ends, default=0) // plan.target.sym_size


def _relocation_links(plan: Plan, header: Header) -> list[Piece]:
    offset, table, most = header.offset, header.table, _greatest_symbol(plan, header)
    if header.size and offset >= table.end:
        known = plan.ledger.at(offset, relocations.RELA if header.kind == RELA else relocations.REL)
        if known is not None and known.detail.link:
            return [Finite((known.detail.link,))]
    read = [i for i in links.read(plan, SYMBOLS) if most == 0 or most < plan.sections[i].entries]
    if most:
        fitting: list[Piece] = [Finite(read)] if read else []
        if most < symbols_to_come(plan, header):
            fitting += agreed.symbols_of_table(plan, table, header.number)
        return fitting
    return [Finite((0, *read)), *links.later(plan, header.number, SYMBOLS)]


def linked(plan: Plan, header: Header, link: int) -> Plan:
    """The plan that owes a section linked before it is read."""
    kind, number = header.kind, header.number
    if foreseen.rules(plan, kind):
        return foreseen.linked(plan, header.table, number, kind, header.offset, header.size, link)
    if kind == DYNAMIC and waiting(plan):
        return foreseen.strings_linked(plan, number, link, links.text_need(plan))
    if link <= number:
        return plan
    if kind in NAMED or kind == DYNAMIC or (kind == DYNSYM and agreed.place_of(plan, kind) is not None):
        place = links.strings_place(plan)
        where = None if place is None or place.size is None else (place.offset, place.size)
        return plan.owe(link, _STRINGS, 0, where)
    if kind in SYMBOLS:
        return plan.owe(link, _STRINGS, _names_need(plan, header))
    if kind in TABLES:
        return plan.owe(link, frozenset({DYNSYM}))
    if kind not in RELOCATIONS:
        return plan
    most = _greatest_symbol(plan, header)
    if not most:
        return plan.owe(link, SYMBOLS)
    if waiting(plan):
        plan = expected.keep(plan, header.table, header.number, most + 1)
    return plan.owe(link, frozenset({DYNSYM}), most + 1)
