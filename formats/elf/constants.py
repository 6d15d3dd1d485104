"""Numbers of the ELF64 format and of the systems that read it."""

from __future__ import annotations

EHDR_SIZE, PHDR_SIZE, SHDR_SIZE = 64, 56, 64
SYM_SIZE, RELA_SIZE = 24, 24
MAX64 = (1 << 64) - 1

MAX_PHNUM = 73  # old kernels capped the program header table at 4096 bytes
MAX_SHNUM = 0xFEFF  # indices from 0xff00 on are reserved
PAGE = 4096

LOWEST_ADDRESS = 0x10000  # mmap_min_addr of an unprivileged process
# The stack lies within 64 GiB below 0x7ffffffff000, whatever its randomisation.
HIGHEST_ADDRESS = 0x7FF000000000
HIGHEST_ENTRY = 0x7FE000000000  # leaves room above the entry for any file
BSS_TOTAL = 1 << 30  # larger zero-filled memory may fail for want of memory

ET_EXEC, ET_DYN = 2, 3
PT_NULL, PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE, PT_PHDR, PT_TLS = 0, 1, 2, 3, 4, 6, 7
PT_GNU_EH_FRAME, PT_GNU_STACK = 0x6474E550, 0x6474E551
PT_GNU_RELRO, PT_GNU_PROPERTY = 0x6474E552, 0x6474E553
PF_X, PF_W = 1, 2

SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA = 0, 1, 2, 3, 4
SHT_NOTE, SHT_NOBITS = 7, 8
SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY = 14, 15, 16
SHT_X86_64_UNWIND = 0x70000001
ARRAYS = frozenset({SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY})
# What sh_info of a relocation section may index (binutils' readelf complains of others).
RELOCATABLE = frozenset({SHT_PROGBITS, SHT_NOTE, SHT_NOBITS, SHT_X86_64_UNWIND}) | ARRAYS
SECTION_TYPES = RELOCATABLE | {SHT_NULL, SHT_SYMTAB, SHT_STRTAB, SHT_RELA}

SHF_INFO_LINK = 0x40
# WRITE ALLOC EXECINSTR MERGE STRINGS INFO_LINK LINK_ORDER OS_NONCONFORMING GROUP TLS COMPRESSED
# GNU_RETAIN X86_64_LARGE EXCLUDE
SHF_KNOWN = (
    0x7 | 0x10 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800 | 0x200000 | 0x10000000 | 0x80000000
)

STT_TLS = 6
SYMBOL_TYPES = (0, 1, 2, 3, 4, 5, 6, 10)
SYMBOL_BINDS = (0, 1, 2, 10)
SHN_ABS, SHN_COMMON = 0xFFF1, 0xFFF2
HIGHEST_RELOCATION = 42  # R_X86_64_REX_GOTPCRELX
