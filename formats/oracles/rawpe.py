"""The headers and directories of a PE file as plain integers.

Read with `struct` straight from the bytes (Microsoft's "PE Format"), so that what LIEF and pefile return can be
compared with what the file says. Nothing is checked beyond what must be read; every walk is bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

COFF_NAMES = (
    "Machine", "NumberOfSections", "TimeDateStamp", "PointerToSymbolTable", "NumberOfSymbols",
    "SizeOfOptionalHeader", "Characteristics",
)  # fmt: skip
_COFF = struct.Struct("<HHIIIHH")
_OPTIONAL_HEAD = (
    "Magic", "MajorLinkerVersion", "MinorLinkerVersion", "SizeOfCode", "SizeOfInitializedData",
    "SizeOfUninitializedData", "AddressOfEntryPoint", "BaseOfCode",
)  # fmt: skip
_OPTIONAL_TAIL = (
    "ImageBase", "SectionAlignment", "FileAlignment", "MajorOperatingSystemVersion",
    "MinorOperatingSystemVersion", "MajorImageVersion", "MinorImageVersion", "MajorSubsystemVersion",
    "MinorSubsystemVersion", "Win32VersionValue", "SizeOfImage", "SizeOfHeaders", "CheckSum", "Subsystem",
    "DllCharacteristics", "SizeOfStackReserve", "SizeOfStackCommit", "SizeOfHeapReserve", "SizeOfHeapCommit",
    "LoaderFlags", "NumberOfRvaAndSizes",
)  # fmt: skip
OPTIONAL_NAMES = {
    32: (*_OPTIONAL_HEAD, "BaseOfData", *_OPTIONAL_TAIL),
    64: (*_OPTIONAL_HEAD, *_OPTIONAL_TAIL),
}
_OPTIONAL = {
    32: struct.Struct("<HBBIIIIIIIII6HIIIIHHIIIIII"),
    64: struct.Struct("<HBBIIIIIQII6HIIIIHHQQQQII"),
}
SECTION_NAMES = (
    "VirtualSize", "VirtualAddress", "SizeOfRawData", "PointerToRawData", "PointerToRelocations",
    "PointerToLinenumbers", "NumberOfRelocations", "NumberOfLinenumbers", "Characteristics",
)  # fmt: skip
_SECTION = struct.Struct("<8s6IHHI")
EXPORT_NAMES = (
    "Characteristics", "TimeDateStamp", "MajorVersion", "MinorVersion", "Name", "Base", "NumberOfFunctions",
    "NumberOfNames", "AddressOfFunctions", "AddressOfNames", "AddressOfNameOrdinals",
)  # fmt: skip
_EXPORT = struct.Struct("<IIHHIIIIIII")
DEBUG_NAMES = (
    "Characteristics", "TimeDateStamp", "MajorVersion", "MinorVersion", "Type", "SizeOfData",
    "AddressOfRawData", "PointerToRawData",
)  # fmt: skip
_DEBUG = struct.Struct("<IIHHIIII")
TLS_NAMES = ("StartAddress", "EndAddress", "AddressOfIndex", "AddressOfCallBacks", "SizeOfZeroFill",
             "Characteristics")  # fmt: skip
_TLS = {32: struct.Struct("<6I"), 64: struct.Struct("<4Q2I")}

(EXPORT, IMPORT, RESOURCE, EXCEPTION, SECURITY, BASERELOC, DEBUG, ARCHITECTURE, GLOBALPTR, TLS, LOAD_CONFIG,
 BOUND_IMPORT, IAT, DELAY_IMPORT, CLR, RESERVED) = range(16)  # fmt: skip
MOST = 1 << 20  # entries read of any table


class Thunk(NamedTuple):
    """One imported function: its ordinal, or hint and name."""

    ordinal: int | None
    hint: int
    name: bytes


class Import(NamedTuple):
    """One import descriptor and its thunks, read from the lookup table or else from the address table."""

    fields: tuple[int, ...]  # lookup table, time stamp, forwarder chain, name, address table
    name: bytes
    thunks: tuple[Thunk, ...]


class Leaf(NamedTuple):
    """A resource: the three steps of its path (an id or a name) and its data's RVA, size, code page."""

    path: tuple[int | str, ...]
    rva: int
    size: int
    code_page: int


