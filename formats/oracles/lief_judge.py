"""LIEF as a judge: its layout check, what it logs, and whether it reads back every field as it is."""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import lief

from bytegen.formats.oracles.rawelf import RawElf, read_raw_elf
from bytegen.formats.oracles.rawtables import RawRelocation, RawSymbol, relocations_of, symbols_of

_HEADER_FIELDS = {
    "e_type": "file_type",
    "e_machine": "machine_type",
    "e_version": "object_file_version",
    "e_entry": "entrypoint",
    "e_phoff": "program_header_offset",
    "e_shoff": "section_header_offset",
    "e_flags": "processor_flag",
    "e_ehsize": "header_size",
    "e_phentsize": "program_header_size",
    "e_phnum": "numberof_segments",
    "e_shentsize": "section_header_size",
    "e_shnum": "numberof_sections",
    "e_shstrndx": "section_name_table_idx",
}
_SEGMENT_FIELDS = {
    "p_type": "type",
    "p_flags": "raw_flags",
    "p_offset": "file_offset",
    "p_vaddr": "virtual_address",
    "p_paddr": "physical_address",
    "p_filesz": "physical_size",
    "p_memsz": "virtual_size",
    "p_align": "alignment",
}
_SECTION_FIELDS = {
    "sh_type": "type",
    "sh_flags": "flags",
    "sh_addr": "virtual_address",
    "sh_offset": "offset",
    "sh_size": "original_size",
    "sh_link": "link",
    "sh_info": "information",
    "sh_addralign": "alignment",
    "sh_entsize": "entry_size",
}
# LIEF keeps the machine in the bits above a segment's or section's 32-bit type.
_TYPE_MASK = 0xFFFF_FFFF
_SYMTAB, _DYNSYM, _RELA, _REL, _ALLOC = 2, 11, 4, 9, 2
_MOST_SYMBOLS = 1_000_000  # LIEF reads no more, nor more relocations
_RELOCATION_MASK = 0x7FF_FFFF  # LIEF keeps the machine above the type
# Logged as a warning about every file without section headers, which executables need not have (gABI, ch. 4).
_NO_SECTIONS = "The current binary doesn't have a section header"


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Collects the lines that LIEF logs at warning level or above, filled when the block ends.

    LIEF has one logger a process: it is sent to a temporary file inside the block and back to standard error
    after it. Not for two threads at once.
    """
    lines: list[str] = []
    level = lief.logging.get_level()
    handle, path = tempfile.mkstemp(prefix="bytegen-lief-")
    os.close(handle)
    lief.logging.set_level(lief.logging.LEVEL.WARN)
    lief.logging.set_path(path)
    try:
        yield lines
    finally:
        lief.logging.reset()
        lief.logging.set_level(level)
        with open(path, encoding="utf-8", errors="replace") as log:
            lines.extend(line.strip() for line in log if line.strip())
        with suppress(OSError):
            os.unlink(path)


def lief_judge(data: bytes) -> list[str]:
    """What LIEF has against an ELF file: empty when it has nothing.

    Three questions, since parsing alone says almost nothing (any four bytes `\\x7fELF` parse): does
    `check_layout` pass, was nothing logged at warning level or above, and does every field of the ELF header,
    the program headers, the section headers, the symbols and the relocations come back as the file has it.
    """
    with captured_log() as log, warnings.catch_warnings():
        # A value outside LIEF's enumerations comes with a RuntimeWarning of Python; the value itself is kept.
        warnings.simplefilter("ignore")
        # As a stream: bytes that are no ELF file LIEF takes for a path, and opens.
        binary = lief.ELF.parse(io.BytesIO(data))
        if binary is None:
            complaints = ["LIEF does not parse it"]
        else:
            passed, message = lief.ELF.check_layout(binary)
            complaints = [] if passed else [f"check_layout: {message}"]
            complaints += _read_back(binary, data)
    without_sections = data[40:48] == bytes(8) if data[4:5] == b"\x02" else data[32:36] == bytes(4)
    return complaints + [
        f"LIEF logged: {line}" for line in log if not (without_sections and line == _NO_SECTIONS)
    ]


def _read_back(binary: lief.ELF.Binary, data: bytes) -> list[str]:
    try:
        raw = read_raw_elf(data)
    except ValueError as error:
        return [f"read-back: {error}"]
    header = binary.header
    complaints = _compare("ehdr", raw.ehdr, header, _HEADER_FIELDS)
    if bytes(header.identity) != raw.ident:
        complaints.append(
            f"read-back: ehdr.e_ident is {raw.ident.hex()}, LIEF says {bytes(header.identity).hex()}"
        )
    segments, sections = list(binary.segments), list(binary.sections)
    for name, listed, count in (("phdr", segments, "e_phnum"), ("shdr", sections, "e_shnum")):
        if len(listed) != raw.ehdr[count]:
            complaints.append(f"read-back: ehdr.{count} is {raw.ehdr[count]}, LIEF has {len(listed)} {name}")
    for index, (fields, segment) in enumerate(zip(raw.phdrs, segments, strict=False)):
        complaints += _compare(f"phdr[{index}]", fields, segment, _SEGMENT_FIELDS)
    for index, (fields, section) in enumerate(zip(raw.shdrs, sections, strict=False)):
        complaints += _compare(f"shdr[{index}]", fields, section, _SECTION_FIELDS)
        complaints += _compare_name(raw, data, index, section)
    complaints += _compare_symbols(raw, data, binary)
    return complaints + _compare_relocations(raw, data, binary)


def _compare(path: str, fields: dict[str, int], found: object, names: dict[str, str]) -> list[str]:
    complaints = []
    for field, attribute in names.items():
        value = int(getattr(found, attribute))
        if attribute == "type":
            value &= _TYPE_MASK
        if value != fields[field]:
            complaints.append(f"read-back: {path}.{field} is {fields[field]:#x}, LIEF says {value:#x}")
    return complaints


def _compare_name(raw: RawElf, data: bytes, index: int, section: lief.ELF.Section) -> list[str]:
    if raw.ehdr["e_shstrndx"] == 0:
        return []  # no name table, so no names (gABI); LIEF takes section 0 for the table
    name, found = raw.section_name(data, index), bytes(section.fullname)
    # LIEF keeps what follows the terminator for some tools' sake; the name itself ends at the first NUL.
    found = found.split(b"\0", 1)[0]
    return [] if found == name else [f"read-back: shdr[{index}].sh_name is {name!r}, LIEF says {found!r}"]


def _first(raw: RawElf, kind: int) -> int | None:
    return next((i for i, fields in enumerate(raw.shdrs) if fields["sh_type"] == kind), None)


def _compare_symbols(raw: RawElf, data: bytes, binary: lief.ELF.Binary) -> list[str]:
    """Symbols that LIEF reads otherwise: of the first SYMTAB, and of the DYNSYM that DT_SYMTAB names."""
    complaints: list[str] = []
    symtab, dynsym = _first(raw, _SYMTAB), _first(raw, _DYNSYM)
    for index, listed in ((symtab, binary.symtab_symbols), (dynsym, binary.dynamic_symbols)):
        if index is None or (index == dynsym and not binary.has(lief.ELF.DynamicEntry.TAG.SYMTAB)):
            continue
        expected, found = symbols_of(raw, data, index)[:_MOST_SYMBOLS], list(listed)
        # LIEF counts dynamic symbols by hash tables and relocations, where those tell more than the section.
        if len(found) != len(expected) and (index == symtab or len(found) < len(expected)):
            complaints.append(f"read-back: section {index} has {len(expected)} symbols, LIEF {len(found)}")
        for number, (want, symbol) in enumerate(zip(expected, found, strict=False)):
            got = _symbol(symbol, want)
            if got != want:
                complaints.append(f"read-back: symbol {number} of section {index} is {want}, LIEF says {got}")
    return complaints[:20]


def _symbol(symbol: lief.ELF.Symbol, want: RawSymbol) -> RawSymbol:
    name = symbol.name
    text = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    if isinstance(name, str) and name == want.name.decode("utf-8", "replace"):
        text = want.name
    info = int(symbol.binding) << 4 | int(symbol.type)
    return RawSymbol(text, symbol.value, symbol.size, info, symbol.other, symbol.shndx)


def _compare_relocations(raw: RawElf, data: bytes, binary: lief.ELF.Binary) -> list[str]:
    """Relocations of sections that LIEF does not have, where it reads them from sections.

    It leaves out allocated sections where the dynamic section names relocations, and repeated ones.
    """
    listed = list(binary.relocations)
    dynamic = any(int(entry.purpose) in (1, 2) for entry in listed)
    have = set()
    for entry in listed:
        kind = int(entry.type) & _RELOCATION_MASK
        addend = int(entry.addend) % (1 << raw.bits) if entry.is_rela else None
        have.add(RawRelocation(int(entry.address), kind, int(entry.info), addend))
    complaints = []
    for index, fields in enumerate(raw.shdrs):
        if fields["sh_type"] not in (_RELA, _REL) or (dynamic and fields["sh_flags"] & _ALLOC):
            continue
        for number, want in enumerate(relocations_of(raw, data, index)[:_MOST_SYMBOLS]):
            if want not in have:
                complaints.append(
                    f"read-back: relocation {number} of section {index}, {want}, is not in LIEF"
                )
    return complaints[:20]
