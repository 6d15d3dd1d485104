"""Reads what the Linux kernel reads of an ELF64 file, and refuses what it refuses (fs/binfmt_elf.c, Linux
6.x).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bytegen.errors import UserError
from bytegen.sandbox.memory import MMAP_MIN_ADDR, PAGE, TASK_SIZE, page_down, page_up

EHDR_SIZE = 64
PHDR_SIZE = 56
ET_EXEC, ET_DYN = 2, 3
EM_X86_64 = 62
PT_LOAD, PT_INTERP, PT_PHDR, PT_GNU_STACK = 1, 3, 6, 0x6474E551
PF_X, PF_W, PF_R = 1, 2, 4
DYN_BASE = 0x5555_5555_4000  # where Linux puts position-independent programs without randomisation
MACHINES = {3: "i386", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 40: "ARM", 183: "AArch64", 243: "RISC-V"}


@dataclass(frozen=True)
class Segment:
    """One PT_LOAD: addresses are already moved by the bias of position-independent programs."""

    offset: int
    vaddr: int
    filesz: int
    memsz: int
    flags: int

    @property
    def prot(self) -> int:
        """PROT_* bits of its PF_* bits."""
        return (self.flags & PF_R) >> 2 | self.flags & PF_W | (self.flags & PF_X) << 2


@dataclass(frozen=True)
class Image:
    """A program ready to be mapped."""

    data: bytes
    segments: tuple[Segment, ...]
    entry: int
    phdr: int
    phnum: int
    executable_stack: bool


def read_elf(data: bytes) -> Image:
    """Check and read a static ELF64 x86-64 program.

    Raises UserError with one line that says what the kernel would refuse, where, and what would be right.
    """
    if data[:4] != b"\x7fELF":
        raise UserError(f"not an ELF file: it starts with {data[:4].hex(' ') or 'nothing'}, not 7f 45 4c 46")
    if len(data) < EHDR_SIZE:
        raise UserError(f"truncated ELF file: {len(data)} bytes, and the header alone takes {EHDR_SIZE}")
    if data[4] == 1:
        raise UserError("ELF32 program (EI_CLASS at offset 4 is 1): the sandbox runs ELF64 for x86-64")
    e_type, e_machine, _, e_entry, e_phoff = struct.unpack_from("<HHIQQ", data, 16)
    e_phentsize, e_phnum = struct.unpack_from("<HH", data, 54)
    if e_machine != EM_X86_64:
        name = MACHINES.get(e_machine, "unknown")
        raise UserError(
            f"e_machine at offset 18 is {e_machine} ({name}): the sandbox runs x86-64 ({EM_X86_64})"
        )
    if e_type not in (ET_EXEC, ET_DYN):
        raise UserError(f"e_type at offset 16 is {e_type}: a program has 2 (EXEC) or 3 (DYN)")
    if e_phentsize != PHDR_SIZE:
        raise UserError(f"e_phentsize at offset 54 is {e_phentsize}: ELF64 has {PHDR_SIZE}")
    if not 0 < e_phnum <= 65536 // PHDR_SIZE:
        raise UserError(
            f"e_phnum at offset 56 is {e_phnum}: a program has 1 to {65536 // PHDR_SIZE} program headers"
        )
    if e_phoff + e_phnum * PHDR_SIZE > len(data):
        raise UserError(
            f"truncated ELF file: {e_phnum} program headers at {e_phoff} do not fit in {len(data)} bytes"
        )
    headers = list(struct.iter_unpack("<IIQQQQQQ", data[e_phoff : e_phoff + e_phnum * PHDR_SIZE]))
    for index, header in enumerate(headers):
        if header[0] == PT_INTERP:
            raise UserError(
                f"dynamically linked (program header {index} is PT_INTERP): the sandbox runs static programs"
            )
    stack_flags = [header[1] for header in headers if header[0] == PT_GNU_STACK]
    bias = _bias(headers) if e_type == ET_DYN else 0
    segments = tuple(
        _segment(index, header, bias) for index, header in enumerate(headers) if header[0] == PT_LOAD
    )
    if not segments and e_type == ET_DYN:
        raise UserError("no program header is PT_LOAD: a position-independent program needs one")
    entry = (e_entry + bias) & (1 << 64) - 1
    if entry >= TASK_SIZE:
        raise UserError(f"e_entry at offset 24 is {e_entry:#x}: it lies above the program's address space")
    phdr = next(
        (s.vaddr + e_phoff - s.offset for s in segments if s.offset <= e_phoff < s.offset + s.filesz), 0
    )
    phdr = next((header[3] + bias & (1 << 64) - 1 for header in headers if header[0] == PT_PHDR), phdr)
    return Image(bytes(data), segments, entry, phdr, e_phnum, bool(stack_flags and stack_flags[-1] & PF_X))


def _bias(headers: list[tuple[int, ...]]) -> int:
    """What is added to the addresses of a position-independent program: its first page goes to DYN_BASE."""
    starts = [page_down(header[3]) for header in headers if header[0] == PT_LOAD]
    return DYN_BASE - min(starts) if starts else DYN_BASE


def _segment(index: int, header: tuple[int, ...], bias: int) -> Segment:
    _, flags, offset, vaddr, _, filesz, memsz, _ = header
    where = f"program header {index} (PT_LOAD)"
    vaddr += bias
    if filesz > memsz:
        raise UserError(f"{where}: p_filesz {filesz:#x} is larger than p_memsz {memsz:#x}")
    if vaddr >= TASK_SIZE or memsz > TASK_SIZE - vaddr or page_up(vaddr + memsz) > TASK_SIZE:
        raise UserError(
            f"{where}: p_vaddr {vaddr:#x} with p_memsz {memsz:#x} leaves the address space of {TASK_SIZE:#x}"
        )
    if memsz and page_down(vaddr) < MMAP_MIN_ADDR:
        raise UserError(
            f"{where}: p_vaddr {vaddr:#x} is below {MMAP_MIN_ADDR:#x}, the lowest address Linux maps"
        )
    if filesz:
        if (offset - vaddr) % PAGE:
            raise UserError(f"{where}: p_offset {offset:#x} and p_vaddr {vaddr:#x} differ modulo {PAGE}")
        if offset + filesz >= 1 << 63:
            raise UserError(f"{where}: p_offset {offset:#x} with p_filesz {filesz:#x} overflows")
    return Segment(offset, vaddr, filesz, memsz, flags)
