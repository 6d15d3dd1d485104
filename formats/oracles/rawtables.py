"""The symbols and relocations of an ELF file as plain integers, to compare what parsers say with the bytes.

Source: System V gABI, chapter 4. Little-endian, both classes.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from bytegen.formats.oracles.rawelf import RawElf

_SYMBOL = {64: struct.Struct("<IBBHQQ"), 32: struct.Struct("<IIIBBH")}
_WORDS = {64: "Q", 32: "I"}
SHT_RELA = 4


class RawSymbol(NamedTuple):
    """One symbol; ``name`` is what the linked string table holds."""

    name: bytes
    value: int
    size: int
    info: int
    other: int
    shndx: int


class RawRelocation(NamedTuple):
    """One relocation; ``addend`` is None in a table without addends, else modulo the word."""

    offset: int
    kind: int
    symbol: int
    addend: int | None


def symbols_of(raw: RawElf, data: bytes, index: int) -> list[RawSymbol]:
    """The symbols of section ``index``; whole ones inside the file."""
    section, layout = raw.shdrs[index], _SYMBOL[raw.bits]
    strings = raw.shdrs[section["sh_link"]] if section["sh_link"] < len(raw.shdrs) else None
    found = []
    for start in _starts(section, layout.size, len(data)):
        values = layout.unpack_from(data, start)
        if raw.bits == 64:
            name, info, other, shndx, value, size = values
        else:
            name, value, size, info, other, shndx = values
        text = b""
        if strings is not None:
            at = strings["sh_offset"] + name
            end = data.find(0, at)
            text = data[at:end] if end >= 0 else data[at:]
        found.append(RawSymbol(text, value, size, info, other, shndx))
    return found


def relocations_of(raw: RawElf, data: bytes, index: int) -> list[RawRelocation]:
    """The relocations of section ``index``; whole ones inside the file."""
    section, word = raw.shdrs[index], _WORDS[raw.bits]
    rela = section["sh_type"] == SHT_RELA
    layout = struct.Struct("<" + word * (3 if rela else 2))
    shift = 32 if raw.bits == 64 else 8
    found = []
    for start in _starts(section, layout.size, len(data)):
        offset, info, *addend = layout.unpack_from(data, start)
        found.append(
            RawRelocation(offset, info & (1 << shift) - 1, info >> shift, addend[0] if rela else None)
        )
    return found


def _starts(section: dict[str, int], size: int, end: int) -> range:
    start = section["sh_offset"]
    whole = max(0, min(section["sh_size"], end - start) // size)
    return range(start, start + whole * size, size)
