"""Names and numbers of the PE format (Microsoft's PE format specification) and the bounds judges set."""

from __future__ import annotations

DOS_SIZE = 64
COFF_SIZE = 24  # signature and file header
SECTION_SIZE = 40
SYMBOL_SIZE = 18
CERTIFICATE_HEAD = 8
DIRECTORIES = 16

# LIEF's check_layout: twice e_lfanew below SectionAlignment; headers end within the first page; 50 sections.
LFANEW_END = 2048
HEADERS_END = 4096
MAX_SECTIONS = 50
PAGE = 4096
LEAST_BLOCK = 512  # the smallest FileAlignment beside pages, and the sector to which loaders round
PAGES = tuple(1 << i for i in range(12, 22))  # values of SectionAlignment
BLOCKS = tuple(1 << i for i in range(9, 22))  # values of FileAlignment
# pefile calls sizes and addresses of sections above 256 MiB suspicious.
HIGHEST_IMAGE = 1 << 28

IMAGE_FILE_RELOCS_STRIPPED = 0x0001
IMAGE_FILE_EXECUTABLE_IMAGE = 0x0002
IMAGE_FILE_DLL = 0x2000
IMAGE_FILE_UP_SYSTEM_ONLY = 0x4000
FILE_CHARACTERISTICS = 0xFFBF  # all but the reserved bit

DYNAMIC_BASE = 0x0040
FORCE_INTEGRITY = 0x0080
NX_COMPAT = 0x0100
APPCONTAINER = 0x1000
DLL_CHARACTERISTICS = 0xFFF0  # 0x10 is Wine's own: prefer the native library

SUBSYSTEMS = (1, 2, 3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 16)
EFI_SUBSYSTEMS = (10, 11, 12, 13)
LOADED_SUBSYSTEMS = (1, 2, 3, *EFI_SUBSYSTEMS)  # native, windows, console

CNT_INITIALIZED_DATA = 0x00000040
MEM_EXECUTE = 0x20000000
MEM_READ = 0x40000000
MEM_WRITE = 0x80000000
# contents, link information, alignment, and how the memory may be used
SECTION_CHARACTERISTICS = 0xFEF002E8

CERTIFICATE_TABLE = 4
GLOBAL_POINTER = 8
DIRECTORY_NAMES = (
    "exports",
    "imports",
    "resources",
    "exceptions",
    "certificates",
    "relocs",
    "debug",
    "architecture",
    "global_pointer",
    "tls",
    "load_config",
    "bound_imports",
    "iat",
    "delay_imports",
    "clr",
    "reserved",
)
