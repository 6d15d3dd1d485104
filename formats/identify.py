"""Tells which format a file is in by its first bytes, or in words what it is when it is none of ours."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal

from bytegen.formats.errors import FormatError
from bytegen.formats.report import Problem

_ELF_MAGIC = b"\x7fELF"
_ELF_FORMATS = {(2, 1, 62): "elf64-x86_64", (1, 1, 3): "elf32-i386", (2, 1, 183): "elf64-aarch64"}
_PE_FORMATS = {
    (0x8664, 0x20B): "pe32plus-x86_64", (0x14C, 0x10B): "pe32-i386", (0xAA64, 0x20B): "pe32plus-aarch64",
}  # fmt: skip
_PE_MACHINES = {
    0x14C: "i386", 0x1C0: "ARM", 0x1C4: "ARM Thumb-2", 0x200: "IA-64", 0x8664: "x86-64", 0xAA64: "AArch64",
    0xA641: "AArch64 (EC)", 0xEBC: "EFI byte code", 0x5032: "RISC-V 32", 0x5064: "RISC-V 64",
    0x6264: "LoongArch 64",
}  # fmt: skip
_SUBSYSTEMS = {
    1: "native program", 2: "GUI program", 3: "console program", 10: "EFI application",
    11: "EFI boot service driver", 12: "EFI runtime driver", 13: "EFI ROM", 16: "boot application",
}  # fmt: skip
_DLL = 0x2000
_CLASSES = {1: "32-bit", 2: "64-bit"}
_ORDERS = {1: "little-endian", 2: "big-endian"}
_TYPES = {1: "relocatable object", 2: "executable", 3: "shared object or PIE", 4: "core dump"}
_MACHINES = {
    2: "SPARC", 3: "i386", 4: "m68k", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 22: "S/390", 40: "ARM",
    42: "SuperH", 43: "SPARC V9", 50: "IA-64", 62: "x86-64", 183: "AArch64", 243: "RISC-V", 247: "BPF",
    258: "LoongArch",
}  # fmt: skip
_EI_CLASS, _EI_DATA, _E_MACHINE = 4, 5, 18
_E_MACHINE_END = 20
_E_LFANEW, _DOS_BYTES, _PE_BYTES = 60, 64, 26  # the PE header as far as the optional header's magic
_MAGICS = (
    (b"\xfe\xed\xfa\xce", "Mach-O file"), (b"\xfe\xed\xfa\xcf", "Mach-O file"),
    (b"\xce\xfa\xed\xfe", "Mach-O file"), (b"\xcf\xfa\xed\xfe", "Mach-O file"),
    (b"\xca\xfe\xba\xbe", "Java class or Mach-O universal file"), (b"#!", "script"), (b"!<arch>\n", "ar archive"),
    (b"\0asm", "WebAssembly module"), (b"PK\x03\x04", "ZIP archive"), (b"\x1f\x8b", "gzip file"),
    (b"\xfd7zXZ\0", "xz file"), (b"\x28\xb5\x2f\xfd", "Zstandard file"), (b"BZh", "bzip2 file"),
    (b"%PDF-", "PDF document"), (b"\x89PNG\r\n", "PNG picture"), (b"\xff\xd8\xff", "JPEG picture"),
    (b"BC\xc0\xde", "LLVM bitcode"), (b"SQLite format 3\0", "SQLite database"),
)  # fmt: skip


def detect(data: bytes) -> str | None:
    """The name of the format that `data` begins like ("elf64-x86_64", ...), or None when it is none we know.

    Looks at the magic, the class, the byte order and the machine only; whether the file is sound is for
    `formats.validate` to say, and whether the format is among `formats.available()` too.
    """
    if data[:4] == _ELF_MAGIC and len(data) >= _E_MACHINE_END:
        machine = int.from_bytes(data[_E_MACHINE:_E_MACHINE_END], "little")
        return _ELF_FORMATS.get((data[_EI_CLASS], data[_EI_DATA], machine))
    if data[:2] == b"MZ":
        return _PE_FORMATS.get(_pe_kind(data) or (0, 0))
    return None


def resolve(data: bytes, format: str | None, level: str) -> str | None:
    """The format to hold a file to: the one named, else the one it begins like; None if we have none for it.

    Raises FormatError for an unknown `format`, and for a `level` that it (or, without a format, every
    format) lacks.
    """
    from bytegen import formats

    known = formats.available()
    found = format or detect(data)
    if found is not None and (format is not None or found in known):
        formats.least_bytes(found, level)
        return found
    levels = list(dict.fromkeys(level for name in known for level in formats.levels(name)))
    if level not in levels:
        raise FormatError(f"unknown level {level!r}: there are {', '.join(levels)}")
    return None


def _pe_start(data: bytes) -> int:
    """Where the DOS header says that the PE header is; -1 where the file ends before it says so."""
    return -1 if len(data) < _DOS_BYTES else int.from_bytes(data[_E_LFANEW:_DOS_BYTES], "little")


def _pe_kind(data: bytes) -> tuple[int, int] | None:
    """Machine and optional header magic of a PE file; None when it is none."""
    start = _pe_start(data)
    if start < 0 or start + _PE_BYTES > len(data) or data[start : start + 4] != b"PE\0\0":
        return None
    (machine,) = struct.unpack_from("<H", data, start + 4)
    (magic,) = struct.unpack_from("<H", data, start + 24)
    return machine, magic


def describe(data: bytes) -> str:
    """What a file seems to be, in a few words: "ELF 64-bit little-endian x86-64 executable"."""
    if not data:
        return "empty file"
    if data[:4] == _ELF_MAGIC:
        return _describe_elf(data)
    if data[:2] == b"MZ":
        return _describe_pe(data)
    for magic, name in _MAGICS:
        if data.startswith(magic):
            return name
    return f"no executable (it begins with {data[:8].hex(' ')})"


def _describe_pe(data: bytes) -> str:
    kind = _pe_kind(data)
    if kind is None:
        return "MZ file without a PE header"
    machine, magic = kind
    start = _pe_start(data)
    flags = int.from_bytes(data[start + 22 : start + 24], "little")
    subsystem = int.from_bytes(data[start + 92 : start + 94], "little")
    name = "DLL" if flags & _DLL else _SUBSYSTEMS.get(subsystem, f"subsystem {subsystem}")
    width = {0x10B: "PE32", 0x20B: "PE32+"}.get(magic, f"PE magic {magic:#x}")
    return f"{width} {_PE_MACHINES.get(machine, f'machine {machine:#x}')} {name}"


def _describe_elf(data: bytes) -> str:
    if len(data) < _E_MACHINE_END:
        return "beginning of an ELF header"
    order: Literal["big", "little"] = "big" if data[_EI_DATA] == 2 else "little"
    kind = int.from_bytes(data[16:18], order)
    machine = int.from_bytes(data[_E_MACHINE:_E_MACHINE_END], order)
    words = (
        "ELF",
        _CLASSES.get(data[_EI_CLASS], f"class {data[_EI_CLASS]}"),
        _ORDERS.get(data[_EI_DATA], f"byte order {data[_EI_DATA]}"),
        _MACHINES.get(machine, f"machine {machine:#x}"),
        _TYPES.get(kind, f"type {kind:#x}"),
    )
    return " ".join(words)


def unsupported(data: bytes, available: Sequence[str]) -> Problem:
    """The problem that says why `data` is in none of the formats `available`, at the first telling byte."""
    known = f"supported: {', '.join(available)}"
    if not data:
        return Problem("reader", f"the file ends before it begins; {known}", 0)
    if (name := detect(data)) is not None:
        return Problem("reader", f"this is {name}, which is not at hand; {known}", 0)
    if data[:4] == _ELF_MAGIC:
        return _unsupported_elf(data, known)
    if data[:2] == b"MZ":
        return _unsupported_pe(data, known)
    same = next((i for i, (one, other) in enumerate(zip(data, _ELF_MAGIC, strict=False)) if one != other), 0)
    what = describe(data)
    article = "" if what.startswith("no ") else "an " if what[0] in "aLx" else "a "
    wanted = f"an ELF file begins with {_ELF_MAGIC.hex(' ')}, a PE file with 4d 5a"
    field = "ehdr.e_ident.magic" if same else ""
    return Problem("reader", f"this is {article}{what}; {wanted}; {known}", same, field)


def _unsupported_elf(data: bytes, known: str) -> Problem:
    if len(data) < _E_MACHINE_END:
        return Problem("reader", f"the file ends inside the ELF header; {known}", len(data), "ehdr")
    offset, field, wanted = _E_MACHINE, "ehdr.e_machine", "62 (x86-64), 3 (i386) or 183 (AArch64)"
    if (data[_EI_CLASS], data[_EI_DATA]) == (1, 1) and data[_E_MACHINE:_E_MACHINE_END] != b"\x03\0":
        wanted = "3 (i386) in a 32-bit file"
    elif data[_EI_CLASS] == 2 and data[_E_MACHINE:_E_MACHINE_END] == b"\x03\0":
        wanted = "62 (x86-64) or 183 (AArch64) in a 64-bit file"
    if data[_EI_DATA] != 1:
        offset, field, wanted = _EI_DATA, "ehdr.e_ident.data", "1 (little-endian)"
    if data[_EI_CLASS] not in _CLASSES:
        offset, field, wanted = _EI_CLASS, "ehdr.e_ident.class", "1 (32-bit) or 2 (64-bit)"
    message = f"this is an {describe(data)}, which is not supported; {field} must be {wanted}; {known}"
    return Problem("reader", message, offset, field)


def _unsupported_pe(data: bytes, known: str) -> Problem:
    start, kind = _pe_start(data), _pe_kind(data)
    if kind is not None:
        machine, _ = kind
        offset, field, wanted = start + 24, "opt.Magic", "0x20b (PE32+; 0x10b, PE32, on i386)"
        if machine not in {known_machine for known_machine, _ in _PE_FORMATS}:
            offset, field = start + 4, "coff.Machine"
            wanted = "0x8664 (x86-64), 0x14c (i386) or 0xaa64 (AArch64)"
        message = (
            f"this is a {describe(data)} file, which is not supported; {field} must be {wanted}; {known}"
        )
        return Problem("reader", message, offset, field)
    if start < 0:
        return Problem("reader", f"an MZ file that ends inside the DOS header; {known}", len(data), "dos")
    if start + _PE_BYTES > len(data):
        place = f"the PE header would be at e_lfanew, {start:#x}, and the file ends at byte {len(data)}"
        return Problem("reader", f"this is an MZ file: {place}; {known}", _E_LFANEW, "dos.e_lfanew")
    message = f"this is an MZ file, but {start:#x}, where e_lfanew points, is not 'PE' and two zeros; {known}"
    return Problem("reader", message, start, "coff.Signature")
