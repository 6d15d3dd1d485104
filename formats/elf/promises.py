"""Where the contents that headers promise are or fit: exact sets of their offset, size, link and info.

Content behind the table is judged by its bytes (`written`); content ahead is promised in the ledger. It may
not lie across the table. String tables still owed must keep room ahead or have a place behind; one place
serves them all, since string tables may share their bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from bytegen.formats.core.intset import Finite, Piece, Span
from bytegen.formats.core.ledger import Region
from bytegen.formats.elf.constants import RELA_SIZE, SHT_NOTE, SHT_RELA, SHT_STRTAB, SHT_SYMTAB, SYM_SIZE
from bytegen.formats.elf.notes import LEAST, NoteDetail
from bytegen.formats.elf.plan import Plan
from bytegen.formats.elf.written import SymbolRun, Table

_NOTHING: Piece = Finite((0,))


class Linked(NamedTuple):
    """sh_link and sh_info of the section that promised a region."""

    link: int
    info: int


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _shared(plan: Plan, table: Table) -> list[int]:
    """Sizes of the string tables promised ahead."""
    return [r.end - r.start for r in plan.ledger.regions if r.kind == "strings" and r.start >= table.end]


def longest_table(plan: Plan, table: Table) -> int:
    """The greatest size that a string table read later can have."""
    ahead = [high - low for low, high in plan.ledger.gaps(table.end)]
    return max(table.behind.longest_strings(), *ahead, *_shared(plan, table), 0)


def _greatest_need(plan: Plan, index: int) -> int:
    """Size of the longest string table owed to sections after ``index``."""
    return max((owed.need for i, owed in plan.owed if i != index), default=0)


def _elsewhere(plan: Plan, table: Table, gap: int) -> int:
    """The greatest size of a string table that does not use the gap which begins at ``gap``."""
    others = [high - low for low, high in plan.ledger.gaps(table.end) if low != gap]
    return max(table.behind.longest_strings(), *others, *_shared(plan, table), 0)


def _starts(plan: Plan, table: Table, kind: str, index: int, least: int, align: int = 1) -> list[Piece]:
    """Offsets ahead at which a region of that kind with at least ``least`` bytes may begin."""
    need = _greatest_need(plan, index)
    pieces: list[Piece] = []
    for low, high in plan.ledger.gaps(table.end):
        if not need or _elsewhere(plan, table, low) >= need:
            pieces.append(Span(low, high - least, align))
        elif kind == "strings":
            pieces += [Span(low, high - max(need, least)), Span(low + need, high - least)]
        else:
            pieces += [Span(low, high - least - need, align), Span(low + need, high - least, align)]
    return [piece for piece in pieces if piece.bounds()]


def _same(plan: Plan, table: Table, kind: str, least: int) -> Piece:
    """Offsets of the regions of that kind already promised ahead."""
    return Finite(
        [
            r.start
            for r in plan.ledger.regions
            if r.kind == kind and r.start >= table.end and r.end - r.start >= least
        ]
    )


def _ahead(
    plan: Plan, table: Table, offset: int, kind: str, index: int, step: int, least: int
) -> list[Piece]:
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
    least = _up(least, step)
    need = _greatest_need(plan, index)
    if not need or max(offset - low, _elsewhere(plan, table, low)) >= need:
        return [Span(least, high - offset, step)]
    pieces: list[Piece] = [Span(least, high - need - offset, step)]
    if kind == "strings":
        pieces.append(Span(max(least, need), high - offset))
    return pieces


# String tables


def string_offsets(plan: Plan, table: Table, need: int, index: int) -> list[Piece]:
    """Where a string table of at least ``need`` bytes is or fits."""
    return [
        table.behind.string_offsets(need),
        *_starts(plan, table, "strings", index, need),
        _same(plan, table, "strings", need),
    ]


def string_sizes(plan: Plan, table: Table, offset: int, need: int, index: int) -> list[Piece]:
    """Sizes of a string table at ``offset``."""
    pieces: list[Piece] = [] if need else [_NOTHING]
    if offset < table.start:
        pieces.append(table.behind.string_sizes(offset, need))
    return pieces + _ahead(plan, table, offset, "strings", index, 1, max(need, 1))


# Symbol tables


def _symbols(plan: Plan, table: Table, offset: int) -> SymbolRun:
    return table.behind.symbols(offset, plan.shnum, plan.tls_size, plan.segments_read)


def _string_tables(plan: Plan, index: int) -> tuple[list[int], list[int]]:
    """Sections that a symbol table at ``index`` may link: string tables read, and later sections."""
    read = [i for i, section in enumerate(plan.sections) if section.kind == SHT_STRTAB]
    owed = dict(plan.owed)
    later = [i for i in range(index + 1, plan.shnum) if i not in owed or SHT_STRTAB in owed[i].types]
    return read, later


def symbol_sizes(plan: Plan, table: Table, offset: int, index: int) -> list[Piece]:
    """Sizes of a symbol table at ``offset``, which is section ``index``."""
    read, later = _string_tables(plan, index)
    longest = max([plan.sections[i].size for i in read] + ([longest_table(plan, table)] if later else []))
    if not longest:
        return [_NOTHING]
    if offset < table.start:
        return [Span(0, SYM_SIZE * _symbols(plan, table, offset).within(longest), SYM_SIZE)]
    return [_NOTHING, *_ahead(plan, table, offset, "symbols", index, SYM_SIZE, SYM_SIZE)]


def names_need(plan: Plan, table: Table, offset: int, size: int) -> int:
    """Bytes that the string table of these symbols has at least."""
    if not size:
        return 0
    if offset < table.start:
        return int(_symbols(plan, table, offset).names[size // SYM_SIZE - 1]) + 1
    return 1


def symbol_links(plan: Plan, table: Table, offset: int, size: int, index: int) -> list[int]:
    """String tables that hold the names of these symbols."""
    known = plan.ledger.at(offset, "symbols") if size and offset >= table.end else None
    if known is not None:
        return [known.detail.link]
    need = names_need(plan, table, offset, size)
    read, later = _string_tables(plan, index)
    links = [i for i in read if plan.sections[i].size >= need]
    if later:
        if size and offset >= table.end:
            # The symbols take their place ahead before the string table does.
            plan = plan._replace(ledger=plan.ledger.add(Region(offset, offset + size, "symbols", "")))
        if longest_table(plan, table) >= need:
            links += later
    return links


def symbol_infos(plan: Plan, table: Table, offset: int, size: int) -> list[Piece]:
    """Numbers of local symbols that the table may have."""
    if not size:
        return [_NOTHING]
    count = size // SYM_SIZE
    if offset < table.start:
        return [Finite((int(_symbols(plan, table, offset).locals[count - 1]),))]
    known = plan.ledger.at(offset, "symbols")
    return [Finite((known.detail.info,))] if known is not None else [Span(1, count)]


# Relocation tables


def _symbol_tables(plan: Plan) -> list[int]:
    return [i for i, section in enumerate(plan.sections) if section.kind == SHT_SYMTAB]


def relocation_sizes(plan: Plan, table: Table, offset: int, index: int) -> list[Piece]:
    """Sizes of a relocation table at ``offset``."""
    if offset < table.start:
        most = max([plan.sections[i].entries for i in _symbol_tables(plan)], default=0)
        good = int(table.behind.relocation_symbols(offset).searchsorted(max(most, 1), side="left"))
        return [Span(0, RELA_SIZE * good, RELA_SIZE)]
    return [_NOTHING, *_ahead(plan, table, offset, "relocations", index, RELA_SIZE, RELA_SIZE)]


def relocation_links(plan: Plan, table: Table, offset: int, size: int, index: int) -> list[int]:
    """Symbol tables that have the symbols of these relocations; 0 and later ones where they use none."""
    most = 0
    if size and offset < table.start:
        most = int(table.behind.relocation_symbols(offset)[size // RELA_SIZE - 1])
    elif size:
        known = plan.ledger.at(offset, "relocations")
        if known is not None:
            return [known.detail.link]
    tables = [i for i in _symbol_tables(plan) if most == 0 or most < plan.sections[i].entries]
    if most:
        return tables
    owed = dict(plan.owed)
    later = [i for i in range(index + 1, plan.shnum) if i not in owed or SHT_SYMTAB in owed[i].types]
    return [0, *tables, *later]


# Notes


def _note_starts(plan: Plan, table: Table, index: int) -> list[Piece]:
    return _starts(plan, table, "notes", index, LEAST, 4)


def notes_fit(plan: Plan, table: Table, index: int = 0) -> bool:
    """Whether there is a place for notes: ahead, where some are promised, or where some are written."""
    return bool(
        _note_starts(plan, table, index)
        or _same(plan, table, "notes", 0).bounds()
        or table.behind.has_notes()
    )


def note_offsets(plan: Plan, table: Table, index: int = 0) -> list[Piece]:
    """Where notes are or fit. ``index`` is the section's, 0 for a segment."""
    return [table.behind.note_offsets(), *_note_starts(plan, table, index), _same(plan, table, "notes", 0)]