@dataclass(frozen=True)
class RawPe:
    """What the bytes say: `bits` is 32 or 64; headers map a field's name to its value."""

    data: bytes = field(repr=False)
    bits: int
    lfanew: int
    coff: dict[str, int]
    optional: dict[str, int]
    directories: list[tuple[int, int]]
    sections: list[dict[str, int]]
    names: list[bytes]

    def offset(self, rva: int) -> int | None:
        """The file offset of an RVA; None where no byte of the file is mapped there."""
        for section in self.sections:
            start = section["VirtualAddress"]
            if start <= rva < start + section["SizeOfRawData"]:
                return section["PointerToRawData"] + rva - start
        return rva if rva < self.optional["SizeOfHeaders"] else None

    def at(self, rva: int, size: int) -> bytes:
        """``size`` bytes of the mapped image; fewer at the end of a section's bytes in the file."""
        for section in self.sections:
            start, raw = section["VirtualAddress"], section["SizeOfRawData"]
            if start <= rva < start + max(raw, section["VirtualSize"]):
                stored = max(0, min(size, start + raw - rva))
                begin = section["PointerToRawData"] + rva - start
                rest = max(0, min(size, start + section["VirtualSize"] - rva) - stored)
                return self.data[begin : begin + stored] + bytes(rest)
        if rva < self.optional["SizeOfHeaders"]:
            return self.data[rva : min(rva + size, self.optional["SizeOfHeaders"])]
        return b""

    def string(self, rva: int) -> bytes:
        """The bytes from an RVA to the next zero (at most 4096)."""
        return self.at(rva, 4097).split(b"\0", 1)[0]

    def directory(self, index: int) -> tuple[int, int]:
        """RVA and size of a data directory; zeros where the header has fewer."""
        return self.directories[index] if index < len(self.directories) else (0, 0)

    def integers(self, form: struct.Struct, rva: int) -> tuple[int, ...] | None:
        """The integers of a record at an RVA; None where it is not all there."""
        raw = self.at(rva, form.size)
        return form.unpack(raw) if len(raw) == form.size else None


def read_raw_pe(data: bytes) -> RawPe:
    """Reads the headers of a PE file.

    Raises ValueError when the file is no PE file or ends inside its headers.
    """
    if data[:2] != b"MZ" or len(data) < 64:
        raise ValueError("no MZ header")
    (lfanew,) = struct.unpack_from("<I", data, 60)
    if data[lfanew : lfanew + 4] != b"PE\0\0":
        raise ValueError(f"no PE signature at offset {lfanew:#x}")
    try:
        coff = dict(zip(COFF_NAMES, _COFF.unpack_from(data, lfanew + 4), strict=True))
        start = lfanew + 24
        (magic,) = struct.unpack_from("<H", data, start)
        bits = 64 if magic == 0x20B else 32
        form = _OPTIONAL[bits]
        optional = dict(zip(OPTIONAL_NAMES[bits], form.unpack_from(data, start), strict=True))
        count = min(optional["NumberOfRvaAndSizes"], 16)
        directories = [struct.unpack_from("<II", data, start + form.size + 8 * i) for i in range(count)]
        table = start + coff["SizeOfOptionalHeader"]
        rows = [_SECTION.unpack_from(data, table + 40 * i) for i in range(coff["NumberOfSections"])]
    except struct.error:
        raise ValueError("the file ends inside its headers") from None
    sections = [dict(zip(SECTION_NAMES, row[1:], strict=True)) for row in rows]
    return RawPe(
        data, bits, lfanew, coff, optional, [(a, b) for a, b in directories], sections, [r[0] for r in rows]
    )


