"""The machines that ELF files are made for: class, record sizes, address space, and what loaders ask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, eq=False)
class Target:
    """One machine's ELF. Sizes in bytes; addresses are virtual.

    Sources: System V gABI ch. 4 and 5 (record sizes), Linux fs/binfmt_elf.c and arch/*/include/asm
    (address space, page size), the psABI supplements (relocation types, flags).
    """

    name: str
    machine: int  # e_machine
    bits: int  # 32 or 64
    page: int  # segments share no page of this size
    lowest: int  # mmap_min_addr of an unprivileged process
    highest: int  # below the stack, whatever its randomisation
    span: int  # bytes of address space that a position-independent file takes at most
    most_align: int  # the greatest p_align that a position-independent file may ask for
    rela: bool  # whether the dynamic loader takes DT_RELA (else DT_REL)
    highest_relocation: int  # greatest relocation type
    instructions: str  # name of the instruction set in `bytegen.formats.code`
    interpreters: tuple[bytes, ...]  # paths of the dynamic loaders

    @cached_property
    def word(self) -> int:
        """Size of an address."""
        return self.bits // 8

    @cached_property
    def elf_class(self) -> int:
        """EI_CLASS."""
        return self.bits // 32

    @cached_property
    def top(self) -> int:
        """The greatest integer of a word."""
        return (1 << self.bits) - 1

    @cached_property
    def ehdr_size(self) -> int:
        """Size of the ELF header."""
        return 52 if self.bits == 32 else 64

    @cached_property
    def phdr_size(self) -> int:
        """Size of a program header."""
        return 32 if self.bits == 32 else 56

    @cached_property
    def shdr_size(self) -> int:
        """Size of a section header."""
        return 40 if self.bits == 32 else 64

    @cached_property
    def sym_size(self) -> int:
        """Size of a symbol."""
        return 16 if self.bits == 32 else 24

    @cached_property
    def rel_size(self) -> int:
        """Size of a relocation without addend."""
        return 2 * self.word

    @cached_property
    def rela_size(self) -> int:
        """Size of a relocation with addend."""
        return 3 * self.word

    @cached_property
    def dyn_size(self) -> int:
        """Size of an entry of the dynamic section."""
        return 2 * self.word

    @cached_property
    def most_segments(self) -> int:
        """Program headers that fit the 4096 bytes to which old kernels capped the table."""
        return 4096 // self.phdr_size


X86_64 = Target(
    "elf64-x86_64", 62, 64, 4096, 0x10000, 0x7FF000000000, 1 << 31, 1 << 30, True, 42, "x86_64",
    (b"/lib64/ld-linux-x86-64.so.2", b"/lib/ld-musl-x86_64.so.1"),
)  # fmt: skip
I386 = Target(
    "elf32-i386", 3, 32, 4096, 0x10000, 0xB0000000, 1 << 29, 1 << 21, False, 43, "i386",
    (b"/lib/ld-linux.so.2", b"/lib/ld-musl-i386.so.1"),
)  # fmt: skip
AARCH64 = Target(
    "elf64-aarch64", 183, 64, 4096, 0x10000, 1 << 34, 1 << 31, 1 << 30, True, 1032, "aarch64",
    (b"/lib/ld-linux-aarch64.so.1", b"/lib/ld-musl-aarch64.so.1"),
)  # fmt: skip
TARGETS = {target.name: target for target in (X86_64, I386, AARCH64)}
