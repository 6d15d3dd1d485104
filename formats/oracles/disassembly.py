"""capstone as a judge: how much of a program's executable bytes decode, swept from the entry point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import capstone

from bytegen.formats.annotate.pe_areas import read_pe
from bytegen.formats.oracles.rawelf import read_raw_elf

_PT_LOAD, _PF_X = 1, 1
_ELF_MACHINES = {(64, 62): "x86-64", (32, 3): "i386", (64, 183): "aarch64"}
_MODES = {
    "x86-64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    "i386": (capstone.CS_ARCH_X86, capstone.CS_MODE_32),
    "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
}
SWEEP_BYTES = 262_144


class _Part(NamedTuple):
    """Executable bytes [start, end) of the file, which come to lie at `address`."""

    start: int
    end: int
    address: int


def sweep_code(data: bytes, sweep_bytes: int = SWEEP_BYTES) -> dict[str, object]:
    """Decodes linearly from the entry point to the end of the executable segment or section that holds it.

    After bytes that are no instruction the sweep goes on at the next place one may start (the next byte on
    x86, the next word on AArch64). At most `sweep_bytes` are swept. Returns, in bytes and addresses:
    "executable_bytes" (in the file, of all executable segments), "entry", "swept", "decoded",
    "decoded_share" (of those swept), "instructions", "first_undecodable" (an address or None). Without an
    executable segment around the entry point, or for a machine not known here, only the first two are there.
    Raises ValueError when `data` is neither a PE file nor a little-endian ELF file with a whole header.
    """
    machine, entry, parts = _parts(data)
    facts: dict[str, object] = {
        "executable_bytes": sum(part.end - part.start for part in parts),
        "entry": entry,
    }
    code = _code_from(data, parts, entry, sweep_bytes)
    if machine not in _MODES or not code:
        return facts
    decoded, instructions, first_bad = _sweep(capstone.Cs(*_MODES[machine]), code, entry)
    facts |= {
        "swept": len(code),
        "decoded": decoded,
        "decoded_share": round(decoded / len(code), 6),
        "instructions": instructions,
        "first_undecodable": first_bad,
    }
    return facts


def executable_parts(data: bytes) -> tuple[int, list[tuple[int, int, int]]]:
    """Entry address of a PE or ELF file, and its executable parts: (start, end) in the file, and address.

    Raises ValueError as `sweep_code` does.
    """
    _, entry, parts = _parts(data)
    return entry, [(part.start, part.end, part.address) for part in parts]


def _parts(data: bytes) -> tuple[str, int, list[_Part]]:
    return _pe_parts(data) if data[:2] == b"MZ" else _elf_parts(data)


def _elf_parts(data: bytes) -> tuple[str, int, list[_Part]]:
    """Machine, entry address, and the executable segments as far as the file holds them."""
    raw = read_raw_elf(data)
    parts = []
    for p in raw.phdrs:
        end = min(p["p_offset"] + p["p_filesz"], len(data))
        if p["p_type"] == _PT_LOAD and p["p_flags"] & _PF_X and p["p_offset"] < end:
            parts.append(_Part(p["p_offset"], end, p["p_vaddr"]))
    return _ELF_MACHINES.get((raw.bits, raw.ehdr["e_machine"]), ""), raw.ehdr["e_entry"], parts


def _pe_parts(data: bytes) -> tuple[str, int, list[_Part]]:
    """Machine, entry address, and the executable sections as far as the file holds them."""
    reading = read_pe(data)
    if reading.entry is None:
        raise ValueError("not a PE file with an optional header")
    areas = [area for area in reading.areas if area.kind == "code" and area.address is not None]
    return reading.machine, reading.entry, [_Part(a.start, a.end, a.address or 0) for a in areas]


def _code_from(data: bytes, parts: Sequence[_Part], entry: int, limit: int) -> bytes:
    """The bytes from the entry point to the end of its part, `limit` at most; empty if none holds it."""
    for part in parts:
        start = part.start + entry - part.address
        if part.start <= start < part.end:
            return data[start : min(part.end, start + limit)]
    return b""


def _sweep(machine: capstone.Cs, code: bytes, address: int) -> tuple[int, int, int | None]:
    """Bytes decoded, instructions, and the address of the first byte that is none (None if there is none)."""
    machine.skipdata = True  # what is no instruction comes as ".byte"
    decoded = instructions = 0
    first_bad: int | None = None
    for at, size, mnemonic, _ in machine.disasm_lite(code, address):
        if mnemonic != ".byte":
            decoded += size
            instructions += 1
        elif first_bad is None:
            first_bad = at
    return decoded, instructions, first_bad
