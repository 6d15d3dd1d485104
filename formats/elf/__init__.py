"""ELF: x86-64, i386 and AArch64 programs, static and dynamic, and shared objects."""

from __future__ import annotations

from collections.abc import Callable

from bytegen.formats.core.steps import Step
from bytegen.formats.elf import (  # their region grammars register themselves
    contents,
    dynamic,
    interp,
    sections,
    segments,
)
from bytegen.formats.elf.header import begin
from bytegen.formats.elf.target import TARGETS, Target
from bytegen.formats.registry import Format, register

__all__ = ["contents", "dynamic", "interp", "sections", "segments"]


def _register(target: Target) -> None:
    def start(max_bytes: int, level: str) -> Callable[[bytearray], Step]:
        return lambda data: begin(target, max_bytes, level, static=getattr(data, "static", False))

    def least(level: str) -> int:
        # The tables, and at level code a first instruction.
        first = (4 if target.instructions == "aarch64" else 1) if level == "code" else 0
        return target.ehdr_size + target.phdr_size + first

    register(Format(target.name, ("parse", "load", "code"), least, start))


for _target in TARGETS.values():
    _register(_target)
