"""The types of program headers that describe notes: PT_NOTE and PT_GNU_PROPERTY.

At level load a PT_LOAD maps them where the header says, for the dynamic loader reads notes in memory.
"""

from __future__ import annotations

from bytegen.formats.core.intset import IntSet, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.elf.constants import PT_GNU_PROPERTY, PT_NOTE
from bytegen.formats.elf.held_kinds import Content
from bytegen.formats.elf.kinds import Choice, Kind, Offered
from bytegen.formats.elf.notes import (
    LEAST,
    NoteDetail,
    first_end,
    note_aligns,
    note_offsets,
    note_sizes,
    promise_notes,
    property_end,
    property_sizes,
    property_starts,
)
from bytegen.formats.elf.phdr import Header
from bytegen.formats.elf.plan import Plan, Segment
from bytegen.formats.elf.target import AARCH64
from bytegen.formats.elf.worlds import World


class Note(Content):
    """PT_NOTE: notes that lie behind, are promised already, or get promised here."""

    single = False
    settles = False

    def after(self, plan: Plan) -> Plan:
        """See `Content.after`."""
        return plan._replace(table_noting=plan.strict)

    def mapped(self, plan: Plan) -> bool:
        """See `Content.mapped`."""
        return plan.strict

    def least(self, header: Header) -> int:
        """See `Content.least`."""
        return LEAST

    def starts(self, header: Header, world: World) -> list[Piece]:
        """See `Content.starts`."""
        return note_offsets(header.plan._replace(ledger=world.ledger), header.table)

    def lengths(self, header: Header, world: World, offset: int) -> list[Piece]:
        """See `Content.lengths`."""
        return note_sizes(header.plan._replace(ledger=world.ledger), header.table, offset)

    def _shortest(self, header: Header, world: World, offset: int) -> int | None:
        if self.single or offset >= header.table.start:
            return super()._shortest(header, world, offset)
        end = first_end(header.table.behind, header.plan.target, offset)
        return None if end is None else end - offset

    def align(self, header: Header) -> Choice:
        """See `Kind.align`."""
        found = note_aligns(header.plan, header.table, header.offset, header.filesz)
        rule = "0, 1 or 4 for notes padded to 4 bytes, 8 for notes padded to 8"
        return exactly(header.plan.target.word, *found), rule

    def done(self, header: Header) -> Plan:
        """See `Kind.done`."""
        plan = super().done(header)
        if header.offset < header.table.end:
            return plan
        detail = NoteDetail(8 if header.align == 8 else 4, self.single)
        return promise_notes(plan, header.offset, header.filesz, detail, f"notes[{header.index}]")


class Property(Note):
    """PT_GNU_PROPERTY: a single note of GNU properties, padded to 8 bytes in 64-bit files and to 4 in 32-bit ones.

    On x86 it may be any bytes that are in a PT_LOAD read before: patchelf 0.14 and 0.15 move the note and leave the
    header, and nobody minds. The kernel reads the note on AArch64 only (ARCH_USE_GNU_PROPERTY), where what is no
    good note cannot be executed (fs/binfmt_elf.c, parse_elf_properties); glibc passes over notes it does not know.
    """

    single = True

    def _anything(self, header: Header) -> bool:
        """Whether any bytes will do."""
        return header.plan.target.machine != AARCH64.machine

    def _loads(self, header: Header, offset: int) -> list[Segment]:
        """The PT_LOADs read before that have the file byte at ``offset``, which may hold anything."""
        if not self._anything(header):
            return []
        loads = header.plan.segments
        return [load for load in loads if load.offset <= offset < load.offset + load.filesz]

    def offered(self, header: Header, spare: bool) -> Offered:
        """See `Kind.offered`."""
        if self._anything(header) and (not header.plan.strict or any(x.filesz for x in header.plan.segments)):
            return spare
        return super().offered(header, spare)

    def offset(self, header: Header) -> Choice:
        """See `Kind.offset`."""
        if self._anything(header) and not header.plan.strict:
            return Kind.offset(self, header)
        choices, rule = super().offset(header)
        if not self._anything(header):
            return choices, rule
        loads = [Span(x.offset, x.offset + x.filesz - 1) for x in header.plan.segments if x.filesz]
        return IntSet(choices.size, *choices.pieces, *loads), rule

    def _note_there(self, header: Header) -> bool:
        """Whether a note of properties is or fits at the offset, which other bytes of a PT_LOAD may have too."""
        return super().offset(header)[0].contains(header.offset)

    def vaddr(self, header: Header) -> Choice:
        """See `Kind.vaddr`."""
        if self._anything(header) and not header.plan.strict:
            return Kind.vaddr(self, header)
        choices, rule = super().vaddr(header)
        loads = [Finite((header.offset + load.shift,)) for load in self._loads(header, header.offset)]
        if not loads:
            return choices, rule
        return IntSet(choices.size, *(choices.pieces if self._note_there(header) else ()), *loads), rule

    def filesz(self, header: Header) -> Choice:
        """See `Kind.filesz`."""
        if self._anything(header) and not header.plan.strict:
            return Kind.filesz(self, header)
        choices, rule = super().filesz(header)
        loads = [
            Span(1, load.offset + load.filesz - header.offset)
            for load in self._loads(header, header.offset)
            if header.vaddr - header.offset == load.shift
        ]
        if not loads:
            return choices, rule
        return IntSet(choices.size, *(choices.pieces if self._note_there(header) else ()), *loads), rule

    def done(self, header: Header) -> Plan:
        """See `Kind.done`."""
        if not self._anything(header):
            return super().done(header)
        held = any(
            load.shift == header.vaddr - header.offset
            and header.offset + header.filesz <= load.offset + load.filesz
            for load in self._loads(header, header.offset)
        )
        if header.plan.strict and not held:
            return super().done(header)
        return Kind.done(self, header)

    def _pad(self, header: Header) -> int:
        return header.plan.target.word

    def least(self, header: Header) -> int:
        """See `Content.least`."""
        return property_sizes(header.plan.target)[0]

    def starts(self, header: Header, world: World) -> list[Piece]:
        """See `Content.starts`."""
        table, least = header.table, self.least(header)
        gaps = world.ledger.gaps(table.end)
        pieces: list[Piece] = [
            Span(low, high - least, 4) for low, high in gaps if high - least >= -(-low // 4) * 4
        ]
        same = [
            region.start
            for region in world.ledger.regions
            if region.kind == "notes" and region.start >= table.end and self._fits(header, region)
        ]
        found = [*same, *property_starts(table.behind, header.plan.target)]
        return [*pieces, Finite(found)] if found else pieces

    def _fits(self, header: Header, region: Region) -> bool:
        right = region.detail.align == self._pad(header)
        return right and region.end - region.start in property_sizes(header.plan.target)

    def lengths(self, header: Header, world: World, offset: int) -> list[Piece]:
        """See `Content.lengths`."""
        table = header.table
        if offset < table.start:
            end = property_end(table.behind, header.plan.target, offset)
            return [Finite((end - offset,))] if end is not None else []
        known = world.ledger.at(offset, "notes")
        if known is not None:
            return [Finite((known.end - offset,))]
        room = world.ledger.room(offset, table.end)
        return [Finite([size for size in property_sizes(header.plan.target) if size <= room])]

    def align(self, header: Header) -> Choice:
        """See `Kind.align`."""
        pad = self._pad(header)
        return exactly(header.plan.target.word, pad), str(pad)


NOTES: dict[int, Kind] = {PT_NOTE: Note(), PT_GNU_PROPERTY: Property()}
