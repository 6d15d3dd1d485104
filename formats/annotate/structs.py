"""The records of ELF and PE files as tables of (field, bytes): what the tolerant reader knows.

Sources: System V gABI chapters 4 and 5, gabi's SHT_GNU extensions, Microsoft's "PE Format".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from bytegen.formats.annotate.account import Span

Order = Literal["little", "big"]
Layout = tuple[tuple[str, int], ...]


def layout(text: str) -> Layout:
    """The table that "name:bytes name:bytes ..." describes."""
    return tuple((name, int(size)) for name, _, size in (item.partition(":") for item in text.split()))


def size_of(fields: Layout) -> int:
    """Bytes of a record."""
    return sum(size for _, size in fields)


_IDENT = (
    "e_ident.magic:4 e_ident.class:1 e_ident.data:1 e_ident.version:1 e_ident.osabi:1 e_ident.abiversion:1 "
)
_EHDR = _IDENT + (
    "e_ident.pad:7 e_type:2 e_machine:2 e_version:4 e_entry:{n} e_phoff:{n} e_shoff:{n} e_flags:4 "
    "e_ehsize:2 e_phentsize:2 e_phnum:2 e_shentsize:2 e_shnum:2 e_shstrndx:2"
)
_SHDR = (
    "sh_name:4 sh_type:4 sh_flags:{n} sh_addr:{n} sh_offset:{n} sh_size:{n} sh_link:4 sh_info:4 "
    "sh_addralign:{n} sh_entsize:{n}"
)
_WIDE = {
    "ehdr": _EHDR,
    "shdr": _SHDR,
    "dyn": "d_tag:{n} d_val:{n}",
    "rel": "r_offset:{n} r_info:{n}",
    "rela": "r_offset:{n} r_info:{n} r_addend:{n}",
    "pointer": "address:{n}",
}
ELF: dict[int, dict[str, Layout]] = {
    bits: {name: layout(text.format(n=bits // 8)) for name, text in _WIDE.items()} for bits in (32, 64)
}
ELF[32] |= {
    "phdr": layout("p_type:4 p_offset:4 p_vaddr:4 p_paddr:4 p_filesz:4 p_memsz:4 p_flags:4 p_align:4"),
    "sym": layout("st_name:4 st_value:4 st_size:4 st_info:1 st_other:1 st_shndx:2"),
}
ELF[64] |= {
    "phdr": layout("p_type:4 p_flags:4 p_offset:8 p_vaddr:8 p_paddr:8 p_filesz:8 p_memsz:8 p_align:8"),
    "sym": layout("st_name:4 st_info:1 st_other:1 st_shndx:2 st_value:8 st_size:8"),
}
WORD, HALF = layout("word:4"), layout("version:2")

DOS = layout(
    "e_magic:2 e_cblp:2 e_cp:2 e_crlc:2 e_cparhdr:2 e_minalloc:2 e_maxalloc:2 e_ss:2 e_sp:2 e_csum:2 e_ip:2 "
    "e_cs:2 e_lfarlc:2 e_ovno:2 e_res:8 e_oemid:2 e_oeminfo:2 e_res2:20 e_lfanew:4"
)
COFF = layout(
    "Signature:4 Machine:2 NumberOfSections:2 TimeDateStamp:4 PointerToSymbolTable:4 NumberOfSymbols:4 "
    "SizeOfOptionalHeader:2 Characteristics:2"
)
_OPTIONAL = (
    "Magic:2 MajorLinkerVersion:1 MinorLinkerVersion:1 SizeOfCode:4 SizeOfInitializedData:4 "
    "SizeOfUninitializedData:4 AddressOfEntryPoint:4 BaseOfCode:4 {base} SectionAlignment:4 FileAlignment:4 "
    "MajorOperatingSystemVersion:2 MinorOperatingSystemVersion:2 MajorImageVersion:2 MinorImageVersion:2 "
    "MajorSubsystemVersion:2 MinorSubsystemVersion:2 Win32VersionValue:4 SizeOfImage:4 SizeOfHeaders:4 "
    "CheckSum:4 Subsystem:2 DllCharacteristics:2 SizeOfStackReserve:{n} SizeOfStackCommit:{n} "
    "SizeOfHeapReserve:{n} SizeOfHeapCommit:{n} LoaderFlags:4 NumberOfRvaAndSizes:4"
)
OPTIONAL = {
    0x10B: layout(_OPTIONAL.format(base="BaseOfData:4 ImageBase:4", n=4)),
    0x20B: layout(_OPTIONAL.format(base="ImageBase:8", n=8)),
}
DIRECTORY = layout("VirtualAddress:4 Size:4")
SECTION = layout(
    "Name:8 VirtualSize:4 VirtualAddress:4 SizeOfRawData:4 PointerToRawData:4 PointerToRelocations:4 "
    "PointerToLinenumbers:4 NumberOfRelocations:2 NumberOfLinenumbers:2 Characteristics:4"
)
IMPORT = layout("OriginalFirstThunk:4 TimeDateStamp:4 ForwarderChain:4 Name:4 FirstThunk:4")
EXPORT = layout(
    "Characteristics:4 TimeDateStamp:4 MajorVersion:2 MinorVersion:2 Name:4 Base:4 NumberOfFunctions:4 "
    "NumberOfNames:4 AddressOfFunctions:4 AddressOfNames:4 AddressOfNameOrdinals:4"
)
FUNCTION = layout("BeginAddress:4 EndAddress:4 UnwindInfoAddress:4")
DEBUG = layout(
    "Characteristics:4 TimeDateStamp:4 MajorVersion:2 MinorVersion:2 Type:4 SizeOfData:4 AddressOfRawData:4 "
    "PointerToRawData:4"
)
DIRECTORY_NAMES = (
    "Export", "Import", "Resource", "Exception", "Certificate", "BaseReloc", "Debug", "Architecture",
    "GlobalPtr", "TLS", "LoadConfig", "BoundImport", "IAT", "DelayImport", "CLR", "Reserved",
)  # fmt: skip


class Table(NamedTuple):
    """`number` records of one layout from offset `start`; `name` is their path's first part, `[i]` is added
    where `indexed`. `limit` is where the file, or the area, ends: records are cut there.
    """

    start: int
    number: int
    fields: Layout
    name: str
    limit: int
    indexed: bool = True


def unpack(data: bytes, start: int, fields: Layout, order: Order) -> dict[str, int]:
    """One record's fields by name; those past the end of the data are 0."""
    values = {}
    for name, size in fields:
        values[name] = int.from_bytes(data[start : start + size], order)
        start += size
    return values


def read_table(data: bytes, table: Table, order: Order, detail: str) -> Iterator[Span]:
    """The fields of every record, or one span a record where `detail` is "records"; a cut record comes last.

    With `detail` "table" there is one span for all.
    """
    size = size_of(table.fields)
    limit = min(table.limit, len(data))
    if detail == "table":
        stop = min(table.start + size * table.number, limit)
        if stop > table.start:
            yield Span(table.start, stop, f"{table.name}[0..{table.number - 1}]", None, "", 0, "reader")
        return
    for i in range(table.number):
        at = table.start + i * size
        if at >= limit:
            return
        path = f"{table.name}[{i}]" if table.indexed else table.name
        if detail == "records":
            yield Span(at, min(at + size, limit), path, None, "", 0, "reader")
            continue
        for name, width in table.fields:
            if at >= limit:
                return
            end = min(at + width, limit)
            value = int.from_bytes(data[at:end], order) if end - at == width <= 8 else None
            yield Span(at, end, f"{path}.{name}", value, "", 0, "reader")
            at = end
