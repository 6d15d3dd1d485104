"""The tolerant reader of PE files: whatever the headers can be taken to say, in bounded time.

Source: Microsoft, "PE Format". Nothing is refused: a table past the end of the file is cut, an address in no
section leads nowhere.
"""

from __future__ import annotations

from typing import NamedTuple

from bytegen.formats.annotate.meanings import PE_MACHINES
from bytegen.formats.annotate.reading import Reading, text_at
from bytegen.formats.annotate.structs import (
    COFF,
    DEBUG,
    DIRECTORY,
    DIRECTORY_NAMES,
    DOS,
    EXPORT,
    FUNCTION,
    IMPORT,
    OPTIONAL,
    SECTION,
    Layout,
    Table,
    layout,
    size_of,
    unpack,
)

_MACHINES = {0x8664: "x86-64", 0x14C: "i386", 0xAA64: "aarch64"}
# Windows takes no more than 96 sections.
_MOST_IMPORTS, _MOST_THUNKS, _MOST_SECTIONS = 4_096, 65_536, 96
_DIRECTORY_KINDS = {
    0: "exports", 1: "imports", 2: "resources", 3: "unwind", 4: "appended", 5: "relocations", 6: "debug",
    9: "table", 10: "table", 11: "imports", 12: "imports", 13: "imports",
}  # fmt: skip
_CERTIFICATE = 4  # the one directory whose place is an offset, not an address
_SYMBOL_BYTES = 18
_THUNKS = {4: layout("thunk:4"), 8: layout("thunk:8")}


