"""LIEF as a judge of PE files: its layout check, what it logs, and whether it reads back what the bytes say."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import lief

from bytegen.formats.oracles import rawpe
from bytegen.formats.oracles.lief_judge import captured_log
from bytegen.formats.oracles.rawpe import RawPe, read_raw_pe

_COFF_FIELDS = {
    "Machine": "machine",
    "NumberOfSections": "numberof_sections",
    "TimeDateStamp": "time_date_stamps",
    "PointerToSymbolTable": "pointerto_symbol_table",
    "NumberOfSymbols": "numberof_symbols",
    "SizeOfOptionalHeader": "sizeof_optional_header",
    "Characteristics": "characteristics",
}
_OPTIONAL_FIELDS = {
    "Magic": "magic",
    "MajorLinkerVersion": "major_linker_version",
    "MinorLinkerVersion": "minor_linker_version",
    "SizeOfCode": "sizeof_code",
    "SizeOfInitializedData": "sizeof_initialized_data",
    "SizeOfUninitializedData": "sizeof_uninitialized_data",
    "AddressOfEntryPoint": "addressof_entrypoint",
    "BaseOfCode": "baseof_code",
    "ImageBase": "imagebase",
    "SectionAlignment": "section_alignment",
    "FileAlignment": "file_alignment",
    "MajorOperatingSystemVersion": "major_operating_system_version",
    "MinorOperatingSystemVersion": "minor_operating_system_version",
    "MajorImageVersion": "major_image_version",
    "MinorImageVersion": "minor_image_version",
    "MajorSubsystemVersion": "major_subsystem_version",
    "MinorSubsystemVersion": "minor_subsystem_version",
    "Win32VersionValue": "win32_version_value",
    "SizeOfImage": "sizeof_image",
    "SizeOfHeaders": "sizeof_headers",
    "CheckSum": "checksum",
    "Subsystem": "subsystem",
    "DllCharacteristics": "dll_characteristics",
    "SizeOfStackReserve": "sizeof_stack_reserve",
    "SizeOfStackCommit": "sizeof_stack_commit",
    "SizeOfHeapReserve": "sizeof_heap_reserve",
    "SizeOfHeapCommit": "sizeof_heap_commit",
    "LoaderFlags": "loader_flags",
    "NumberOfRvaAndSizes": "numberof_rva_and_size",
}
_SECTION_FIELDS = {
    "VirtualSize": "virtual_size",
    "VirtualAddress": "virtual_address",
    "SizeOfRawData": "sizeof_raw_data",
    "PointerToRawData": "pointerto_raw_data",
    "PointerToRelocations": "pointerto_relocation",
    "PointerToLinenumbers": "pointerto_line_numbers",
    "NumberOfRelocations": "numberof_relocations",
    "NumberOfLinenumbers": "numberof_line_numbers",
    "Characteristics": "characteristics",
}
_EXPORT_FIELDS = {
    "Characteristics": "export_flags",
    "TimeDateStamp": "timestamp",
    "MajorVersion": "major_version",
    "MinorVersion": "minor_version",
    "Base": "ordinal_base",
}
_DEBUG_FIELDS = {
    "Characteristics": "characteristics",
    "TimeDateStamp": "timestamp",
    "MajorVersion": "major_version",
    "MinorVersion": "minor_version",
    "Type": "type",
    "SizeOfData": "sizeof_data",
    "AddressOfRawData": "addressof_rawdata",
    "PointerToRawData": "pointerto_rawdata",
}
_TLS_FIELDS = {
    "AddressOfIndex": "addressof_index",
    "AddressOfCallBacks": "addressof_callbacks",
    "SizeOfZeroFill": "sizeof_zero_fill",
    "Characteristics": "characteristics",
}


def lief_pe_judge(data: bytes) -> list[str]:
    """What LIEF has against a PE file: empty when it has nothing.

    Does `check_layout` pass, was nothing logged at warning level or above, and does every field of the headers,
    the sections and the directories (imports, exports, relocations, resources, x64 functions, debug entries,
    TLS, size of the load configuration) come back as the file has it?
    """
    try:
        raw = read_raw_pe(data)
    except ValueError as error:
        return [f"read-back: {error}"]
    with captured_log() as log, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = lief.PE.ParserConfig()
        config.parse_exceptions = True
        binary = lief.PE.parse(io.BytesIO(data), config)
        if binary is None:
            complaints = ["LIEF does not parse it"]
        else:
            passed, message = lief.PE.check_layout(binary)
            complaints = [] if passed else [f"check_layout: {message.strip()}"]
            for compare in _COMPARISONS:
                complaints += compare(raw, binary)
    return complaints + [f"LIEF logged: {line}" for line in log if not _about_signature(line)]


def _about_signature(line: str) -> bool:
    """Whether a line is about the inside of a certificate, which is not mapped and no loader reads."""
    return any(text in line for text in ("Failed to parse signature", "Signature appears corrupted"))


def _fields(path: str, fields: dict[str, int], found: object, names: dict[str, str]) -> list[str]:
    complaints = []
    for field, attribute in names.items():
        if field in fields:
            value = int(getattr(found, attribute))
            if value != fields[field]:
                complaints.append(f"read-back: {path}.{field} is {fields[field]:#x}, LIEF says {value:#x}")
    return complaints


def _rows(path: str, ours: Iterable[Any], theirs: Iterable[Any]) -> list[str]:
    ours, theirs = list(ours), list(theirs)
    if len(ours) != len(theirs):
        return [f"read-back: {path}: the file has {len(ours)}, LIEF {len(theirs)}"]
    for i, (mine, found) in enumerate(zip(ours, theirs, strict=True)):
        if mine != found:
            return [f"read-back: {path}[{i}] is {mine!r}, LIEF says {found!r}"]
    return []


def _headers(raw: RawPe, binary: lief.PE.Binary) -> list[str]:
    complaints = _fields("coff", raw.coff, binary.header, _COFF_FIELDS)
    complaints += _fields("optional", raw.optional, binary.optional_header, _OPTIONAL_FIELDS)
    if binary.dos_header.addressof_new_exeheader != raw.lfanew:
        complaints.append(f"read-back: e_lfanew is {raw.lfanew:#x}")
    sections = list(binary.sections)
    if len(sections) != len(raw.sections):
        return [*complaints, f"read-back: {len(raw.sections)} sections, LIEF has {len(sections)}"]
    for i, (fields, section) in enumerate(zip(raw.sections, sections, strict=True)):
        complaints += _fields(f"section[{i}]", fields, section, _SECTION_FIELDS)
        name = bytes(section.fullname).rstrip(b"\0")
        if not raw.names[i].startswith(b"/") and name != raw.names[i].rstrip(b"\0"):
            complaints.append(f"read-back: section[{i}].Name is {raw.names[i]!r}, LIEF says {name!r}")
    found = [(d.rva, d.size) for d in binary.data_directories][: len(raw.directories)]
    return complaints + _rows("directory", raw.directories, found)


def _text(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


def _imports(raw: RawPe, binary: lief.PE.Binary) -> list[str]:
    ours, theirs = rawpe.read_imports(raw), list(binary.imports)
    complaints = _rows("imports", [i.name for i in ours], [_text(i.name) for i in theirs])
    if complaints:
        return complaints
    for mine, found in zip(ours, theirs, strict=True):
        path = f"import {mine.name.decode(errors='replace')}"
        fields = (
            found.import_lookup_table_rva, found.timedatestamp, found.forwarder_chain, found.name_rva,
            found.import_address_table_rva,
        )  # fmt: skip
        complaints += _rows(path, mine.fields, fields)
        entries = [
            (e.ordinal, 0, b"") if e.is_ordinal else (None, e.hint, _text(e.name)) for e in found.entries
        ]
        complaints += _rows(path, [tuple(thunk) for thunk in mine.thunks], entries)
    return complaints


def _delay_imports(raw: RawPe, binary: lief.PE.Binary) -> list[str]:
    ours, theirs = rawpe.read_delay_imports(raw), list(binary.delay_imports)
    complaints = _rows("delay_imports", [i.name for i in ours], [_text(i.name) for i in theirs])
    if complaints:
        return complaints
    for mine, found in zip(ours, theirs, strict=True):
        path = f"delay import {mine.name.decode(errors='replace')}"
        fields = (
            found.attribute,
            found.handle,
            found.iat,
            found.names_table,
            found.biat,
            found.uiat,
            found.timestamp,
        )
        complaints += _rows(path, (mine.fields[0], *mine.fields[2:]), fields)
        entries = [
            (e.ordinal, 0, b"") if e.is_ordinal else (None, e.hint, _text(e.name)) for e in found.entries
        ]
        complaints += _rows(path, [tuple(thunk) for thunk in mine.thunks], entries)
    return complaints


def _exports(raw: RawPe, binary: lief.PE.Binary) -> list[str]:
    ours = rawpe.read_exports(raw)
    export = binary.get_export() if binary.has_exports else None
    if ours is None or export is None:
        return [] if (ours is None) == (export is None) else ["read-back: only one of us has exports"]
    fields, functions, names = ours
    complaints = _fields("exports", fields, export, _EXPORT_FIELDS)
    found = [e for e in export.entries if e.function_rva]
    complaints += _rows("export", sorted(functions), sorted({(e.ordinal, e.function_rva) for e in found}))
    # LIEF names a forwarder that has no name by its text.
    listed = {name for ordinal in names.values() for name in ordinal}
    unknown = {_text(e.name) for e in found if e.name and not e.is_extern} - listed
    return complaints + [f"read-back: no export {name!r} in the file" for name in sorted(unknown)[:1]]


def _relocations(raw: RawPe, binary: lief.PE.Binary) -> list[str]:
    ours, theirs = rawpe.read_relocations(raw), list(binary.relocations)
    complaints = _rows("relocation block", [b[0] for b in ours], [r.virtual_address for r in theirs])
    if complaints:
        return complaints
    for (page, entries), block in zip(ours, theirs, strict=True):
        complaints += _rows(f"relocations of {page:#x}", entries, [int(e.data) for e in block.entries])
    return complaints


def _resources(raw: RawPe, binary: lief.PE.Binary) -> list[str]:
    found: list[tuple[tuple[int | str, ...], int, int]] = []

    def walk(node: lief.PE.ResourceNode, path: tuple[int | str, ...]) -> None:
        for child in node.childs:
            step: int | str = child.name if child.has_name else child.id
            if isinstance(child, lief.PE.ResourceData):
                found.append(((*path, step), len(child.content), child.code_page))
            else:
                walk(child, (*path, step))

    if isinstance(binary.resources, lief.PE.ResourceNode):
        walk(binary.resources, ())
    leaves = rawpe.read_resources(raw, _Guard(raw))
    return _rows("resource", [(leaf.path, leaf.size, leaf.code_page) for leaf in leaves], found)


class _Guard:
    """LIEF's guard against loops, which keeps offsets of tables in the file among offsets of leaves in the tree.

    So it stops at a leaf, and leaves out a table, where one of the other kind has the same number.
    """

    def __init__(self, raw: RawPe) -> None:
        self._root = raw.offset(raw.directory(rawpe.RESOURCE)[0]) or 0
        self._seen: set[int] = set()

    def __call__(self, place: int, table: bool) -> bool:
        key = place + self._root if table else place
        known = key in self._seen
        self._seen.add(key)
        return not known


def _functions(raw: RawPe, binary: lief.PE.Binary) -> list[str]:
    if raw.coff["Machine"] != 0x8664:
        return []
    found = [
        (e.rva_start, e.rva_end, e.unwind_rva)
        for e in binary.exceptions
        if isinstance(e, lief.PE.RuntimeFunctionX64)
    ]
    return _rows("function", rawpe.read_functions(raw), found)


def _debug(raw: RawPe, binary: lief.PE.Binary) -> list[str]:
    ours, theirs = rawpe.read_debug(raw), list(binary.debug)
    if len(ours) != len(theirs):
        return [f"read-back: debug: the file has {len(ours)}, LIEF {len(theirs)}"]
    complaints = []
    for i, (fields, entry) in enumerate(zip(ours, theirs, strict=True)):
        complaints += _fields(f"debug[{i}]", fields, entry, _DEBUG_FIELDS)
    return complaints


def _tls(raw: RawPe, binary: lief.PE.Binary) -> list[str]:
    ours, found = rawpe.read_tls(raw), binary.tls
    if ours is None or found is None:
        return [] if (ours is None) == (found is None) else ["read-back: only one of us has a TLS directory"]
    fields, callbacks = ours
    span = (fields["StartAddress"], fields["EndAddress"])
    complaints = _fields("tls", fields, found, _TLS_FIELDS)
    complaints += _rows("tls.RawData", span, found.addressof_raw_data)
    return complaints + _rows("tls.callback", callbacks, found.callbacks)


def _load_config(raw: RawPe, binary: lief.PE.Binary) -> list[str]:
    rva, size = raw.directory(rawpe.LOAD_CONFIG)
    if not rva or not size:
        return []
    config = binary.load_configuration
    if config is None:
        return ["read-back: LIEF has no load configuration"]
    said = int.from_bytes(raw.at(rva, 4), "little")
    return [] if config.size == said else [f"read-back: load_config.Size is {said}, LIEF says {config.size}"]


_COMPARISONS: tuple[Callable[[RawPe, lief.PE.Binary], list[str]], ...] = (
    _headers,
    _imports,
    _delay_imports,
    _exports,
    _relocations,
    _resources,
    _functions,
    _debug,
    _tls,
    _load_config,
)