def read_thunks(raw: RawPe, rva: int) -> tuple[Thunk, ...]:
    """The functions that a lookup or address table names, up to its null entry."""
    size = raw.bits // 8
    flag = 1 << (raw.bits - 1)
    thunks: list[Thunk] = []
    while len(thunks) < MOST:
        entry = raw.at(rva + len(thunks) * size, size)
        value = int.from_bytes(entry, "little")
        if len(entry) < size or not value:
            break
        if value & flag:
            thunks.append(Thunk(value & 0xFFFF, 0, b""))
        else:
            place = value & 0x7FFFFFFF
            thunks.append(Thunk(None, int.from_bytes(raw.at(place, 2), "little"), raw.string(place + 2)))
    return tuple(thunks)


def read_imports(raw: RawPe) -> list[Import]:
    """The import descriptors up to the null one."""
    rva, size = raw.directory(IMPORT)
    form = struct.Struct("<5I")
    found: list[Import] = []
    while rva and size and len(found) < 65536:
        fields = raw.integers(form, rva + form.size * len(found))
        if fields is None or not any(fields):
            break
        lookup, stamp, chain, name, address = fields
        thunks = read_thunks(raw, lookup or address)
        found.append(Import((lookup, stamp, chain, name, address), raw.string(name), thunks))
    return found


def read_delay_imports(raw: RawPe) -> list[Import]:
    """The descriptors of delayed imports up to the null one; ``fields`` are all eight of each."""
    rva, size = raw.directory(DELAY_IMPORT)
    form = struct.Struct("<8I")
    found: list[Import] = []
    while rva and size and len(found) < 65536:
        fields = raw.integers(form, rva + form.size * len(found))
        if fields is None or not any(fields):
            break
        found.append(Import(fields, raw.string(fields[1]), read_thunks(raw, fields[4])))
    return found


class Bound(NamedTuple):
    """A descriptor of bound imports: time stamp, name, and the stamps and names of the DLLs it forwards to."""

    stamp: int
    name: bytes
    forwarders: tuple[tuple[int, bytes], ...]


def read_bound_imports(raw: RawPe) -> list[Bound]:
    """The descriptors of bound imports up to the null one."""
    rva, size = raw.directory(BOUND_IMPORT)
    form = struct.Struct("<IHH")
    found: list[Bound] = []
    place = rva
    while rva and size and len(found) < 65536:
        fields = raw.integers(form, place)
        if fields is None or not any(fields):
            break
        stamp, name, count = fields
        rows = [raw.integers(form, place + 8 * (i + 1)) for i in range(count)]
        refs = tuple((row[0], raw.string(rva + row[1])) for row in rows if row is not None)
        found.append(Bound(stamp, raw.string(rva + name), refs))
        place += 8 * (1 + count)
    return found


def read_exports(raw: RawPe) -> tuple[dict[str, int], list[tuple[int, int]], dict[int, list[bytes]]] | None:
    """The export directory, its (ordinal, RVA) pairs without empty ones, and the names of each ordinal."""
    rva, size = raw.directory(EXPORT)
    row = raw.integers(_EXPORT, rva) if rva and size else None
    if row is None:
        return None
    fields = dict(zip(EXPORT_NAMES, row, strict=True))
    count, named = min(fields["NumberOfFunctions"], MOST), min(fields["NumberOfNames"], MOST)
    functions = _words(raw, fields["AddressOfFunctions"], count, 4)
    names: dict[int, list[bytes]] = {}
    ordinals = _words(raw, fields["AddressOfNameOrdinals"], named, 2)
    places = _words(raw, fields["AddressOfNames"], named, 4)
    for ordinal, place in zip(ordinals, places, strict=False):
        names.setdefault(ordinal + fields["Base"], []).append(raw.string(place))
    return fields, [(i + fields["Base"], f) for i, f in enumerate(functions) if f], names


