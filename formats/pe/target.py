"""The machines that PE files are made for: magic, record sizes, address space."""

from __future__ import annotations

from typing import NamedTuple


class Target(NamedTuple):
    """One machine's PE. Sizes in bytes; addresses are virtual.

    Sources: Microsoft's PE format specification (machine types, magic, record sizes), Windows' user address
    spaces, LIEF's check_layout (what machines other than x86 must set).
    """

    name: str
    machine: int  # COFF Machine
    plus: bool  # PE32+: 64-bit addresses
    highest: int  # images lie below, in a user process
    # Where no process has anything else: programs lie there, since one without relocations must have its
    # place; so do libraries that cannot be relocated, clear of the program (at 0x400000 or 0x140000000).
    programs: tuple[tuple[int, int], ...]
    fixed_libraries: tuple[tuple[int, int], ...]
    legacy: bool  # x86: may do without DYNAMIC_BASE and NX_COMPAT
    instructions: str  # name of the instruction set in `bytegen.formats.code`

    @property
    def word(self) -> int:
        """Size of an address."""
        return 8 if self.plus else 4

    @property
    def instruction_size(self) -> int:
        """Every instruction has at least this size, and is aligned to it."""
        return 1 if self.legacy else 4

    @property
    def magic(self) -> int:
        """Magic of the optional header."""
        return 0x20B if self.plus else 0x10B

    @property
    def optional_size(self) -> int:
        """Size of the optional header with its 16 directories."""
        return 240 if self.plus else 224


_PROGRAMS = ((0x10000, 0x60000000), (0x100000000, 0x500000000000))
_LIBRARIES = ((0x180000000, 0x500000000000),)
X86_64 = Target("pe32plus-x86_64", 0x8664, True, 0x7FFF00000000, _PROGRAMS, _LIBRARIES, True, "x86_64")
I386 = Target(
    "pe32-i386", 0x14C, False, 0x7FFF0000, ((0x10000, 0x70000000),), ((0x10000000, 0x70000000),), True, "i386"
)
AARCH64 = Target("pe32plus-aarch64", 0xAA64, True, 0x7FFF00000000, _PROGRAMS, _LIBRARIES, False, "aarch64")
TARGETS = {target.name: target for target in (X86_64, I386, AARCH64)}
