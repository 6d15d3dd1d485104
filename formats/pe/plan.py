"""What a partly written PE file has settled so far, and where the next step begins."""

from __future__ import annotations

from typing import Any, NamedTuple

from bytegen.formats.code.region import Code
from bytegen.formats.core.ledger import Ledger
from bytegen.formats.core.promised import Grammar
from bytegen.formats.core.quick import replacing
from bytegen.formats.libraries import Library
from bytegen.formats.pe.constants import DIRECTORIES, MEM_EXECUTE
from bytegen.formats.pe.layout import Range
from bytegen.formats.pe.target import Target


class Section(NamedTuple):
    """A section header already read; ``size`` is VirtualSize, ``offset`` and ``raw_size`` are in the file."""

    name: bytes
    address: int
    size: int
    offset: int
    raw_size: int
    flags: int

    @property
    def backed(self) -> int:
        """How many bytes of the section, from its start on, come from the file."""
        return min(self.size, self.raw_size)


class Need(NamedTuple):
    """An address range that one section must hold, and what the section's Characteristics must have."""

    start: int
    end: int
    flags: int


@replacing
class Plan(NamedTuple):
    """The settled part of a file. Immutable; every step carries the one that holds at its start."""

    target: Target  # the machine
    limit: int  # the file is at most this long
    level: str  # "parse", "load" or "code"
    strict: bool  # levels "load" and "code": the loaders' rules too
    resolved: bool  # strict, and imports are names that some DLL known of exports
    ledger: Ledger
    min_end: int  # the file is at least this long
    lfanew: int = 0
    rich: bool = False  # whether a Rich header was read
    section_count: int = 0
    symbols: int = 0  # PointerToSymbolTable
    symbol_count: int = 0
    characteristics: int = 0
    entry: int = 0
    base: int = 0  # ImageBase
    page: int = 0  # SectionAlignment
    block: int = 0  # FileAlignment
    image_size: int = 0
    headers_size: int = 0
    subsystem: int = 0
    dll_flags: int = 0  # DllCharacteristics
    stack: int = 0  # the last reserve size read
    directories: tuple[Range, ...] = ((0, 0),) * DIRECTORIES  # (address, size)
    heads: tuple[Range, ...] = ()  # addresses that directories reserve at once
    needs: tuple[Need, ...] = ()  # what sections owe, sorted
    sections: tuple[Section, ...] = ()
    executable: tuple[tuple[int, int, int], ...] = ()  # (file start, file end, RVA) of code
    code: Code | None = None  # level "code": set once the section table is read
    labels: tuple[tuple[int, int, str], ...] = ()
    string_need: int = 0  # the COFF string table is at least this long
    contents: Any = None  # what the directories' grammars keep for each other
    libraries: tuple[Library, ...] = ()  # DLLs that come along

    def reach(self, end: int) -> Plan:
        """The plan of a file that is at least ``end`` bytes long."""
        return self._replace(min_end=end) if end > self.min_end else self

    @property
    def headers_end(self) -> int:
        """Offset of the end of the section table."""
        return self.lfanew + 24 + self.target.optional_size + 40 * self.section_count

    def raw_limit(self) -> int:
        """The offset by which all raw data ends: what the ledger already promised comes after it."""
        first = self.ledger.after(self.headers_end)
        return first.start if first is not None else self.limit

    def section_at(self, address: int) -> Section | None:
        """The section whose memory holds an address."""
        for section in self.sections:
            if section.address <= address < section.address + max(section.size, section.raw_size):
                return section
        return None

    def offset_of(self, address: int, size: int = 1) -> int | None:
        """Offset in the file of ``size`` bytes at an address, where they are file-backed and in one section."""
        for section in self.sections:
            if section.address <= address and address + size <= section.address + section.backed:
                return address - section.address + section.offset
        return None

    def address_of(self, offset: int) -> int | None:
        """The address of a byte of the file, where a section maps it."""
        for section in self.sections:
            if section.offset <= offset < section.offset + section.backed:
                return offset - section.offset + section.address
        return None

    def owing(self, start: int, end: int, flags: int) -> Plan:
        """The plan in which a section must also hold the range."""
        return self._replace(needs=tuple(sorted((*self.needs, Need(start, end, flags)))))

    def ranges(self) -> tuple[Range, ...]:
        """What sections owe, as ranges."""
        return tuple((need.start, need.end) for need in self.needs)

    def placed(self, section: Section) -> Plan:
        """The plan after a section header."""
        plan = self._replace(sections=(*self.sections, section))
        if not section.raw_size:
            return plan
        start, end = section.offset, section.offset + section.raw_size
        name = section.name.rstrip(b"\0").decode("ascii", "backslashreplace")
        plan = plan._replace(labels=(*plan.labels, (start, end, f"data[{len(self.sections)}] {name}")))
        if section.flags & MEM_EXECUTE:
            code = (start, start + section.backed, section.address)
            plan = plan._replace(executable=(*plan.executable, code))
        return plan.reach(end)


_GRAMMAR: Grammar[Plan] = Grammar("overlay")
opener, proceed = _GRAMMAR.opener, _GRAMMAR.proceed
