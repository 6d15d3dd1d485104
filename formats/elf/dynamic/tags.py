"""The tags of the dynamic section that compilers' output has, and what their values are.

Sources: gABI chapter 5, the psABI supplements of the three machines, glibc elf/elf.h, binutils' readelf.c.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from bytegen.formats.elf.target import Target

NULL, NEEDED, PLTRELSZ, PLTGOT, HASH, STRTAB, SYMTAB, RELA = range(8)
RELASZ, RELAENT, STRSZ, SYMENT, INIT, FINI, SONAME, RPATH = range(8, 16)
SYMBOLIC, REL, RELSZ, RELENT, PLTREL, DEBUG, TEXTREL, JMPREL = range(16, 24)
BIND_NOW, INIT_ARRAY, FINI_ARRAY, INIT_ARRAYSZ, FINI_ARRAYSZ, RUNPATH, FLAGS = range(24, 31)
PREINIT_ARRAY, PREINIT_ARRAYSZ, RELRSZ, RELR, RELRENT = 32, 33, 35, 36, 37
GNU_HASH, TLSDESC_PLT, TLSDESC_GOT = 0x6FFFFEF5, 0x6FFFFEF6, 0x6FFFFEF7
VERSYM, RELACOUNT, RELCOUNT, FLAGS_1 = 0x6FFFFFF0, 0x6FFFFFF9, 0x6FFFFFFA, 0x6FFFFFFB
VERDEF, VERDEFNUM, VERNEED, VERNEEDNUM = 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
X86_64_PLT, X86_64_PLTSZ, X86_64_PLTENT = 0x70000000, 0x70000001, 0x70000003
AARCH64_BTI_PLT, AARCH64_PAC_PLT, AARCH64_VARIANT_PCS = 0x70000001, 0x70000003, 0x70000005

MOST_ENTRIES = 1000  # LIEF reads no more
FLAGS_KNOWN = 0x1F  # ORIGIN SYMBOLIC TEXTREL BIND_NOW STATIC_TLS
NODEFLIB = 0x800
FLAGS_1_KNOWN = 0x0FFFFFFF

PATHS = frozenset({SONAME, RPATH, RUNPATH})  # any string
NAMES = PATHS | {NEEDED}
CODE = frozenset({INIT, FINI})
POINTERS = frozenset({PLTGOT, TLSDESC_PLT, TLSDESC_GOT})
ZEROS = frozenset({SYMBOLIC, TEXTREL, DEBUG, BIND_NOW})
# The address of a table, and its size (or count), which comes after it.
SIZES = {
    STRTAB: STRSZ,
    RELA: RELASZ,
    REL: RELSZ,
    RELR: RELRSZ,
    INIT_ARRAY: INIT_ARRAYSZ,
    FINI_ARRAY: FINI_ARRAYSZ,
    PREINIT_ARRAY: PREINIT_ARRAYSZ,
    VERDEF: VERDEFNUM,
    VERNEED: VERNEEDNUM,
}
SIZED = {size: table for table, size in SIZES.items()}
ARRAYS = frozenset({INIT_ARRAY, FINI_ARRAY, PREINIT_ARRAY})
ENTRY_SIZES = frozenset({SYMENT, RELAENT, RELENT, RELRENT, PLTREL})
PLT = frozenset({JMPREL, PLTRELSZ, PLTREL})

# tag -> the tags that a loader asks for beside it
PARTNERS: dict[int, tuple[int, ...]] = {
    **{table: (size,) for table, size in SIZES.items()},
    SYMTAB: (SYMENT, STRTAB, STRSZ),
    RELA: (RELASZ, RELAENT),
    REL: (RELSZ, RELENT),
    RELR: (RELRSZ, RELRENT),
    JMPREL: (PLTRELSZ, PLTREL),
    PLTRELSZ: (JMPREL, PLTREL),
    PLTREL: (JMPREL, PLTRELSZ),
    HASH: (SYMTAB, SYMENT, STRTAB, STRSZ),
    GNU_HASH: (SYMTAB, SYMENT, STRTAB, STRSZ),
    **dict.fromkeys(NAMES, (STRTAB, STRSZ)),
}

# At level load: glibc reads the indices wherever versions are needed or defined (elf/dl-version.c).
_INDEXED = {VERDEF: (VERDEFNUM, VERSYM), VERNEED: (VERNEEDNUM, VERSYM)}


def partners(tag: int, strict: bool) -> tuple[int, ...]:
    """The tags that a loader asks for beside one; ``strict``: at level load."""
    return _INDEXED[tag] if strict and tag in _INDEXED else PARTNERS.get(tag, ())


LABELS = {
    value: name
    for name, value in tuple(globals().items())
    if isinstance(value, int) and name.isupper() and not name.startswith(("X86", "AARCH64", "MOST", "FLAGS_"))
    if name not in ("NODEFLIB",)
} | {FLAGS_1: "FLAGS_1"}


class Vocabulary(NamedTuple):
    """What a machine's dynamic sections may hold. ``fixed``: tags with one value; ``simple``: that need no table."""

    fixed: dict[int, int]
    pointers: frozenset[int]
    numbers: frozenset[int]
    relocations: int  # RELA or REL
    leading: int  # RELACOUNT or RELCOUNT


