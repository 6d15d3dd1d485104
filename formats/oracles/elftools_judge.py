"""pyelftools as a judge: it must read every table of an ELF file, and read what the bytes say."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from bytegen.formats.oracles.rawelf import RawElf, read_raw_elf
from bytegen.formats.oracles.rawtables import RawSymbol, relocations_of, symbols_of

_SYMTAB, _DYNSYM, _RELA, _REL = 2, 11, 4, 9
_CHUNK = 1 << 20
_ZSTD = 2


def elftools_judge(data: bytes) -> list[str]:
    """What pyelftools has against an ELF file: empty when it has nothing.

    Goes through sections, segments, symbols, relocations, notes, versions, hash tables and the dynamic section,
    and compares headers, symbols and relocations with the bytes. Any exception is a complaint. It does not
    read debugging information.
    """
    from elftools.elf.elffile import ELFFile

    try:
        raw = read_raw_elf(data)
        elf = ELFFile(io.BytesIO(data))
    except Exception as error:
        return [f"pyelftools: {type(error).__name__}: {error}"]
    complaints: list[str] = []
    for name, part in (("segment", elf.iter_segments), ("section", elf.iter_sections)):
        complaints += _each(f"{name}s", lambda part=part, name=name: _walk(raw, data, name, part()))  # type: ignore[misc]
    return complaints


def _each(place: str, read: Callable[[], Iterator[str]]) -> list[str]:
    """The complaints that ``read`` gives, and the exception that ends it, if one does."""
    found: list[str] = []
    try:
        for complaint in read():
            found.append(f"pyelftools: {place}: {complaint}")
            if len(found) > 20:
                break
    except Exception as error:
        found.append(f"pyelftools: {place}: {type(error).__name__}: {error}")
    return found


def _walk(raw: RawElf, data: bytes, name: str, parts: Iterator[object]) -> Iterator[str]:
    fields_of = raw.shdrs if name == "section" else raw.phdrs
    count = 0
    for index, part in enumerate(parts):
        count += 1
        yield from _fields(f"{name}[{index}]", part, fields_of[index])
        read = _section if name == "section" else _segment
        yield from _each(f"{name}[{index}]", partial(read, raw, data, index, part))
    if count != len(fields_of):
        yield f"it finds {count} of {len(fields_of)} {name}s"


def _fields(place: str, part: object, fields: dict[str, int]) -> Iterator[str]:
    """Fields that are not what the bytes say; pyelftools gives names for types that it knows."""
    for field, value in fields.items():
        found = part[field]  # type: ignore[index]
        if isinstance(found, int) and found != value:
            yield f"{place}.{field} is {value:#x}, pyelftools says {found:#x}"


def _section(raw: RawElf, data: bytes, index: int, section: object) -> Iterator[str]:
    from elftools.elf import sections as kinds
    from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection, GNUVerSymSection
    from elftools.elf.hash import ELFHashSection, GNUHashSection
    from elftools.elf.relocation import RelocationSection, RelrRelocationSection

    fields = raw.shdrs[index]
    name = raw.section_name(data, index).decode("utf-8", "replace")
    # Without a name table there are no names (gABI); pyelftools takes section 0 for the table.
    if section.name != name and raw.ehdr["e_shstrndx"]:  # type: ignore[attr-defined]
        yield f"its name is {name!r}, pyelftools says {section.name!r}"  # type: ignore[attr-defined]
    if isinstance(section, kinds.SymbolTableSection):
        yield from _symbols(raw, data, index, section)
    elif isinstance(section, RelocationSection):
        yield from _relocations(raw, data, index, section)
    elif isinstance(section, RelrRelocationSection):
        for _ in section.iter_relocations():
            pass
    elif isinstance(section, kinds.NoteSection):
        yield from _notes(section.iter_notes(), fields["sh_offset"], fields["sh_size"])
    elif isinstance(section, kinds.StabSection):
        for _ in section.iter_stabs():
            pass
    elif isinstance(section, GNUVerDefSection | GNUVerNeedSection):
        for _, more in section.iter_versions():
            for _ in more:
                pass
    elif isinstance(section, GNUVerSymSection):
        for _ in section.iter_symbols():
            pass
    elif isinstance(section, ELFHashSection | GNUHashSection):
        section.get_number_of_symbols()
    elif hasattr(section, "iter_tags"):
        for tag in section.iter_tags():
            str(tag)
    elif section.compressed and not _zstd(raw, data, fields):  # type: ignore[attr-defined]
        section.data()  # type: ignore[attr-defined]


def _zstd(raw: RawElf, data: bytes, fields: dict[str, int]) -> bool:
    """Whether a section is compressed with zstd, which pyelftools does not read."""
    return struct.unpack_from("<I", data, fields["sh_offset"])[0] == _ZSTD


def _segment(raw: RawElf, data: bytes, index: int, segment: Any) -> Iterator[str]:
    fields = raw.phdrs[index]
    if hasattr(segment, "iter_notes"):
        yield from _notes(segment.iter_notes(), fields["p_offset"], fields["p_filesz"])
    elif hasattr(segment, "iter_tags"):
        # Where there is no string table, and nothing has a name, pyelftools 0.33 asserts that there is one.
        if segment.get_table_offset("DT_STRTAB") == (0, None):
            return
        # Names are bytes; pyelftools takes those of a segment (not of a section) for UTF-8.
        with suppress(UnicodeDecodeError):
            for tag in segment.iter_tags():
                str(tag)
        for table in segment.get_relocation_tables().values():
            for _ in table.iter_relocations():
                pass
    elif hasattr(segment, "get_interp_name"):
        segment.get_interp_name()


def _notes(notes: Iterator[Any], start: int, size: int) -> Iterator[str]:
    """Notes that do not follow each other up to the end."""
    position = start
    for note in notes:
        if note["n_offset"] != position:
            yield f"a note at {note['n_offset']:#x}, expected at {position:#x}"
        position = note["n_offset"] + note["n_size"]
    if not start + size - 4 <= position <= start + size:
        yield f"its notes end at {position:#x}, not at {start + size:#x}"


def _symbols(raw: RawElf, data: bytes, index: int, section: object) -> Iterator[str]:
    expected = symbols_of(raw, data, index)
    found = list(section.iter_symbols())  # type: ignore[attr-defined]
    if len(found) != len(expected):
        yield f"it has {len(expected)} symbols, pyelftools says {len(found)}"
    for number, (symbol, want) in enumerate(zip(found, expected, strict=False)):
        if symbol["st_value"] != want.value or symbol["st_size"] != want.size or not _same(symbol, want):
            yield f"symbol {number} is {want}, pyelftools says {symbol.name!r} {dict(symbol.entry)}"


def _same(symbol: object, want: RawSymbol) -> bool:
    shndx = symbol["st_shndx"]  # type: ignore[index]
    return symbol.name == want.name.decode("utf-8", "replace") and (  # type: ignore[attr-defined]
        not isinstance(shndx, int) or shndx == want.shndx
    )


def _relocations(raw: RawElf, data: bytes, index: int, section: object) -> Iterator[str]:
    expected = relocations_of(raw, data, index)
    found = list(section.iter_relocations())  # type: ignore[attr-defined]
    if len(found) != len(expected):
        yield f"it has {len(expected)} relocations, pyelftools says {len(found)}"
    for number, (entry, want) in enumerate(zip(found, expected, strict=False)):
        addend = entry["r_addend"] % (1 << raw.bits) if entry.is_RELA() else None
        got = (entry["r_offset"], entry["r_info_type"], entry["r_info_sym"], addend)
        if got != tuple(want):
            yield f"relocation {number} is {want}, pyelftools says {got}"
