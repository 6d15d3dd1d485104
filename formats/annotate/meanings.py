"""Words for numbers in headers: types, tags, flags."""

from __future__ import annotations

SEGMENT_TYPES = {
    0: "PT_NULL", 1: "PT_LOAD", 2: "PT_DYNAMIC", 3: "PT_INTERP", 4: "PT_NOTE", 5: "PT_SHLIB", 6: "PT_PHDR",
    7: "PT_TLS", 0x6474E550: "PT_GNU_EH_FRAME", 0x6474E551: "PT_GNU_STACK", 0x6474E552: "PT_GNU_RELRO",
    0x6474E553: "PT_GNU_PROPERTY",
}  # fmt: skip
SECTION_TYPES = {
    0: "SHT_NULL", 1: "SHT_PROGBITS", 2: "SHT_SYMTAB", 3: "SHT_STRTAB", 4: "SHT_RELA", 5: "SHT_HASH",
    6: "SHT_DYNAMIC", 7: "SHT_NOTE", 8: "SHT_NOBITS", 9: "SHT_REL", 10: "SHT_SHLIB", 11: "SHT_DYNSYM",
    14: "SHT_INIT_ARRAY", 15: "SHT_FINI_ARRAY", 16: "SHT_PREINIT_ARRAY", 17: "SHT_GROUP",
    18: "SHT_SYMTAB_SHNDX", 19: "SHT_RELR", 0x6FFFFFF5: "SHT_GNU_ATTRIBUTES", 0x6FFFFFF6: "SHT_GNU_HASH",
    0x6FFFFFFD: "SHT_GNU_verdef", 0x6FFFFFFE: "SHT_GNU_verneed", 0x6FFFFFFF: "SHT_GNU_versym",
    0x70000001: "SHT_X86_64_UNWIND",
}  # fmt: skip
_DYNAMIC_NAMES = (
    "NULL", "NEEDED", "PLTRELSZ", "PLTGOT", "HASH", "STRTAB", "SYMTAB", "RELA", "RELASZ", "RELAENT",
    "STRSZ", "SYMENT", "INIT", "FINI", "SONAME", "RPATH", "SYMBOLIC", "REL", "RELSZ", "RELENT", "PLTREL",
    "DEBUG", "TEXTREL", "JMPREL", "BIND_NOW", "INIT_ARRAY", "FINI_ARRAY", "INIT_ARRAYSZ", "FINI_ARRAYSZ",
    "RUNPATH", "FLAGS", "ENCODING", "PREINIT_ARRAY", "PREINIT_ARRAYSZ", "SYMTAB_SHNDX", "RELRSZ", "RELR",
    "RELRENT",
)  # fmt: skip
DYNAMIC_TAGS = {i: f"DT_{name}" for i, name in enumerate(_DYNAMIC_NAMES)} | {
    0x6FFFFEF5: "DT_GNU_HASH", 0x6FFFFFF0: "DT_VERSYM", 0x6FFFFFF9: "DT_RELACOUNT", 0x6FFFFFFA: "DT_RELCOUNT",
    0x6FFFFFFB: "DT_FLAGS_1", 0x6FFFFFFC: "DT_VERDEF", 0x6FFFFFFD: "DT_VERDEFNUM", 0x6FFFFFFE: "DT_VERNEED",
    0x6FFFFFFF: "DT_VERNEEDNUM",
}  # fmt: skip
_MACHINES = {2: "SPARC", 3: "i386", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 22: "S/390", 40: "ARM", 62: "x86-64",
             183: "AArch64", 243: "RISC-V", 247: "BPF", 258: "LoongArch"}  # fmt: skip
