"""Section types, and what headers of each say.

Sources: gABI chapter 4, the psABI supplements, LLVM's ELF extensions; binutils' readelf.c and LIEF's
check_layout for what is asked of sh_link, sh_info and sh_entsize.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from bytegen.formats.core.intset import IntSet, anything, exactly
from bytegen.formats.core.pieces import Bits
from bytegen.formats.elf.target import AARCH64, X86_64, Target

NULL, PROGBITS, SYMTAB, STRTAB, RELA, HASH, DYNAMIC, NOTE = range(8)
NOBITS, REL, DYNSYM = 8, 9, 11
INIT_ARRAY, FINI_ARRAY, PREINIT_ARRAY, RELR = 14, 15, 16, 19
LLVM_ADDRSIG, LLVM_SYMPART, LLVM_PART_EHDR, LLVM_PART_PHDR = 0x6FFF4C03, 0x6FFF4C05, 0x6FFF4C06, 0x6FFF4C07
LLVM_BB_ADDR_MAP_V0, LLVM_CALL_GRAPH_PROFILE, LLVM_BB_ADDR_MAP = 0x6FFF4C08, 0x6FFF4C09, 0x6FFF4C0A
LLVM_OFFLOADING, LLVM_LTO = 0x6FFF4C0B, 0x6FFF4C0C
GNU_HASH, GNU_VERDEF, GNU_VERNEED, GNU_VERSYM = 0x6FFFFFF6, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
X86_64_UNWIND = 0x70000001

SYMBOLS = frozenset({SYMTAB, DYNSYM})
RELOCATIONS = frozenset({RELA, REL})
ARRAYS = frozenset({INIT_ARRAY, FINI_ARRAY, PREINIT_ARRAY})
LLVM = frozenset(
    {
        LLVM_ADDRSIG,
        LLVM_SYMPART,
        LLVM_PART_EHDR,
        LLVM_PART_PHDR,
        LLVM_BB_ADDR_MAP_V0,
        LLVM_CALL_GRAPH_PROFILE,
        LLVM_BB_ADDR_MAP,
        LLVM_OFFLOADING,
        LLVM_LTO,
    }
)
# What hash, version and need tables are called in the registry.
TABLES = {
    HASH: "hash",
    GNU_HASH: "gnu_hash",
    GNU_VERSYM: "versym",
    GNU_VERDEF: "verdef",
    GNU_VERNEED: "verneed",
}
NAMED = frozenset({GNU_VERDEF, GNU_VERNEED})  # sh_link is a string table, sh_info a count

# WRITE ALLOC EXECINSTR MERGE STRINGS INFO_LINK LINK_ORDER OS_NONCONFORMING GROUP TLS GNU_RETAIN EXCLUDE
_FLAGS = 0x7 | 0x10 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x200000 | 0x80000000
ALLOC, INFO_LINK, COMPRESSED = 0x2, 0x40, 0x800
_X86_64_LARGE, _AARCH64_PURECODE = 0x10000000, 0x20000000


class Kinds(NamedTuple):
    """The section types and sets of a machine."""

    plain: frozenset[int]  # nothing is asked before such a header is offered
    relocatable: frozenset[int]  # sh_info of a relocation section may index these
    flags: int  # known bits of sh_flags but SHF_COMPRESSED
    word: IntSet  # any word
    powers: IntSet  # 0 and the powers of two
    any_flags: IntSet
    unlinked: IntSet  # flags without SHF_INFO_LINK
    zero: IntSet

    @property
    def every(self) -> frozenset[int]:
        """All types."""
        return self.plain | {NOTE, DYNSYM, DYNAMIC, *TABLES}


@lru_cache(maxsize=8)
def kinds(target: Target) -> Kinds:
    """The section types and sets of a machine."""
    word = target.word
    own = frozenset({X86_64_UNWIND}) if target.machine == X86_64.machine else frozenset()
    # binutils' readelf complains of relocations for others.
    relocatable = frozenset({PROGBITS, NOTE, NOBITS}) | ARRAYS | own | LLVM
    plain = (relocatable - {NOTE}) | {NULL, SYMTAB, STRTAB, RELA, REL, RELR}
    flags = _FLAGS | (
        _X86_64_LARGE
        if target.machine == X86_64.machine
        else _AARCH64_PURECODE
        if target.machine == AARCH64.machine
        else 0
    )
    return Kinds(
        plain,
        relocatable,
        flags,
        anything(word),
        exactly(word, 0, *(1 << i for i in range(target.bits))),
        IntSet(word, Bits(flags)),
        IntSet(word, Bits(flags & ~INFO_LINK)),
        exactly(word, 0),
    )


def entry_size(kind: int, target: Target) -> int | None:
    """sh_entsize where tools ask for one; None where it may be 0 or any divisor of the size."""
    return {
        SYMTAB: target.sym_size,
        DYNSYM: target.sym_size,
        RELA: target.rela_size,
        REL: target.rel_size,
        RELR: target.word,
        DYNAMIC: target.dyn_size,
        GNU_VERSYM: 2,
    }.get(kind)
