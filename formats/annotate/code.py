"""Disassembly of an account's code areas with capstone."""

from __future__ import annotations

from collections.abc import Iterable

from bytegen.formats.annotate.account import Area, Instruction

MACHINES = ("x86-64", "i386", "aarch64")


def disassemble(data: bytes, areas: Iterable[Area], machine: str, most: int) -> list[Instruction]:
    """The instructions of every code area, swept from its first byte; at most `most` of them in all.

    Bytes that are no instruction come as ".byte". Empty for a machine that is not among `MACHINES`.
    """
    if machine not in MACHINES or most <= 0:
        return []
    import capstone

    mode = {
        "x86-64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
        "i386": (capstone.CS_ARCH_X86, capstone.CS_MODE_32),
        "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
    }[machine]
    engine = capstone.Cs(*mode)
    engine.skipdata = True
    found: list[Instruction] = []
    for area in areas:
        if area.kind != "code":
            continue
        # capstone takes whole regions; no instruction is longer than 15 bytes, and few are shorter than one.
        address = (area.address or 0) & (1 << 64) - 1
        code = data[area.start : min(area.end, area.start + 15 * (most - len(found)))]
        for at, size, mnemonic, operands in engine.disasm_lite(code, address):
            text = f"{mnemonic} {operands}".rstrip()
            found.append(Instruction(area.start + at - address, size, text))
            if len(found) >= most:
                return found
    return found
