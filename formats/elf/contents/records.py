"""Layouts of the records that tables hold, as numpy types, and what may stand in them on each machine.

Sources: System V gABI chapter 4, the psABI supplements (relocation types: those that binutils' readelf and
LIEF know), binutils' include/elf/aarch64.h (STO_AARCH64_VARIANT_PCS).
"""

from __future__ import annotations

import numpy as np

from bytegen.formats.elf.target import AARCH64, I386, X86_64, Target

SYMBOL = {
    64: np.dtype(
        [
            ("name", "<u4"),
            ("info", "u1"),
            ("other", "u1"),
            ("shndx", "<u2"),
            ("value", "<u8"),
            ("size", "<u8"),
        ]
    ),
    32: np.dtype(
        [
            ("name", "<u4"),
            ("value", "<u4"),
            ("size", "<u4"),
            ("info", "u1"),
            ("other", "u1"),
            ("shndx", "<u2"),
        ]
    ),
}
SHT_DYNSYM = 11
STT_FUNC, STT_TLS, STT_GNU_IFUNC = 2, 6, 10
STB_LOCAL = 0
SYMBOL_TYPES = (0, 1, STT_FUNC, 3, 4, 5, STT_TLS, STT_GNU_IFUNC)
SYMBOL_BINDS = (STB_LOCAL, 1, 2, 10)  # local, global, weak, unique
SHN_ABS, SHN_COMMON = 0xFFF1, 0xFFF2

# The types of relocation of a machine, as ranges.
RELOCATION_TYPES: dict[str, tuple[tuple[int, int], ...]] = {
    X86_64.name: ((0, 42), (250, 251)),
    I386.name: ((0, 11), (14, 43), (250, 251)),
    AARCH64.name: (
        (0, 0),
        (256, 280),
        (282, 293),
        (299, 313),
        (512, 573),
        (1024, 1032),
    ),
}


def relocation(target: Target, rela: bool) -> np.dtype:
    """A relocation: offset, kind and symbol (both of r_info), and addend."""
    if target.bits == 64:
        fields = [("offset", "<u8"), ("kind", "<u4"), ("symbol", "<u4")]
        return np.dtype([*fields, ("addend", "<u8")] if rela else fields)
    # r_info holds the type in its low byte, the symbol in the three above.
    fields = [("offset", "<u4"), ("info", "<u4")]
    return np.dtype([*fields, ("addend", "<u4")] if rela else fields)


def split(target: Target, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The types and the symbols of relocations."""
    if target.bits == 64:
        return table["kind"], table["symbol"]
    return table["info"] & np.uint32(0xFF), table["info"] >> np.uint32(8)


def others(target: Target) -> int:
    """The bits that st_other may have: the visibility, and on AArch64 the variant calling convention."""
    return 0x83 if target.machine == AARCH64.machine else 3
