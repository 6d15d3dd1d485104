"""ELF: x86-64, i386 and AArch64 programs, static and dynamic, and shared objects."""

from __future__ import annotations

from collections.abc import Callable

from bytegen.formats.core.steps import Step
from bytegen.formats.elf import contents, sections, segments  # their region grammars register themselves
from bytegen.formats.elf.header import begin
from bytegen.formats.elf.target import TARGETS, Target
from bytegen.formats.registry import Format, register

__all__ = ["contents", "sections", "segments"]


def _register(target: Target) -> None:
    def start(max_bytes: int, level: str) -> Callable[[bytearray], Step]:
        return lambda data: begin(target, max_bytes, level)

    smallest = target.ehdr_size + target.phdr_size
    register(Format(target.name, ("parse", "load"), lambda level: smallest, start))


for _target in TARGETS.values():
    _register(_target)
