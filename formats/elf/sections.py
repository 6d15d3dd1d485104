"""The section header table."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from bytegen.formats.core.intset import Bits, Finite, IntSet, Piece, Span, anything, exactly, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.elf import promises
from bytegen.formats.elf.constants import (
    ARRAYS,
    RELA_SIZE,
    RELOCATABLE,
    SECTION_TYPES,
    SHDR_SIZE,
    SHF_INFO_LINK,
    SHF_KNOWN,
    SHT_NOBITS,
    SHT_NOTE,
    SHT_RELA,
    SHT_STRTAB,
    SHT_SYMTAB,
    SYM_SIZE,
)
from bytegen.formats.elf.plan import Owed, Plan, Section, opener, proceed
from bytegen.formats.elf.written import Behind, Table, provided

_POWERS = tuple(1 << i for i in range(64))
_ANY8 = anything(8)
_FLAGS = IntSet(8, Bits(SHF_KNOWN))
_FLAGS_UNLINKED = IntSet(8, Bits(SHF_KNOWN & ~SHF_INFO_LINK))
_POWERS_OF_TWO = exactly(8, 0, *_POWERS)
_ENTRY_SIZES = {SHT_SYMTAB: exactly(8, SYM_SIZE), SHT_RELA: exactly(8, RELA_SIZE)}
_ALL_TYPES = exactly(4, *(SECTION_TYPES - {SHT_NOTE}))
_ZERO = {4: exactly(4, 0), 8: exactly(8, 0)}
_NULL_FIELDS = (
    ("sh_name", 4),
    ("sh_type", 4),
    ("sh_flags", 8),
    ("sh_addr", 8),
    ("sh_offset", 8),
    ("sh_size", 8),
    ("sh_link", 4),
    ("sh_info", 4),
    ("sh_addralign", 8),
    ("sh_entsize", 8),
)


class Header(NamedTuple):
    """The fields of one section header read so far."""

    table: Table
    number: int
    kind: int = 0
    flags: int = 0
    offset: int = 0
    size: int = 0
    link: int = 0
    info: int = 0

    @property
    def start(self) -> int:
        """Offset of the header in the file."""
        return self.table.start + self.number * SHDR_SIZE

    def path(self, name: str) -> str:
        """Path of a field of this header."""
        return f"shdr[{self.number}].{name}"


@opener("shdrs")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    if plan.shstrndx:
        owed = ((plan.shstrndx, Owed(frozenset({SHT_STRTAB}), 1)),)
        plan = plan._replace(owed=owed, name_need=1)
    table = Table(region.start, region.end, Behind(bytes(data)))
    return _null(plan, Header(table, 0), 0, region.start, data)


def _null(plan: Plan, header: Header, i: int, start: int, data: bytearray) -> Step:
    """Section header 0, which is all zeros."""
    if i == len(_NULL_FIELDS):
        return _entry(plan._replace(sections=(Section(0, 0, 0, 0),)), header.table, 1, data)
    name, size = _NULL_FIELDS[i]
    return IntStep(
        start,
        size,
        _ZERO[size],
        header.path(name),
        "the first section header is all zeros",
        lambda value, data: _null(plan, header, i + 1, start + size, data),
    )


def _entry(plan: Plan, table: Table, index: int, data: bytearray) -> Step:
    if index == plan.shnum:
        return proceed(plan, table.end, data)
    header = Header(table, index)
    if plan.shstrndx < index:
        most = plan.sections[plan.shstrndx].size - 1
    else:
        most = promises.longest_table(plan, table) - 1
    return IntStep(
        header.start,
        4,
        interval(4, 0, most),
        header.path("sh_name"),
        f"at most {most}: inside the section name table",
        lambda value, data: _kind(_named(plan, value), header),
    )


def _named(plan: Plan, name: int) -> Plan:
    """The plan after a name: the name table, if still to come, is longer than its offset."""
    if len(plan.sections) > plan.shstrndx or name < plan.name_need:
        return plan
    return plan._replace(name_need=name + 1).owe(plan.shstrndx, frozenset({SHT_STRTAB}), name + 1)


def _kind(plan: Plan, header: Header) -> Step:
    owed = plan.owed_at(header.number)
    types = owed.types if owed is not None else SECTION_TYPES
    rule = "the type that an earlier header owes this section" if owed is not None else "a known section type"
    choices = exactly(4, *(types - {SHT_NOTE})) if owed is not None else _ALL_TYPES
    if SHT_NOTE in types:
        notes = provided(SHT_NOTE, lambda: promises.notes_fit(plan, header.table, header.number))
        choices = IntSet(4, *choices.pieces, notes)
    return IntStep(
        header.start + 4,
        4,
        choices,
        header.path("sh_type"),
        rule,
        lambda value, data: _flags(plan, header._replace(kind=value)),
    )


def _flags(plan: Plan, header: Header) -> Step:
    return IntStep(
        header.start + 8,
        8,
        _FLAGS_UNLINKED if header.kind == SHT_SYMTAB else _FLAGS,
        header.path("sh_flags"),
        "known flags",
        lambda value, data: _address(plan, header._replace(flags=value)),
    )


def _address(plan: Plan, header: Header) -> Step:
    return IntStep(
        header.start + 16,
        8,
        _ANY8,
        header.path("sh_addr"),
        "any address",
        lambda value, data: _offset(plan, header, data),
    )


def _need(plan: Plan, header: Header) -> int:
    owed = plan.owed_at(header.number)
    return owed.need if owed is not None else 0


def _offset(plan: Plan, header: Header, data: bytearray) -> Step:
    need = _need(plan, header)
    if need:
        choices = IntSet(8, *promises.string_offsets(plan, header.table, need, header.number))
        rule = f"where a string table of at least {need} bytes is or fits"
    elif header.kind == SHT_NOTE:
        choices = IntSet(8, *promises.note_offsets(plan, header.table, header.number))
        rule = "a multiple of 4 where notes are or fit"
    else:
        choices, rule = interval(8, 0, plan.limit), f"at most {plan.limit}"
    return IntStep(
        header.start + 24,
        8,
        choices,
        header.path("sh_offset"),
        rule,
        lambda value, data: _size(plan, header._replace(offset=value), data),
    )


def _size(plan: Plan, header: Header, data: bytearray) -> Step:
    kind, offset, table = header.kind, header.offset, header.table
    if kind == SHT_NOBITS:
        pieces: list[Piece] = list(_ANY8.pieces)
        rule = "any size"
    elif kind == SHT_STRTAB:
        pieces = promises.string_sizes(plan, table, offset, _need(plan, header), header.number)
        rule = "a string table ends with a zero, holds the names that refer to it, and fits"
    elif kind == SHT_SYMTAB:
        pieces = promises.symbol_sizes(plan, table, offset, header.number)
        rule = "whole symbols, good ones where they are already written, and fits"
    elif kind == SHT_RELA:
        pieces = promises.relocation_sizes(plan, table, offset, header.number)
        rule = "whole relocations, good ones where they are already written, and fits"
    elif kind == SHT_NOTE:
        pieces = promises.note_sizes(plan, table, offset, header.number)
        rule = "a whole number of notes that fit"
    else:
        pieces = [Span(0, plan.limit - offset)]
        rule = f"inside the {plan.limit} bytes of the file"
    return IntStep(
        header.start + 32,
        8,
        IntSet(8, *pieces),
        header.path("sh_size"),
        rule,
        lambda value, data: _link(plan, header._replace(size=value), data),
    )


def _link(plan: Plan, header: Header, data: bytearray) -> Step:
    if header.kind == SHT_SYMTAB:
        choices = exactly(
            4, *promises.symbol_links(plan, header.table, header.offset, header.size, header.number)
        )
        rule = "a string table that holds the symbols' names"
    elif header.kind == SHT_RELA:
        choices = exactly(
            4, *promises.relocation_links(plan, header.table, header.offset, header.size, header.number)
        )
        rule = "0, or a symbol table that has the relocations' symbols"
    elif header.kind in ARRAYS:
        choices, rule = _ZERO[4], "0"
    else:
        choices, rule = interval(4, 0, plan.shnum - 1), "a section"
    return IntStep(
        header.start + 40,
        4,
        choices,
        header.path("sh_link"),
        rule,
        lambda value, data: _info(_linked(plan, header, value, data), header._replace(link=value), data),
    )


def _linked(plan: Plan, header: Header, link: int, data: bytearray) -> Plan:
    """The plan that owes a section linked before it is read."""
    if link <= header.number or header.kind not in (SHT_SYMTAB, SHT_RELA):
        return plan
    if header.kind == SHT_RELA:
        return plan.owe(link, frozenset({SHT_SYMTAB}))
    need = promises.names_need(plan, header.table, header.offset, header.size)
    return plan.owe(link, frozenset({SHT_STRTAB}), need)


def _info(plan: Plan, header: Header, data: bytearray) -> Step:
    if header.kind == SHT_SYMTAB:
        pieces = promises.symbol_infos(plan, header.table, header.offset, header.size)
        choices, rule = IntSet(4, *pieces), "the number of local symbols"
    elif header.kind == SHT_RELA:
        choices, rule = exactly(4, 0, *_relocatable(plan, header)), "0, or a section that can be relocated"
    elif header.kind in ARRAYS or not header.flags & SHF_INFO_LINK:
        choices, rule = _ZERO[4], "0"
    else:
        choices, rule = interval(4, 1, plan.shnum - 1), "a section, since SHF_INFO_LINK is set"
    return IntStep(
        header.start + 44,
        4,
        choices,
        header.path("sh_info"),
        rule,
        lambda value, data: _align(_informed(plan, header, value), header._replace(info=value), data),
    )


def _relocatable(plan: Plan, header: Header) -> list[int]:
    """Sections that relocations may apply to: read ones of a right type, and later ones that may become one."""
    found = [i for i, section in enumerate(plan.sections) if i and section.kind in RELOCATABLE]
    for index in range(header.number + 1, plan.shnum):
        owed = plan.owed_at(index)
        if owed is None or owed.types & RELOCATABLE:
            found.append(index)
    return found


def _informed(plan: Plan, header: Header, info: int) -> Plan:
    if header.kind == SHT_RELA and info > header.number:
        return plan.owe(info, RELOCATABLE)
    return plan


def _align(plan: Plan, header: Header, data: bytearray) -> Step:
    choices, rule = _POWERS_OF_TWO, "0 or a power of two"
    if header.kind == SHT_NOTE:
        aligns = promises.note_aligns(plan, header.table, header.offset, header.size)
        choices, rule = exactly(8, *aligns), "0, 1 or 4 for notes padded to 4 bytes, 8 for notes padded to 8"
    return IntStep(
        header.start + 48,
        8,
        choices,
        header.path("sh_addralign"),
        rule,
        lambda value, data: _entsize(plan, header, value),
    )


@lru_cache(maxsize=4096)
def _divisors(size: int) -> tuple[int, ...]:
    small = [d for d in range(1, int(size**0.5) + 1) if size % d == 0]
    return tuple(sorted({*small, *(size // d for d in small)}))


def _entsize(plan: Plan, header: Header, align: int) -> Step:
    if header.kind in (SHT_SYMTAB, SHT_RELA):
        choices, rule = _ENTRY_SIZES[header.kind], "24"
    elif header.kind == SHT_NOBITS or not header.size:
        choices, rule = _ANY8, "any"
    else:
        choices = IntSet(8, Finite((0, *_divisors(header.size))))
        rule = f"0 or a divisor of the size {header.size}"
    return IntStep(
        header.start + 56,
        8,
        choices,
        header.path("sh_entsize"),
        rule,
        lambda value, data: _done(plan, header, align, data),
    )


def _done(plan: Plan, header: Header, align: int, data: bytearray) -> Step:
    kind, offset, size = header.kind, header.offset, header.size
    if kind != SHT_NOBITS:
        plan = plan.reach(offset + size)
    count = size // SYM_SIZE if kind == SHT_SYMTAB else 0
    plan = plan._replace(
        sections=(*plan.sections, Section(kind, offset, size, count)),
        owed=tuple(item for item in plan.owed if item[0] != header.number),
    )
    if size and offset >= header.table.end:
        detail = promises.Linked(header.link, header.info)
        plan = promises.promise(plan, kind, offset, size, align, f"section[{header.number}]", detail)
    return _entry(plan, header.table, header.number + 1, data)