_ELF_TYPES = {0: "ET_NONE", 1: "ET_REL", 2: "ET_EXEC", 3: "ET_DYN", 4: "ET_CORE"}
PE_MACHINES = {
    0x14C: "i386", 0x8664: "x86-64", 0xAA64: "AArch64", 0x1C0: "ARM", 0x1C4: "ARM Thumb-2", 0x200: "IA-64",
    0xEBC: "EFI byte code", 0x5064: "RISC-V 64",
}  # fmt: skip
SUBSYSTEMS = {
    1: "native", 2: "Windows GUI", 3: "Windows console", 5: "OS/2 console", 7: "POSIX console", 9: "Windows CE",
    10: "EFI application", 11: "EFI boot service driver", 12: "EFI runtime driver", 13: "EFI ROM", 14: "Xbox",
    16: "Windows boot application",
}  # fmt: skip
_BINDS = {0: "local", 1: "global", 2: "weak", 10: "unique"}
_SYMBOL_TYPES = {
    0: "untyped",
    1: "object",
    2: "function",
    3: "section",
    4: "file",
    5: "common",
    6: "TLS",
    10: "ifunc",
}
_SEGMENT_FLAGS = {4: "read", 2: "write", 1: "execute"}
_SECTION_FLAGS = {
    1: "write", 2: "alloc", 4: "exec", 0x10: "merge", 0x20: "strings", 0x40: "info link", 0x80: "link order",
    0x200: "group", 0x400: "TLS", 0x800: "compressed", 0x200000: "retain",
}  # fmt: skip
_PE_SECTION_FLAGS = {
    0x20: "code", 0x40: "initialized data", 0x80: "uninitialized data", 0x02000000: "discardable",
    0x20000000: "execute", 0x40000000: "read", 0x80000000: "write",
}  # fmt: skip
_FILE_FLAGS = {
    1: "relocations stripped", 2: "executable", 4: "line numbers stripped", 8: "symbols stripped",
    0x20: "large address aware", 0x100: "32-bit", 0x200: "debug stripped", 0x2000: "DLL",
}  # fmt: skip
_DLL_FLAGS = {
    0x20: "high-entropy addresses", 0x40: "dynamic base", 0x80: "integrity", 0x100: "no-execute compatible",
    0x200: "no isolation", 0x400: "no SEH", 0x800: "no bind", 0x1000: "app container", 0x4000: "control flow guard",
    0x8000: "terminal server aware",
}  # fmt: skip


def flags_text(value: int, names: dict[int, str]) -> str:
    """The names of the bits that are set; what has no name as a number."""
    words = [name for bit, name in names.items() if value & bit]
    rest = value & ~sum(names)
    return ", ".join([*words, *([f"{rest:#x}"] if rest else [])])


_ENUMS = {
    "p_type": SEGMENT_TYPES, "sh_type": SECTION_TYPES, "e_type": _ELF_TYPES, "e_machine": _MACHINES,
    "d_tag": DYNAMIC_TAGS, "Machine": PE_MACHINES, "Subsystem": SUBSYSTEMS,
    "Magic": {0x10B: "PE32", 0x20B: "PE32+"}, "e_ident.class": {1: "32-bit", 2: "64-bit"},
    "e_ident.data": {1: "little-endian", 2: "big-endian"},
}  # fmt: skip
_FLAGS = {
    "p_flags": _SEGMENT_FLAGS, "sh_flags": _SECTION_FLAGS, "DllCharacteristics": _DLL_FLAGS,
}  # fmt: skip


def meaning(path: str, value: int) -> str:
    """What the value of a field stands for, in a few words; empty where there is nothing to say."""
    parts = path.rsplit(".", 2)
    leaf = parts[-1]
    names = _ENUMS.get(leaf) or _ENUMS.get(".".join(parts[-2:]))
    if names is not None:
        return names.get(value, "")
    if leaf in _FLAGS:
        return flags_text(value, _FLAGS[leaf])
    if leaf == "Characteristics":
        section = "section" in path.lower()
        return flags_text(value, _PE_SECTION_FLAGS if section else _FILE_FLAGS) if value else ""
    if leaf == "st_info":
        bind, kind = value >> 4, value & 15
        return f"{_BINDS.get(bind, f'bind {bind}')} {_SYMBOL_TYPES.get(kind, f'type {kind}')}"
    return ""
