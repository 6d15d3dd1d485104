"""Notes: where they are or fit, the check of those already written, and the grammar of those ahead."""

from __future__ import annotations

from bytegen.formats.elf.notes.grammar import NoteDetail
from bytegen.formats.elf.notes.owners import LEAST, PROPERTY_SIZES, property_sizes
from bytegen.formats.elf.notes.places import (
    note_aligns,
    note_offsets,
    note_sizes,
    notes_fit,
    promise_notes,
)
from bytegen.formats.elf.notes.written import first_end, property_end, property_starts

__all__ = [
    "LEAST",
    "PROPERTY_SIZES",
    "NoteDetail",
    "first_end",
    "note_aligns",
    "note_offsets",
    "note_sizes",
    "notes_fit",
    "promise_notes",
    "property_end",
    "property_sizes",
    "property_starts",
]
