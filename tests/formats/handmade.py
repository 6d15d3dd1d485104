"""The smallest executable, made by hand, and changed copies of it."""

from __future__ import annotations

import struct

from bytegen.formats.oracles.rawelf import EHDR, EHDR_NAMES, PHDR, PHDR_NAMES

BASE = 0x400000
CODE_OFFSET = 0x78
EXIT_0 = bytes.fromhex("31ff b83c000000 0f05")


def minimal_elf(code: bytes = EXIT_0) -> bytes:
    """ELF header, one PT_LOAD over the whole file, the code: what the packaged corpus's files look like."""
    size = CODE_OFFSET + len(code)
    ehdr = EHDR[64].pack(2, 62, 1, BASE + CODE_OFFSET, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    phdr = PHDR[64].pack(1, 5, 0, BASE, BASE, size, size, 4096)
    return b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + ehdr + phdr + code


def patched(data: bytes, **fields: int) -> bytes:
    """A copy with fields of the ELF header (e_*) or of the first program header (p_*) overwritten."""
    copy = bytearray(data)
    ehdr = dict(zip(EHDR_NAMES, EHDR[64].unpack_from(data, 16), strict=True))
    phdr = dict(zip(PHDR_NAMES[64], PHDR[64].unpack_from(data, 64), strict=True))
    for name, value in fields.items():
        (ehdr if name in ehdr else phdr)[name] = value
    EHDR[64].pack_into(copy, 16, *ehdr.values())
    PHDR[64].pack_into(copy, 64, *phdr.values())
    return bytes(copy)


def creates_file(path: str) -> bytes:
    """A program whose first act is to create a file: mov edi, path; mov esi, 0600; creat; exit."""
    head = b"\xbf%s\xbe\x80\x01\x00\x00\xb8\x55\x00\x00\x00\x0f\x05" + EXIT_0
    address = BASE + CODE_OFFSET + len(head) + 2
    return minimal_elf(head.replace(b"%s", struct.pack("<I", address)) + path.encode() + b"\0")
