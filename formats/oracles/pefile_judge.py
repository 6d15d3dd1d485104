"""pefile as a judge: it parses every directory without a warning and reads what the bytes say."""

from __future__ import annotations

from typing import Any

import pefile

from bytegen.formats.oracles import rawpe
from bytegen.formats.oracles.rawpe import RawPe, read_raw_pe

_ATTRIBUTES = {
    rawpe.IMPORT: "DIRECTORY_ENTRY_IMPORT",
    rawpe.EXPORT: "DIRECTORY_ENTRY_EXPORT",
    rawpe.RESOURCE: "DIRECTORY_ENTRY_RESOURCE",
    rawpe.BASERELOC: "DIRECTORY_ENTRY_BASERELOC",
    rawpe.DEBUG: "DIRECTORY_ENTRY_DEBUG",
    rawpe.TLS: "DIRECTORY_ENTRY_TLS",
    rawpe.LOAD_CONFIG: "DIRECTORY_ENTRY_LOAD_CONFIG",
    rawpe.DELAY_IMPORT: "DIRECTORY_ENTRY_DELAY_IMPORT",
    rawpe.BOUND_IMPORT: "DIRECTORY_ENTRY_BOUND_IMPORT",
}

# Not about the file's form: guesses from the share of zero bytes, from what is imported, and from how many exports
# are equal (past some number of them it stops reading); and pefile's own failure to read the same unwind
# information twice where it is chained.
_NOT_COMPLAINTS = (
    "Chained function entry cannot be changed",
    "This may indicate truncation / malformation",
    "entries typical of packed executables",
    "Assuming corrupt",
)
# A DLL may do without an entry point.
_NO_ENTRY = (
    "SizeOfHeaders is smaller than AddressOfEntryPoint",
    "AddressOfEntryPoint lies outside the sections'",
)
_DLL = 0x2000
_EXPORT_SIZE = 40
_MOST_NAME = 0x200  # pefile reads no more of an imported name


def pefile_judge(data: bytes) -> list[str]:
    """What pefile has against a PE file: empty when it has nothing.

    No warning, every directory that the headers name parsed, and the headers, sections, imports, exports and
    relocations as the bytes have them.
    """
    try:
        raw = read_raw_pe(data)
    except ValueError as error:
        return [f"read-back: {error}"]
    try:
        parsed = pefile.PE(data=data, fast_load=False)
    except Exception as error:  # it raises whatever its parsers run into
        return [f"pefile fails: {type(error).__name__}: {error}"]
    try:
        exempt: tuple[str, ...] = _NOT_COMPLAINTS
        if raw.coff["Characteristics"] & _DLL and not raw.optional["AddressOfEntryPoint"]:
            exempt += _NO_ENTRY
        complaints = [
            f"pefile warns: {warning}"
            for warning in parsed.get_warnings()
            if not any(text in warning for text in exempt)
        ]
        complaints += _headers(raw, parsed)
        complaints += _imports(rawpe.read_imports(raw), getattr(parsed, _ATTRIBUTES[rawpe.IMPORT], ()))
        complaints += _imports(
            rawpe.read_delay_imports(raw), getattr(parsed, _ATTRIBUTES[rawpe.DELAY_IMPORT], ())
        )
        complaints += _bound(raw, parsed)
        return complaints + _exports(raw, parsed) + _relocations(raw, parsed)
    finally:
        parsed.close()


def _differ(path: str, ours: Any, theirs: Any) -> list[str]:
    return [] if ours == theirs else [f"read-back: {path} is {ours!r}, pefile says {theirs!r}"]


