"""Small executables with section headers, made by hand, for each machine."""

from __future__ import annotations

import struct
from typing import NamedTuple

from bytegen.formats.elf.target import Target
from bytegen.formats.oracles.rawelf import EHDR, PHDR, SHDR

BASE = 0x400000


class Part(NamedTuple):
    """One section and what it holds."""

    name: bytes
    kind: int
    content: bytes = b""
    link: int = 0
    info: int = 0
    flags: int = 0
    entsize: int = 0
    align: int = 1


def sectioned_elf(target: Target, *parts: Part) -> bytes:
    """One PT_LOAD over the whole file, the parts' contents, the names, the section headers.

    Section 0 is the null one; the parts follow from 1 on; the last section is the name table.
    """
    body, headers = b"", [bytes(target.shdr_size)]
    start = target.ehdr_size + target.phdr_size
    names = b"\0" + b"".join(part.name + b"\0" for part in parts) + b".shstrtab\0"
    all_parts = [*parts, Part(b".shstrtab", 3, names)]
    name = 1
    for part in all_parts:
        body += bytes(-(start + len(body)) % 8)
        offset = start + len(body)
        headers.append(
            SHDR[target.bits].pack(
                name, part.kind, part.flags, 0, offset, len(part.content), part.link, part.info, part.align,
                part.entsize,
            )
        )  # fmt: skip
        body += part.content
        name += len(part.name) + 1
    body += bytes(-(start + len(body)) % 8)
    shoff = start + len(body)
    size = shoff + sum(map(len, headers))
    ident = b"\x7fELF" + bytes([target.elf_class, 1, 1])
    ehdr = EHDR[target.bits].pack(
        2, target.machine, 1, BASE + start, target.ehdr_size, shoff, 0, target.ehdr_size, target.phdr_size, 1,
        target.shdr_size, len(headers), len(headers) - 1,
    )  # fmt: skip
    page = target.page
    phdr = (
        (1, 0, BASE, BASE, size, size, 5, page)
        if target.bits == 32
        else (1, 5, 0, BASE, BASE, size, size, page)
    )
    return ident.ljust(16, b"\0") + ehdr + PHDR[target.bits].pack(*phdr) + body + b"".join(headers)


def symbol(
    target: Target, name: int = 0, info: int = 0, shndx: int = 0, value: int = 0, other: int = 0
) -> bytes:
    """A symbol of no size."""
    if target.bits == 64:
        return struct.pack("<IBBHQQ", name, info, other, shndx, value, 0)
    return struct.pack("<IIIBBH", name, value, 0, info, other, shndx)


def relocation(target: Target, kind: int, symbol: int = 0, rela: bool = True) -> bytes:
    """A relocation at the base address."""
    word = "Q" if target.bits == 64 else "I"
    info = symbol << (32 if target.bits == 64 else 8) | kind
    return struct.pack("<" + word * 2, BASE, info) + (bytes(target.word) if rela else b"")


def note(name: bytes, kind: int, desc: bytes, align: int = 4) -> bytes:
    """One note, padded."""
    head = struct.pack("<III", len(name), len(desc), kind) + name
    head += bytes(-len(head) % align)
    return head + desc + bytes(-len(desc) % align)
