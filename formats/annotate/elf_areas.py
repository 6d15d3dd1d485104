"""The tolerant reader of ELF files: whatever the headers can be taken to say, in bounded time.

Reads both classes and both byte orders. Nothing is refused: a table past the end of the file is cut, a name
outside its table is empty.
"""

from __future__ import annotations

from typing import NamedTuple

from bytegen.formats.annotate.meanings import DYNAMIC_TAGS, SECTION_TYPES, SEGMENT_TYPES, flags_text
from bytegen.formats.annotate.reading import Reading, text_at
from bytegen.formats.annotate.structs import ELF, HALF, WORD, Layout, Order, Table, size_of, unpack

_MACHINES = {62: "x86-64", 3: "i386", 183: "aarch64"}
_MOST_HEADERS = 65_536
_TABLES = {2: "sym", 11: "sym", 4: "rela", 9: "rel", 6: "dyn", 14: "pointer", 15: "pointer", 16: "pointer"}
_KINDS = {
    2: "symbols", 11: "symbols", 3: "names", 4: "relocations", 9: "relocations", 6: "dynamic", 5: "hash",
    0x6FFFFFF6: "hash", 7: "notes", 14: "table", 15: "table", 16: "table", 17: "table", 18: "table",
    0x6FFFFFFD: "versions", 0x6FFFFFFE: "versions", 0x6FFFFFFF: "versions", 0x70000001: "unwind",
}  # fmt: skip
_SEGMENT_KINDS = {2: "dynamic", 3: "names", 4: "notes", 0x6474E550: "unwind", 0x6474E553: "notes"}
_NOBITS, _PT_LOAD, _PT_DYNAMIC, _ALLOC, _EXEC, _FUNCTION = 8, 1, 2, 2, 4, 2


