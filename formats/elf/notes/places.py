"""Where notes are or fit: the sets that program headers and section headers ask for."""

from __future__ import annotations

from typing import Any

from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece
from bytegen.formats.elf import space, tables
from bytegen.formats.elf.notes.grammar import NoteDetail
from bytegen.formats.elf.notes.owners import LEAST
from bytegen.formats.elf.notes.written import has_notes, note_ends, written_offsets
from bytegen.formats.elf.plan import Plan
from bytegen.formats.elf.written import Table


def _note_starts(plan: Plan, table: Table, index: int) -> list[Piece]:
    return space.starts(plan, table, "notes", index, LEAST, 4)


def notes_fit(plan: Plan, table: Table, index: int = 0) -> bool:
    """Whether there is a place for notes: ahead, where some are promised, or where some are written."""
    return bool(
        _note_starts(plan, table, index)
        or space.same(plan, table, "notes", 0).bounds()
        or has_notes(table.behind, plan.target)
    )


def note_offsets(plan: Plan, table: Table, index: int = 0) -> list[Piece]:
    """Where notes are or fit. ``index`` is the section's, 0 for a segment."""
    return [
        written_offsets(table.behind, plan.target),
        *_note_starts(plan, table, index),
        space.same(plan, table, "notes", 0),
    ]


def note_sizes(plan: Plan, table: Table, offset: int, index: int = 0) -> list[Piece]:
    """Sizes of notes at ``offset``."""
    if offset < table.start:
        return [Finite([end - offset for end in note_ends(table.behind, plan.target, offset, 4)])]
    return space.ahead(plan, table, offset, "notes", index, 4, LEAST)


def note_aligns(plan: Plan, table: Table, offset: int, size: int) -> tuple[int, ...]:
    """Values of p_align or sh_addralign: they say to what the notes are padded."""
    known = plan.ledger.at(offset, "notes")
    if offset < table.start:
        four, eight = True, offset + size in note_ends(table.behind, plan.target, offset, 8)
    elif known is not None:
        four, eight = known.detail.align == 4, known.detail.align == 8
    else:
        four, eight = True, size % 8 == 0
    return (*((0, 1, 4) if four else ()), *((8,) if eight else ()))


def promise_notes(plan: Plan, offset: int, size: int, detail: NoteDetail, path: str) -> Plan:
    """The plan with notes promised ahead; a promise of the same range becomes the stricter of the two."""
    known = plan.ledger.at(offset, "notes")
    if known is None:
        return plan._replace(ledger=plan.ledger.add(Region(offset, offset + size, "notes", path, detail)))
    if detail.single and not known.detail.single:
        return plan._replace(ledger=plan.ledger.replace(known, known._replace(detail=detail)))
    return plan


def _promise(plan: Plan, offset: int, size: int, path: str, detail: Any) -> Plan:
    return promise_notes(plan, offset, size, detail, path)


tables.register(
    tables.Kind(
        "notes",
        lambda plan, table, request: note_offsets(plan, table, request.index),
        lambda plan, table, offset, request: note_sizes(plan, table, offset, request.index),
        _promise,
    )
)