def note_sizes(plan: Plan, table: Table, offset: int, index: int = 0) -> list[Piece]:
    """Sizes of notes at ``offset``."""
    if offset < table.start:
        return [Finite([end - offset for end in table.behind.note_ends(offset, 4)])]
    return _ahead(plan, table, offset, "notes", index, 4, LEAST)


def note_aligns(plan: Plan, table: Table, offset: int, size: int) -> tuple[int, ...]:
    """Values of p_align or sh_addralign: they say to what the notes are padded."""
    known = plan.ledger.at(offset, "notes")
    if offset < table.start:
        four, eight = True, offset + size in table.behind.note_ends(offset, 8)
    elif known is not None:
        four, eight = known.detail.align == 4, known.detail.align == 8
    else:
        four, eight = True, size % 8 == 0
    return (*((0, 1, 4) if four else ()), *((8,) if eight else ()))


# The ledger


def promise_notes(plan: Plan, offset: int, size: int, detail: NoteDetail, path: str) -> Plan:
    """The plan with notes promised ahead; a promise of the same range becomes the stricter of the two."""
    known = plan.ledger.at(offset, "notes")
    if known is None:
        return plan._replace(ledger=plan.ledger.add(Region(offset, offset + size, "notes", path, detail)))
    if detail.single and not known.detail.single:
        return plan._replace(ledger=plan.ledger.replace(known, known._replace(detail=detail)))
    return plan


def promise(plan: Plan, kind: int, offset: int, size: int, align: int, path: str, detail: Linked) -> Plan:
    """The plan that promises the content of a section ahead."""
    if kind == SHT_NOTE:
        return promise_notes(plan, offset, size, NoteDetail(8 if align == 8 else 4, False), path)
    name = {SHT_STRTAB: "strings", SHT_SYMTAB: "symbols", SHT_RELA: "relocations"}.get(kind)
    if name is None:
        return plan._replace(labels=(*plan.labels, (offset, offset + size, path)))
    return plan._replace(ledger=plan.ledger.add(Region(offset, offset + size, name, path, detail)))
