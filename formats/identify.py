"""Tells which format a file is in by its first bytes, or in words what it is when it is none of ours."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal

from bytegen.formats.report import Problem

_ELF_MAGIC = b"\x7fELF"
_ELF_FORMATS = {(2, 1, 62): "elf64-x86_64", (1, 1, 3): "elf32-i386", (2, 1, 183): "elf64-aarch64"}
_PE_FORMATS = {(0x8664, 0x20B): "pe32plus-x86_64", (0x14C, 0x10B): "pe32-i386"}
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
_MACHO_MAGICS = (b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe")


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


def _pe_kind(data: bytes) -> tuple[int, int] | None:
    """Machine and optional header magic of a PE file; None when it is none."""
    if len(data) < 64:
        return None
    (start,) = struct.unpack_from("<I", data, 60)
    if start + 26 > len(data) or data[start : start + 4] != b"PE\0\0":
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
        kind = _pe_kind(data)
        if kind is None:
            return "MZ file without a PE header"
        return f"{'PE32+' if kind[1] == 0x20B else 'PE32'} file for machine {kind[0]:#x}"
    if data[:4] in _MACHO_MAGICS:
        return "Mach-O file"
    if data[:2] == b"#!":
        return "script"
    return f"no executable (it begins with {data[:8].hex(' ')})"


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
    what, known = describe(data), ", ".join(available)
    if not data or (len(data) < _E_MACHINE_END and data[:4] == _ELF_MAGIC):
        where = "inside the ELF header" if data else "before it begins"
        return Problem(
            "reader", f"the file ends {where}; supported: {known}", len(data), "ehdr" if data else ""
        )
    if data[:4] != _ELF_MAGIC:
        wanted = _ELF_MAGIC.hex(" ")
        article = "" if what.startswith("no ") else "an " if what.startswith("MZ") else "a "
        return Problem(
            "reader", f"this is {article}{what}; an ELF file begins with {wanted}; supported: {known}", 0
        )
    offset, field = _E_MACHINE, "ehdr.e_machine"
    if data[_EI_DATA] != 1:
        offset, field = _EI_DATA, "ehdr.e_ident[EI_DATA]"
    if data[_EI_CLASS] not in _CLASSES:
        offset, field = _EI_CLASS, "ehdr.e_ident[EI_CLASS]"
    return Problem("reader", f"this is an {what}, which is not supported; supported: {known}", offset, field)
