"""The header, program headers and section headers of an ELF file as plain integers.

Read with `struct` straight from the bytes (System V gABI, chapters 4 and 5), so that what LIEF returns can be
compared with what the file says. Little-endian, both classes; nothing is checked beyond what must be read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

EHDR_NAMES = (
    "e_type", "e_machine", "e_version", "e_entry", "e_phoff", "e_shoff", "e_flags",
    "e_ehsize", "e_phentsize", "e_phnum", "e_shentsize", "e_shnum", "e_shstrndx",
)  # fmt: skip
SHDR_NAMES = (
    "sh_name", "sh_type", "sh_flags", "sh_addr", "sh_offset",
    "sh_size", "sh_link", "sh_info", "sh_addralign", "sh_entsize",
)  # fmt: skip
PHDR_NAMES = {
    32: ("p_type", "p_offset", "p_vaddr", "p_paddr", "p_filesz", "p_memsz", "p_flags", "p_align"),
    64: ("p_type", "p_flags", "p_offset", "p_vaddr", "p_paddr", "p_filesz", "p_memsz", "p_align"),
}
EHDR = {32: struct.Struct("<HHIIIIIHHHHHH"), 64: struct.Struct("<HHIQQQIHHHHHH")}
PHDR = {32: struct.Struct("<8I"), 64: struct.Struct("<II6Q")}
SHDR = {32: struct.Struct("<10I"), 64: struct.Struct("<IIQQQQIIQQ")}
IDENT_BYTES = 16


@dataclass(frozen=True)
class RawElf:
    """What the bytes say: `bits` is 32 or 64; headers map a field's name to its value."""

    bits: int
    ident: bytes
    ehdr: dict[str, int]
    phdrs: list[dict[str, int]]
    shdrs: list[dict[str, int]]

    def section_name(self, data: bytes, index: int) -> bytes:
        """The name of section `index`; empty without a name table or when it lies outside the file."""
        table = self.ehdr["e_shstrndx"]
        if not 0 < table < len(self.shdrs):
            return b""
        strings = self.shdrs[table]
        start = strings["sh_offset"] + self.shdrs[index]["sh_name"]
        stop = min(strings["sh_offset"] + strings["sh_size"], len(data))
        end = data.find(b"\0", start, stop) if start < stop else -1
        return data[start:end] if end >= 0 else b""


def read_raw_elf(data: bytes) -> RawElf:
    """Reads the three tables of a little-endian ELF file.

    A table that does not lie wholly inside the file is cut at the last whole entry. Raises ValueError when
    the file is no little-endian ELF file or ends inside its header.
    """
    if data[:4] != b"\x7fELF" or data[4:6] not in (b"\x01\x01", b"\x02\x01"):
        raise ValueError("not a little-endian ELF file")
    bits = 32 * data[4]
    if len(data) < IDENT_BYTES + EHDR[bits].size:
        raise ValueError(f"the file ends inside the ELF header, at byte {len(data)}")
    ehdr = dict(zip(EHDR_NAMES, EHDR[bits].unpack_from(data, IDENT_BYTES), strict=True))
    phdrs = _read_table(data, ehdr["e_phoff"], ehdr["e_phnum"], PHDR[bits], PHDR_NAMES[bits])
    shdrs = _read_table(data, ehdr["e_shoff"], ehdr["e_shnum"], SHDR[bits], SHDR_NAMES)
    return RawElf(bits, data[:IDENT_BYTES], ehdr, phdrs, shdrs)


def _read_table(
    data: bytes, offset: int, count: int, entry: struct.Struct, names: tuple[str, ...]
) -> list[dict[str, int]]:
    whole = max(0, min(count, (len(data) - offset) // entry.size)) if offset else 0
    return [
        dict(zip(names, entry.unpack_from(data, offset + i * entry.size), strict=True)) for i in range(whole)
    ]