class _Elf(NamedTuple):
    """The file being read."""

    data: bytes
    layouts: dict[str, Layout]
    order: Order
    reading: Reading

    def records(self, start: int, count: int, name: str) -> list[dict[str, int]]:
        """Whole records from `start`, as many as the file has room for."""
        size = size_of(self.layouts[name])
        whole = max(0, min(count, _MOST_HEADERS, (len(self.data) - start) // size)) if start else 0
        return [unpack(self.data, start + i * size, self.layouts[name], self.order) for i in range(whole)]

    def table(self, start: int, count: int, name: str, path: str, limit: int | None = None) -> None:
        """Promises the spans of a table of records."""
        stop = len(self.data) if limit is None else min(limit, len(self.data))
        if 0 <= start < stop and count > 0:
            whole = min(count, (stop - start) // size_of(self.layouts[name]) + 1)
            self.reading.tables.append(
                Table(start, whole, self.layouts[name], path, stop, indexed=path != "ehdr")
            )


def read_elf(data: bytes) -> Reading:
    """Areas, tables and names of a file that begins with an ELF magic."""
    bits = 32 if data[4:5] == b"\x01" else 64
    order: Order = "big" if data[5:6] == b"\x02" else "little"
    reading = Reading(len(data), order)
    layouts = ELF[bits]
    elf = _Elf(data, layouts, order, reading)
    ehdr = unpack(data, 0, layouts["ehdr"], order)
    if order == "little" and bits == (32 if ehdr["e_machine"] == 3 else 64):
        reading.machine = _MACHINES.get(ehdr["e_machine"], "")
    reading.entry = ehdr["e_entry"]
    reading.area(0, size_of(layouts["ehdr"]), "ELF header", "header")
    elf.table(0, 1, "ehdr", "ehdr")
    phdrs = elf.records(ehdr["e_phoff"], ehdr["e_phnum"], "phdr")
    shdrs = elf.records(ehdr["e_shoff"], ehdr["e_shnum"], "shdr")
    for start, count, name, title in (
        (ehdr["e_phoff"], ehdr["e_phnum"], "phdr", "program header table"),
        (ehdr["e_shoff"], ehdr["e_shnum"], "shdr", "section header table"),
    ):
        if start:
            reading.area(start, count * size_of(layouts[name]), title, "header")
            elf.table(start, count, name, name)
    names = _section_names(elf, ehdr, shdrs)
    _sections(elf, ehdr, shdrs, names)
    _segments(elf, ehdr, phdrs, bool(shdrs))
    return reading


def _section_names(elf: _Elf, ehdr: dict[str, int], shdrs: list[dict[str, int]]) -> list[str]:
    index = ehdr["e_shstrndx"]
    if not 0 < index < len(shdrs):
        return ["" for _ in shdrs]
    start, size = shdrs[index]["sh_offset"], shdrs[index]["sh_size"]
    return [
        text_at(elf.data, start + s["sh_name"], start + size) if s["sh_name"] < size else "" for s in shdrs
    ]


def _kind(shdr: dict[str, int], name: str) -> str:
    if shdr["sh_type"] in _KINDS:
        return _KINDS[shdr["sh_type"]]
    if shdr["sh_flags"] & _EXEC:
        return "code"
    if name.startswith((".debug", ".zdebug", ".stab", ".gdb_index")):
        return "debug"
    if name.startswith((".eh_frame", ".gcc_except_table")):
        return "unwind"
    return "names" if name in (".interp", ".comment") else "data"


def _sections(elf: _Elf, ehdr: dict[str, int], shdrs: list[dict[str, int]], names: list[str]) -> None:
    entry = size_of(elf.layouts["shdr"])
    for i, (shdr, name) in enumerate(zip(shdrs, names, strict=True)):
        kind = SECTION_TYPES.get(shdr["sh_type"], f"type {shdr['sh_type']:#x}")
        elf.reading.mark(ehdr["e_shoff"] + i * entry, f"{name} {kind}".strip())
        if shdr["sh_type"] in (0, _NOBITS) or not shdr["sh_size"]:
            continue
        title = name or f"section {i}"
        address = shdr["sh_addr"] if shdr["sh_flags"] & _ALLOC else None
        note = f"section {i}, {kind}"
        if flags := flags_text(shdr["sh_flags"], {1: "write", 2: "alloc", 4: "exec", 0x400: "TLS"}):
            note += f", {flags}"
        elf.reading.area(shdr["sh_offset"], shdr["sh_size"], title, _kind(shdr, name), note, address)
        _contents(elf, shdrs, shdr, title)


def _contents(elf: _Elf, shdrs: list[dict[str, int]], shdr: dict[str, int], title: str) -> None:
    """The tables in a section, and the names of what is in them."""
    start, size = shdr["sh_offset"], shdr["sh_size"]
    stop = min(start + size, len(elf.data))
    kind = _TABLES.get(shdr["sh_type"])
    if kind:
        count = size // size_of(elf.layouts[kind])
        elf.table(start, count, kind, f"{title}.{kind}", stop)
    elif shdr["sh_type"] in (5, 17, 18) and start < stop:
        elf.reading.tables.append(Table(start, size // 4, WORD, f"{title}.word", stop))
    elif shdr["sh_type"] == 0x6FFFFFFF and start < stop:
        elf.reading.tables.append(Table(start, size // 2, HALF, f"{title}.sym", stop))
    link = shdr["sh_link"]
    strings = shdrs[link] if 0 < link < len(shdrs) else None
    if kind == "sym" and strings is not None:
        _name_symbols(elf, start, stop, strings)
    elif kind == "dyn":
        base, end = (strings["sh_offset"], strings["sh_offset"] + strings["sh_size"]) if strings else (0, 0)
        name_dynamic(elf, start, stop, base, end)


def _name_symbols(elf: _Elf, start: int, stop: int, strings: dict[str, int]) -> None:
    size = size_of(elf.layouts["sym"])
    base, end = strings["sh_offset"], strings["sh_offset"] + strings["sh_size"]
    for at in elf.reading.look(start, stop, size):
        symbol = unpack(elf.data, at, elf.layouts["sym"], elf.order)
        if symbol["st_name"] and base + symbol["st_name"] < end:
            name = text_at(elf.data, base + symbol["st_name"], end)
            elf.reading.mark(at, name)
            if symbol["st_value"] and symbol["st_info"] & 15 == _FUNCTION and name:
                elf.reading.addresses.append((symbol["st_value"], name))


def name_dynamic(elf: _Elf, start: int, stop: int, base: int, end: int) -> None:
    """Names dynamic entries by tag, and by the text of those that refer to the string table at `base`."""
    size = size_of(elf.layouts["dyn"])
    for at in elf.reading.look(start, stop, size):
        entry = unpack(elf.data, at, elf.layouts["dyn"], elf.order)
        tag = entry["d_tag"]
        name = DYNAMIC_TAGS.get(tag, f"tag {tag:#x}")
        if tag in (1, 14, 15, 29) and base + entry["d_val"] < end:
            name += " " + text_at(elf.data, base + entry["d_val"], end)
        elf.reading.mark(at, name)
        if tag == 0:
            return


def _segments(elf: _Elf, ehdr: dict[str, int], phdrs: list[dict[str, int]], have_sections: bool) -> None:
    """What no section covers is named after its segment; the narrower segments go before PT_LOAD."""
    reading, entry = elf.reading, size_of(elf.layouts["phdr"])
    for i, phdr in enumerate(phdrs):
        name = SEGMENT_TYPES.get(phdr["p_type"], f"type {phdr['p_type']:#x}")
        flags = "".join(letter for bit, letter in ((4, "R"), (2, "W"), (1, "E")) if phdr["p_flags"] & bit)
        reading.mark(ehdr["e_phoff"] + i * entry, f"{name} {flags}".strip())
    ordered = sorted(enumerate(phdrs), key=lambda item: item[1]["p_type"] == _PT_LOAD)
    for i, phdr in ordered:
        kind = _SEGMENT_KINDS.get(phdr["p_type"])
        name = SEGMENT_TYPES.get(phdr["p_type"], f"type {phdr['p_type']:#x}")
        if kind is None and phdr["p_type"] != _PT_LOAD:
            continue
        if kind is None:
            # Between sections there is padding; without sections a segment is all there is to go by.
            kind = "code" if phdr["p_flags"] & 1 and not have_sections else "data"
        note = f"segment {i}"
        if phdr["p_type"] == _PT_DYNAMIC and not have_sections:
            count = phdr["p_filesz"] // size_of(elf.layouts["dyn"])
            elf.table(phdr["p_offset"], count, "dyn", "dynamic", phdr["p_offset"] + phdr["p_filesz"])
            name_dynamic(elf, phdr["p_offset"], min(phdr["p_offset"] + phdr["p_filesz"], len(elf.data)), 0, 0)
        reading.area(phdr["p_offset"], phdr["p_filesz"], f"{name} [{i}]", kind, note, phdr["p_vaddr"])
