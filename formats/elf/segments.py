"""The program header table."""

from __future__ import annotations

from typing import Any

from bytegen.formats.core.intset import Finite, IntSet, Piece, Span, Window, anything, exactly, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.elf import load
from bytegen.formats.elf.constants import (
    MAX64,
    PAGE,
    PF_X,
    PHDR_SIZE,
    PT_GNU_EH_FRAME,
    PT_GNU_PROPERTY,
    PT_GNU_RELRO,
    PT_GNU_STACK,
    PT_LOAD,
    PT_NOTE,
    PT_NULL,
    PT_PHDR,
    PT_TLS,
)
from bytegen.formats.elf.notes import PROPERTY_SIZES, NoteDetail
from bytegen.formats.elf.plan import Plan, opener, proceed
from bytegen.formats.elf.promises import note_aligns, note_offsets, note_sizes, notes_fit, promise_notes
from bytegen.formats.elf.written import Behind, Table, provided

_POWERS = tuple(1 << i for i in range(64))
_PLAIN = (PT_NULL, PT_GNU_EH_FRAME, PT_GNU_STACK, PT_GNU_RELRO)
_ANY8 = anything(8)
_POWERS_OF_TWO = exactly(8, 0, *_POWERS)
_ALL_FLAGS = interval(4, 0, 7)
_X_FLAGS = exactly(4, 1, 3, 5, 7)


class Header:
    """The fields of one program header read so far."""

    __slots__ = ("address", "filesz", "flags", "index", "kind", "memsz", "offset", "roles", "start", "table")

    def __init__(self, index: int, start: int, table: Table, kind: int = 0) -> None:
        self.index = index
        self.start = start
        self.table = table
        self.kind = kind
        self.flags = self.offset = self.address = self.filesz = self.memsz = 0
        self.roles: list[load.Role] = []

    def having(self, name: str, value: Any) -> Header:
        """A copy with one field more."""
        twin = Header(self.index, self.start, self.table, self.kind)
        twin.flags, twin.offset, twin.address = self.flags, self.offset, self.address
        twin.filesz, twin.memsz, twin.roles = self.filesz, self.memsz, self.roles
        setattr(twin, name, value)
        return twin

    def path(self, name: str) -> str:
        """Path of a field of this header."""
        return f"phdr[{self.index}].{name}"

    def slots(self, plan: Plan) -> int:
        """How many headers come after this one."""
        return plan.phnum - self.index - 1


@opener("phdrs")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    return _entry(plan, Table(region.start, region.end, Behind(bytes(data))), 0, data)


def _entry(plan: Plan, table: Table, index: int, data: bytearray) -> Step:
    if index == plan.phnum:
        return proceed(plan._replace(segments_read=True), table.end, data)
    header = Header(index, table.start + index * PHDR_SIZE, table)
    slots = header.slots(plan)
    free = load.duties(plan).possible(min(slots, 2))  # of any duty
    kinds = [*_PLAIN] if free else []
    roles = load.roles(plan, slots)
    if roles:
        kinds.append(PT_LOAD)
    if free and plan.tls_size is None:
        kinds.append(PT_TLS)
    if free and slots and not plan.loads and plan.phdr_address is None and plan.table_owed:
        kinds.append(PT_PHDR)
    pieces: list[Piece] = [Finite(kinds)]
    if free:
        pieces.append(provided(PT_NOTE, lambda: notes_fit(plan, table)))
        pieces.append(provided(PT_GNU_PROPERTY, lambda: bool(_property_offsets(plan, table))))
    return IntStep(
        header.start,
        4,
        IntSet(4, *pieces),
        header.path("p_type"),
        "a known type, with room left for the segments still owed (one holds the entry and is executable, "
        "one holds the program headers)",
        lambda value, data: _flags(plan, _typed(header, value, roles)),
    )


def _typed(header: Header, kind: int, roles: list[load.Role]) -> Header:
    header = header.having("kind", kind)
    return header.having("roles", roles) if kind == PT_LOAD else header