def _headers(raw: RawPe, parsed: pefile.PE) -> list[str]:
    complaints = _differ("e_lfanew", raw.lfanew, parsed.DOS_HEADER.e_lfanew)
    for name, value in raw.coff.items():
        complaints += _differ(f"coff.{name}", value, getattr(parsed.FILE_HEADER, name))
    for name, value in raw.optional.items():
        attribute = "Reserved1" if name == "Win32VersionValue" else name
        complaints += _differ(f"optional.{name}", value, getattr(parsed.OPTIONAL_HEADER, attribute))
    found = [(d.VirtualAddress, d.Size) for d in parsed.OPTIONAL_HEADER.DATA_DIRECTORY]
    complaints += _differ("directories", raw.directories, found[: len(raw.directories)])
    complaints += _differ("number of sections", len(raw.sections), len(parsed.sections))
    for i, (fields, section) in enumerate(zip(raw.sections, parsed.sections, strict=False)):
        for name, value in fields.items():
            attribute = "Misc_VirtualSize" if name == "VirtualSize" else name
            complaints += _differ(f"section[{i}].{name}", value, getattr(section, attribute))
    for index, attribute in _ATTRIBUTES.items():
        rva, size = raw.directory(index)
        if rva and size and not hasattr(parsed, attribute) and _expects(raw, index):
            complaints.append(f"pefile does not parse directory {index}")
    return complaints


def _expects(raw: RawPe, index: int) -> bool:
    """Whether the directory has any entry: pefile leaves out empty ones, and exports that are nothing but zeros."""
    if index == rawpe.EXPORT:
        return any(raw.at(raw.directory(index)[0], _EXPORT_SIZE))
    if index == rawpe.IMPORT:
        return bool(rawpe.read_imports(raw))
    if index == rawpe.BASERELOC:
        return bool(rawpe.read_relocations(raw))
    if index in (rawpe.DELAY_IMPORT, rawpe.BOUND_IMPORT):
        return any(raw.at(raw.directory(index)[0], 8))
    return True


def _imports(listed: list[rawpe.Import], parsed: Any) -> list[str]:
    ours = [(i.name, [(t.ordinal, t.name[:_MOST_NAME]) for t in i.thunks]) for i in listed]
    found = [
        (
            entry.dll,
            [(t.ordinal, b"") if t.import_by_ordinal else (None, t.name or b"") for t in entry.imports],
        )
        for entry in parsed
    ]
    if len(ours) != len(found):
        return [f"read-back: {len(ours)} imported DLLs, pefile has {len(found)}"]
    complaints = []
    for mine, theirs in zip(ours, found, strict=True):
        complaints += _differ("import", mine, theirs)
    return complaints


def _bound(raw: RawPe, parsed: pefile.PE) -> list[str]:
    ours = [(b.stamp, b.name, list(b.forwarders)) for b in rawpe.read_bound_imports(raw)]
    found = [
        (
            entry.struct.TimeDateStamp,
            entry.name,
            [(ref.struct.TimeDateStamp, ref.name) for ref in entry.entries],
        )
        for entry in getattr(parsed, _ATTRIBUTES[rawpe.BOUND_IMPORT], ())
    ]
    return _differ("bound imports", ours, found)


def _exports(raw: RawPe, parsed: pefile.PE) -> list[str]:
    ours = rawpe.read_exports(raw)
    directory = getattr(parsed, "DIRECTORY_ENTRY_EXPORT", None)
    if ours is None or directory is None or any("Assuming corrupt" in w for w in parsed.get_warnings()):
        return []
    complaints = []
    for name, value in ours[0].items():
        complaints += _differ(f"exports.{name}", value, getattr(directory.struct, name))
    found = sorted((s.ordinal, s.address) for s in directory.symbols)
    named = sorted({(s.ordinal, s.name) for s in directory.symbols if s.name})
    complaints += _differ("exported functions", sorted(ours[1]), sorted(set(found)))
    # pefile keeps one name an ordinal where several are equal, and of a long one its beginning.
    most = pefile.MAX_SYMBOL_NAME_LENGTH
    missing = [pair for pair in named if pair[1] not in [name[:most] for name in ours[2].get(pair[0], [])]]
    return complaints + _differ("unknown export names", [], missing)


def _relocations(raw: RawPe, parsed: pefile.PE) -> list[str]:
    ours = [(page, len(entries)) for page, entries in rawpe.read_relocations(raw)]
    found = [
        (block.struct.VirtualAddress, len(block.entries))
        for block in getattr(parsed, "DIRECTORY_ENTRY_BASERELOC", ())
    ]
    return _differ("relocation blocks", ours, found)
