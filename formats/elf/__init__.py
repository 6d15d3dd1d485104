"""ELF: 64-bit x86-64 executables at a fixed address, statically linked, with and without section headers."""

from __future__ import annotations

from bytegen.formats.elf import contents, sections, segments  # their region grammars register themselves
from bytegen.formats.elf.constants import EHDR_SIZE, PHDR_SIZE
from bytegen.formats.elf.header import begin
from bytegen.formats.registry import Format, register

__all__ = ["contents", "sections", "segments"]

register(
    Format(
        "elf64-x86_64",
        ("parse", "load"),
        lambda level: EHDR_SIZE + PHDR_SIZE,
        lambda max_bytes, level: lambda data: begin(max_bytes, level),
    )
)