def _flags(plan: Plan, header: Header) -> Step:
    choices, rule = _ALL_FLAGS, "a combination of R, W and X"
    if header.kind == PT_LOAD and all(role.needs_x for role in header.roles):
        choices, rule = _X_FLAGS, "executable: no later segment can hold the entry"
    return IntStep(
        header.start + 4,
        4,
        choices,
        header.path("p_flags"),
        rule,
        lambda value, data: _offset(plan, _flagged(header, value), data),
    )


def _flagged(header: Header, flags: int) -> Header:
    if header.kind == PT_LOAD and not flags & PF_X:
        header = header.having("roles", [role for role in header.roles if not role.needs_x])
    return header.having("flags", flags)


def _offset(plan: Plan, header: Header, data: bytearray) -> Step:
    limit = plan.limit
    if header.kind == PT_LOAD:
        choices = load.union(8, [role.offsets() for role in header.roles])
        rule = f"with room for what the segment owes before {limit}"
    elif header.kind == PT_PHDR:
        choices, rule = exactly(8, plan.phoff), "where the program header table is"
    elif header.kind == PT_GNU_PROPERTY:
        choices, rule = IntSet(8, *_property_offsets(plan, header.table)), "room for a GNU property note"
    elif header.kind == PT_NOTE:
        choices, rule = IntSet(8, *note_offsets(plan, header.table)), "a multiple of 4 where notes are or fit"
    else:
        choices, rule = interval(8, 0, limit), f"at most {limit}"
    return IntStep(
        header.start + 8,
        8,
        choices,
        header.path("p_offset"),
        rule,
        lambda value, data: _address(plan, header.having("offset", value)),
    )


def _address(plan: Plan, header: Header) -> Step:
    if header.kind == PT_LOAD:
        choices = load.union(8, [role.addresses(header.offset) for role in header.roles])
        rule = "congruent to p_offset modulo the page, above the segment before, within what is owed"
    elif header.kind == PT_PHDR:
        choices, rule = IntSet(8, *_table_addresses(plan, header)), "where a later PT_LOAD can hold the table"
    else:
        choices, rule = _ANY8, "any address"
    return IntStep(
        header.start + 16,
        8,
        choices,
        header.path("p_vaddr"),
        rule,
        lambda value, data: _physical(plan, header.having("address", value), data),
    )