class _Pe(NamedTuple):
    """The file being read; sections as (name, header)."""

    data: bytes
    reading: Reading
    base: int
    word: int
    sections: list[tuple[str, dict[str, int]]]

    def offset(self, rva: int) -> int:
        """The place in the file of an address; -1 where no section holds it."""
        for _, header in self.sections:
            inside = rva - header["VirtualAddress"]
            if 0 <= inside < header["SizeOfRawData"]:
                return header["PointerToRawData"] + inside
        return -1

    def table(self, start: int, count: int, fields: Layout, name: str, limit: int | None = None) -> None:
        """Promises the spans of a table of records."""
        stop = len(self.data) if limit is None else min(limit, len(self.data))
        if 0 <= start < stop and count > 0:
            whole = min(count, (stop - start) // size_of(fields) + 1)
            self.reading.tables.append(Table(start, whole, fields, name, stop))

    def structure(self, start: int, fields: Layout, name: str) -> None:
        """Promises the spans of one record."""
        if 0 <= start < len(self.data):
            self.reading.tables.append(Table(start, 1, fields, name, len(self.data), indexed=False))


def read_pe(data: bytes) -> Reading:
    """Areas, tables and names of a file that begins with "MZ"."""
    reading = Reading(len(data))
    nothing = _Pe(data, reading, 0, 4, [])
    reading.area(0, size_of(DOS), "DOS header", "header")
    nothing.structure(0, DOS, "dos")
    start = unpack(data, 0, DOS, "little")["e_lfanew"]
    if data[start : start + 4] != b"PE\0\0":
        reading.notes.append(f"no PE header at e_lfanew ({start:#x})")
        return reading
    _stub(nothing, start)
    reading.area(start, size_of(COFF), "COFF header", "header")
    nothing.structure(start, COFF, "coff")
    coff = unpack(data, start, COFF, "little")
    reading.machine = _MACHINES.get(coff["Machine"], "")
    if not reading.machine:
        reading.notes.append(
            f"code of machine {PE_MACHINES.get(coff['Machine'], hex(coff['Machine']))} is not read"
        )
    at = start + size_of(COFF)
    fields = OPTIONAL.get(int.from_bytes(data[at : at + 2], "little"))
    sections_at = at + coff["SizeOfOptionalHeader"]
    optional: dict[str, int] = {}
    count = 0
    if fields is not None:
        optional = unpack(data, at, fields, "little")
        room = max(0, sections_at - at - size_of(fields)) // size_of(DIRECTORY)
        count = min(optional["NumberOfRvaAndSizes"], len(DIRECTORY_NAMES), room)
        reading.area(at, size_of(fields), "optional header", "header")
        nothing.structure(at, fields, "opt")
        reading.area(at + size_of(fields), count * size_of(DIRECTORY), "data directories", "header")
        nothing.table(at + size_of(fields), count, DIRECTORY, "dir")
        start = optional["AddressOfEntryPoint"]
        reading.entry = optional["ImageBase"] + start if start else 0  # a DLL may have none
    sections = _sections(nothing, sections_at, coff["NumberOfSections"])
    word = 8 if optional.get("Magic") == 0x20B else 4
    pe = _Pe(data, reading, optional.get("ImageBase", 0), word, sections)
    _directories(pe, at + size_of(fields) if fields else at, count)
    _section_areas(pe)
    if coff["PointerToSymbolTable"]:
        reading.area(
            coff["PointerToSymbolTable"], coff["NumberOfSymbols"] * _SYMBOL_BYTES, "COFF symbols", "symbols"
        )
    return reading


def _stub(pe: _Pe, start: int) -> None:
    """What lies between the DOS header and the PE header: the stub program, and Microsoft's linker record."""
    first = size_of(DOS)
    rich = pe.data.find(b"Rich", first, min(start, 4096))
    if rich < 0:
        pe.reading.area(first, start - first, "DOS stub", "data")
        return
    key = int.from_bytes(pe.data[rich + 4 : rich + 8], "little")
    begin = pe.data.find((key ^ 0x536E6144).to_bytes(4, "little"), first, rich)
    begin = begin if begin >= 0 else rich
    pe.reading.area(first, begin - first, "DOS stub", "data")
    pe.reading.area(begin, rich + 8 - begin, "rich header", "table", "the linker's record of tools, masked")


def _sections(pe: _Pe, start: int, count: int) -> list[tuple[str, dict[str, int]]]:
    size = size_of(SECTION)
    pe.reading.area(start, count * size, "section table", "header")
    pe.table(start, count, SECTION, "section")
    whole = max(0, min(count, _MOST_SECTIONS, (len(pe.data) - start) // size))
    found = []
    for i in range(whole):
        at = start + i * size
        name = pe.data[at : at + 8].rstrip(b"\0").decode("utf-8", "replace")
        pe.reading.mark(at, name)
        found.append((name, unpack(pe.data, at, SECTION, "little")))
    return found


def _section_areas(pe: _Pe) -> None:
    for i, (name, header) in enumerate(pe.sections):
        flags = header["Characteristics"]
        executable = bool(flags & 0x20000020)
        kind = "code" if executable else "debug" if name.startswith((".debug", "/")) else "data"
        kind = {".rsrc": "resources", ".pdata": "unwind", ".xdata": "unwind"}.get(name, kind)
        size, virtual = header["SizeOfRawData"], header["VirtualSize"]
        address = pe.base + header["VirtualAddress"]
        used = min(size, virtual) if virtual else size
        note = f"section {i}"
        pe.reading.area(header["PointerToRawData"], used, name or f"section {i}", kind, note, address)
        pe.reading.area(header["PointerToRawData"], size, f"padding of {name or i}", "padding", note)


def _directories(pe: _Pe, start: int, count: int) -> None:
    for i in range(count):
        entry = unpack(pe.data, start + i * size_of(DIRECTORY), DIRECTORY, "little")
        pe.reading.mark(start + i * size_of(DIRECTORY), DIRECTORY_NAMES[i])
        rva, size = entry["VirtualAddress"], entry["Size"]
        if not rva or not size or i not in _DIRECTORY_KINDS:
            continue
        place = rva if i == _CERTIFICATE else pe.offset(rva)
        if place < 0:
            pe.reading.notes.append(f"the {DIRECTORY_NAMES[i]} directory's address {rva:#x} is in no section")
            continue
        address = None if i == _CERTIFICATE else pe.base + rva
        if i == 1:
            _imports(pe, place)
        elif i == 0:
            _exports(pe, place)
        elif i == 3 and pe.word == 8:
            pe.table(place, size // size_of(FUNCTION), FUNCTION, "exception.function", place + size)
        elif i == 6:
            pe.table(place, size // size_of(DEBUG), DEBUG, "debug", place + size)
        elif i == 12:
            pe.table(place, size // pe.word, _THUNKS[pe.word], "iat", place + size)
        name = f"{DIRECTORY_NAMES[i]} directory" if i != _CERTIFICATE else "certificates"
        pe.reading.area(place, size, name, _DIRECTORY_KINDS[i], f"directory {i}", address)


def _imports(pe: _Pe, place: int) -> None:
    """The import descriptors, by the library each names, and their look-up tables."""
    size = size_of(IMPORT)
    thunks = 0
    count = 0
    for count in range(_MOST_IMPORTS):
        at = place + count * size
        entry = unpack(pe.data, at, IMPORT, "little")
        if at + size > len(pe.data) or not (entry["Name"] or entry["FirstThunk"]):
            break
        library = text_at(pe.data, pe.offset(entry["Name"]))
        pe.reading.mark(at, library)
        number = _name_thunks(pe, pe.offset(entry["FirstThunk"]), library, _MOST_THUNKS - thunks)
        lookup = pe.offset(entry["OriginalFirstThunk"])
        if lookup >= 0:
            number = _name_thunks(pe, lookup, library, _MOST_THUNKS - thunks)
            pe.reading.area(lookup, (number + 1) * pe.word, f"imports of {library}", "imports")
            pe.table(lookup, number + 1, _THUNKS[pe.word], f"lookup[{count}]")
        thunks += number
    pe.reading.area(place, (count + 1) * size, "import descriptors", "imports")
    pe.table(place, count + 1, IMPORT, "import")


def _name_thunks(pe: _Pe, place: int, library: str, most: int) -> int:
    """Names the entries of a look-up table by function or ordinal; returns how many."""
    top = 1 << (8 * pe.word - 1)
    if place < 0:
        return 0
    most = max(0, min(most, _MOST_IMPORTS))
    for i in range(most):
        at = place + i * pe.word
        value = int.from_bytes(pe.data[at : at + pe.word], "little")
        if not value:
            return i
        if value & top:
            pe.reading.mark(at, f"{library} #{value & 0xFFFF}")
        else:
            where = pe.offset(value & 0x7FFFFFFF)
            pe.reading.mark(at, text_at(pe.data, where + 2) if where >= 0 else "")
    return most


def _exports(pe: _Pe, place: int) -> None:
    entry = unpack(pe.data, place, EXPORT, "little")
    pe.structure(place, EXPORT, "export")
    pe.reading.mark(place, text_at(pe.data, pe.offset(entry["Name"])))
    word, half = layout("rva:4"), layout("ordinal:2")
    for field, count, fields, name in (
        ("AddressOfFunctions", "NumberOfFunctions", word, "export.function"),
        ("AddressOfNames", "NumberOfNames", word, "export.name"),
        ("AddressOfNameOrdinals", "NumberOfNames", half, "export.ordinal"),
    ):
        pe.table(pe.offset(entry[field]), entry[count], fields, name)
    names = pe.offset(entry["AddressOfNames"])
    if names < 0:
        return
    for i in range(min(entry["NumberOfNames"], _MOST_THUNKS)):
        at = names + 4 * i
        if at + 4 > len(pe.data):
            return
        pe.reading.mark(at, text_at(pe.data, pe.offset(int.from_bytes(pe.data[at : at + 4], "little"))))