@lru_cache(maxsize=8)
def vocabulary(target: Target) -> Vocabulary:
    """The tags of a machine beside those that name tables."""
    fixed = dict.fromkeys(ZEROS, 0)
    fixed |= {SYMENT: target.sym_size, RELRENT: target.word, PLTREL: RELA if target.rela else REL}
    fixed[RELAENT if target.rela else RELENT] = target.rela_size if target.rela else target.rel_size
    pointers, numbers = POINTERS, frozenset[int]()
    if target.name == "elf64-x86_64":
        pointers, numbers = pointers | {X86_64_PLT}, frozenset({X86_64_PLTSZ, X86_64_PLTENT})
    elif target.name == "elf64-aarch64":
        fixed |= {AARCH64_BTI_PLT: 0, AARCH64_PAC_PLT: 0, AARCH64_VARIANT_PCS: 0}
    relocations, count = (RELA, RELACOUNT) if target.rela else (REL, RELCOUNT)
    return Vocabulary(fixed, pointers, numbers, relocations, count)


def least_entries(strict: bool) -> int:
    """How many entries a dynamic section has at least: one before DT_NULL, and at level load a string table."""
    return 3 if strict else 2


def label(target: Target, tag: int) -> str:
    """Name of a tag, for paths."""
    if tag >= X86_64_PLT and tag < 0x7FFFFFFF and tag not in LABELS:
        names = {
            "elf64-x86_64": {
                X86_64_PLT: "X86_64_PLT",
                X86_64_PLTSZ: "X86_64_PLTSZ",
                X86_64_PLTENT: "X86_64_PLTENT",
            },
            "elf64-aarch64": {
                AARCH64_BTI_PLT: "AARCH64_BTI_PLT",
                AARCH64_PAC_PLT: "AARCH64_PAC_PLT",
                AARCH64_VARIANT_PCS: "AARCH64_VARIANT_PCS",
            },
        }
        return names.get(target.name, {}).get(tag, hex(tag))
    return LABELS.get(tag, hex(tag))


_RULES = {
    NULL: "0",
    NEEDED: "the offset of a library's name in the string table",
    STRTAB: "the address of a table of strings that has the names",
    STRSZ: "a size at which the string table ends with a zero and has all names",
    SYMTAB: "the address of symbols, the first null, as many as the hash tables and relocations say",
    HASH: "the address of a hash table with as many symbols as there are",
    GNU_HASH: "the address of a GNU hash table with as many symbols as there are",
    VERSYM: "the address of a version index for each symbol, none above those defined",
    VERNEED: "the address of needed versions, of files that DT_NEEDED names",
    VERDEF: "the address of defined versions",
    FLAGS: "known flags",
    FLAGS_1: "known flags",
}


def rule(tag: int) -> str:
    """What the value of a tag may be, in words."""
    if tag in _RULES:
        return _RULES[tag]
    if tag in PATHS:
        return "the offset of a string in the string table"
    if tag in (RELA, REL, JMPREL, RELR):
        return "the address of relocations of known types and symbols that apply to mapped memory"
    if tag in SIZED or tag in (PLTRELSZ, RELACOUNT, RELCOUNT):
        return "as much as the table has"
    if tag in ENTRY_SIZES:
        return "the size of an entry, or the kind of relocation, of this machine"
    if tag in ARRAYS:
        return "the address of whole words in a segment"
    if tag in CODE:
        return "an address in an executable segment, at level code of an instruction"
    return "0" if tag in ZEROS else "an address in a segment"