def _table_addresses(plan: Plan, header: Header) -> list[Piece]:
    """Addresses of the program header table that the segments to come can hold beside the entry."""
    duties = load.duties(plan)
    size, limit = PHDR_SIZE * plan.phnum, plan.limit
    if duties.entry is None:
        return [Span(0, MAX64 - size)]
    entry, low, top = duties.entry, duties.low, duties.roof
    page = entry - entry % PAGE
    last = min(limit - size, PAGE - 1)  # of the offset within its page
    pieces: list[Piece] = [
        Window(max(low, -(-(entry + 1 - limit) // PAGE) * PAGE), entry, PAGE, 0, last),
        Span(entry + 1, page + limit - size),
    ]
    if header.slots(plan) >= 2:
        room = (page - plan.phoff - size) // PAGE * PAGE
        if room >= low:
            pieces.append(Window(low, min(page - size, room + limit - size), PAGE, 0, last))
        pieces.append(Window(page + PAGE, top - limit - size, PAGE, 0, last))
    return pieces


def _physical(plan: Plan, header: Header, data: bytearray) -> Step:
    return IntStep(
        header.start + 24,
        8,
        _ANY8,
        header.path("p_paddr"),
        "any address",
        lambda value, data: _filesz(plan, header, data),
    )


def _filesz(plan: Plan, header: Header, data: bytearray) -> Step:
    room = plan.limit - header.offset
    if header.kind == PT_LOAD:
        choices = load.union(8, [role.sizes(header.offset, header.address) for role in header.roles])
        rule = "inside the file, long enough for what is owed, clear of what comes above"
    elif header.kind == PT_PHDR:
        choices, rule = exactly(8, PHDR_SIZE * plan.phnum), "the size of the program header table"
    elif header.kind == PT_NOTE:
        choices = IntSet(8, *note_sizes(plan, header.table, header.offset))
        rule = "a whole number of notes that fit"
    elif header.kind == PT_GNU_PROPERTY:
        choices, rule = IntSet(8, *_property_sizes(plan, header)), "the size of one GNU property note"
    else:
        choices, rule = interval(8, 0, room), f"at most {room}: the bytes left to the length limit"
    return IntStep(
        header.start + 32,
        8,
        choices,
        header.path("p_filesz"),
        rule,
        lambda value, data: _memsz(plan, header.having("filesz", value), data),
    )


def _memsz(plan: Plan, header: Header, data: bytearray) -> Step:
    size = header.filesz
    if header.kind == PT_LOAD:
        choices = load.union(8, [role.memory(header.offset, header.address, size) for role in header.roles])
        rule = "at least p_filesz, below the next page that is owed, within the zero-filled memory allowed"
    elif header.kind in (PT_PHDR, PT_NOTE, PT_GNU_PROPERTY):
        choices, rule = exactly(8, size), "equal to p_filesz"
    else:
        choices, rule = interval(8, size, MAX64), "at least p_filesz"
    return IntStep(
        header.start + 40,
        8,
        choices,
        header.path("p_memsz"),
        rule,
        lambda value, data: _align(plan, header.having("memsz", value), data),
    )


def _align(plan: Plan, header: Header, data: bytearray) -> Step:
    rule = "0 or a power of two"
    if header.kind == PT_LOAD:
        shift = (header.address - header.offset) & MAX64
        choices = exactly(8, 0, *(p for p in _POWERS if shift % p == 0))
        rule = "0 or a power of two that divides p_vaddr - p_offset"
    elif header.kind == PT_NOTE:
        choices = exactly(8, *note_aligns(plan, header.table, header.offset, header.filesz))
        rule = "0, 1 or 4 for notes padded to 4 bytes, 8 for notes padded to 8"
    elif header.kind == PT_GNU_PROPERTY:
        choices, rule = exactly(8, 8), "8"
    else:
        choices = _POWERS_OF_TWO
    return IntStep(
        header.start + 48,
        8,
        choices,
        header.path("p_align"),
        rule,
        lambda value, data: _done(plan, header, value, data),
    )


def _done(plan: Plan, header: Header, align: int, data: bytearray) -> Step:
    kind = header.kind
    plan = plan.reach(header.offset + header.filesz)
    if kind == PT_LOAD:
        plan = load.loaded(plan, header.flags, header.offset, header.address, header.filesz, header.memsz)
    elif kind == PT_PHDR:
        plan = plan._replace(phdr_address=header.address)
    elif kind == PT_TLS:
        plan = plan._replace(tls_size=header.memsz)
    elif kind in (PT_NOTE, PT_GNU_PROPERTY) and header.offset >= header.table.end:
        detail = NoteDetail(8 if align == 8 else 4, kind == PT_GNU_PROPERTY)
        plan = promise_notes(plan, header.offset, header.filesz, detail, f"notes[{header.index}]")
    return _entry(plan, header.table, header.index + 1, data)


def _property_offsets(plan: Plan, table: Table) -> list[Piece]:
    least = PROPERTY_SIZES[0]
    pieces: list[Piece] = [
        Span(low, high - least, 4, 0)
        for low, high in plan.ledger.gaps(table.end)
        if high - least >= -(-low // 4) * 4
    ]
    same = [
        region.start
        for region in plan.ledger.regions
        if region.kind == "notes" and region.start >= table.end and _may_be_property(region)
    ]
    found = [*same, *table.behind.property_starts()]
    if found:
        pieces.append(Finite(found))
    return pieces


def _may_be_property(region: Region) -> bool:
    return region.detail.align == 8 and region.end - region.start in PROPERTY_SIZES


def _property_sizes(plan: Plan, header: Header) -> list[Piece]:
    offset, table = header.offset, header.table
    if offset < table.start:
        end = table.behind.property_end(offset)
        return [Finite((end - offset,))] if end is not None else []
    known = plan.ledger.at(offset, "notes")
    if known is not None:
        return [Finite((known.end - offset,))]
    room = plan.ledger.room(table.end, offset)
    return [Finite([size for size in PROPERTY_SIZES if size <= room])]
