"""capstone as a judge: how much of a program's executable bytes decode, swept from the entry point."""

from __future__ import annotations

import capstone

from bytegen.formats.oracles.rawelf import RawElf, read_raw_elf

_PT_LOAD, _PF_X = 1, 1
_MODES = {
    (64, 62): (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    (32, 3): (capstone.CS_ARCH_X86, capstone.CS_MODE_32),
    (64, 183): (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
}
SWEEP_BYTES = 262_144


def sweep_code(data: bytes, sweep_bytes: int = SWEEP_BYTES) -> dict[str, object]:
    """Decodes linearly from the entry point to the end of the executable segment that holds it.

    After bytes that are no instruction the sweep goes on at the next place one may start (the next byte on
    x86, the next word on AArch64). At most `sweep_bytes` are swept. Returns, in bytes and addresses:
    "executable_bytes" (in the file, of all executable segments), "entry", "swept", "decoded",
    "decoded_share" (of those swept), "instructions", "first_undecodable" (an address or None). Without an
    executable segment around the entry point, or for a machine not known here, only the first two are there.
    Raises ValueError when `data` is no little-endian ELF file with a whole header.
    """
    raw = read_raw_elf(data)
    segments = [p for p in raw.phdrs if p["p_type"] == _PT_LOAD and p["p_flags"] & _PF_X]
    in_file = [max(0, min(p["p_filesz"], len(data) - p["p_offset"])) for p in segments]
    entry = raw.ehdr["e_entry"]
    facts: dict[str, object] = {"executable_bytes": sum(in_file), "entry": entry}
    mode = _MODES.get((raw.bits, raw.ehdr["e_machine"]))
    code = _code_from(data, raw, entry, sweep_bytes)
    if mode is None or not code:
        return facts
    decoded, instructions, first_bad = _sweep(capstone.Cs(*mode), code, entry)
    facts |= {
        "swept": len(code),
        "decoded": decoded,
        "decoded_share": round(decoded / len(code), 6),
        "instructions": instructions,
        "first_undecodable": first_bad,
    }
    return facts


def _code_from(data: bytes, raw: RawElf, entry: int, limit: int) -> bytes:
    """The bytes from the entry point to the end of its executable segment, `limit` at most; empty if none."""
    for p in raw.phdrs:
        at = entry - p["p_vaddr"]
        if p["p_type"] == _PT_LOAD and p["p_flags"] & _PF_X and 0 <= at < p["p_filesz"]:
            start = p["p_offset"] + at
            return data[start : min(p["p_offset"] + p["p_filesz"], start + limit)]
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