def _words(raw: RawPe, rva: int, count: int, size: int) -> list[int]:
    data = raw.at(rva, count * size)
    return [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data) - size + 1, size)]


def read_relocations(raw: RawPe) -> list[tuple[int, list[int]]]:
    """The base relocation blocks: (page, [type << 12 | offset, ...])."""
    rva, size = raw.directory(BASERELOC)
    blocks: list[tuple[int, list[int]]] = []
    end = rva + size
    while rva and rva + 8 <= end and len(blocks) < MOST:
        page, length = raw.integers(struct.Struct("<II"), rva) or (0, 0)
        if length < 8:
            break
        blocks.append((page, _words(raw, rva + 8, min(length - 8, end - rva - 8) // 2, 2)))
        rva += length
    return blocks


def read_functions(raw: RawPe) -> list[tuple[int, int, int]]:
    """The exception directory of an x64 file: (begin, end, unwind information) of each function."""
    rva, size = raw.directory(EXCEPTION)
    rows = _words(raw, rva, 3 * min(size // 12, MOST), 4) if rva else []
    return list(zip(rows[::3], rows[1::3], rows[2::3], strict=False))


def read_debug(raw: RawPe) -> list[dict[str, int]]:
    """The entries of the debug directory."""
    rva, size = raw.directory(DEBUG)
    rows = (raw.integers(_DEBUG, rva + 28 * i) for i in range(min(size // 28, MOST) if rva else 0))
    return [dict(zip(DEBUG_NAMES, row, strict=True)) for row in rows if row is not None]


def read_tls(raw: RawPe) -> tuple[dict[str, int], list[int]] | None:
    """The TLS directory and its callbacks' addresses."""
    rva, size = raw.directory(TLS)
    row = raw.integers(_TLS[raw.bits], rva) if rva and size else None
    if row is None:
        return None
    fields = dict(zip(TLS_NAMES, row, strict=True))
    callbacks: list[int] = []
    place, step = fields["AddressOfCallBacks"] - raw.optional["ImageBase"], raw.bits // 8
    while fields["AddressOfCallBacks"] and place > 0 and len(callbacks) < 4096:
        value = int.from_bytes(raw.at(place + step * len(callbacks), step), "little")
        if not value:
            break
        callbacks.append(value)
    return fields, callbacks


def read_resources(raw: RawPe, enter: Callable[[int, bool], bool] = lambda place, table: True) -> list[Leaf]:
    """The resources, in the order of the tree (at most 8 levels and `MOST` entries).

    ``enter(place, table)`` is asked before each table and leaf, by its offset in the tree; where it says no, a table
    is passed over, and with a leaf the rest of its table.
    """
    rva, size = raw.directory(RESOURCE)
    found: list[Leaf] = []
    budget = [MOST]

    def walk(place: int, path: tuple[int | str, ...]) -> None:
        head = raw.integers(struct.Struct("<IIHHHH"), rva + place)
        if head is None or len(path) >= 8:
            return
        for i in range(head[4] + head[5]):
            budget[0] -= 1
            entry = raw.integers(struct.Struct("<II"), rva + place + 16 + 8 * i)
            if entry is None or budget[0] < 0:
                return
            name: int | str = entry[0]
            if entry[0] >> 31:
                start = rva + (entry[0] & 0x7FFFFFFF)
                length = int.from_bytes(raw.at(start, 2), "little")
                name = raw.at(start + 2, 2 * length).decode("utf-16-le", "replace")
            if entry[1] >> 31:
                if enter(entry[1] & 0x7FFFFFFF, True):
                    walk(entry[1] & 0x7FFFFFFF, (*path, name))
                continue
            if not enter(entry[1], False):
                return
            leaf = raw.integers(struct.Struct("<IIII"), rva + entry[1])
            if leaf is not None:
                found.append(Leaf((*path, name), leaf[0], leaf[1], leaf[2]))

    if rva and size:
        walk(0, ())
    return found
