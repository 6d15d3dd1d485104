"""A program header being read."""

from __future__ import annotations

from typing import Any

from bytegen.formats.elf.plan import Plan
from bytegen.formats.elf.written import Table


class Header:
    """The fields read so far; -1 where a field is still to come.

    ``slots``: headers after this one. ``ways`` is what the type's rules keep while the header is read.
    """

    __slots__ = (
        "align",
        "filesz",
        "flags",
        "index",
        "memsz",
        "offset",
        "paddr",
        "plan",
        "slots",
        "start",
        "table",
        "vaddr",
        "ways",
    )

    def __init__(self, plan: Plan, table: Table, index: int, start: int, slots: int) -> None:
        self.plan = plan
        self.table = table
        self.index = index
        self.start = start
        self.slots = slots
        self.flags = self.offset = self.vaddr = self.paddr = self.filesz = self.memsz = self.align = -1
        self.ways: Any = None

    def having(self, name: str, value: int) -> Header:
        """A copy with one field more."""
        twin = Header(self.plan, self.table, self.index, self.start, self.slots)
        twin.flags, twin.offset, twin.vaddr, twin.paddr = self.flags, self.offset, self.vaddr, self.paddr
        twin.filesz, twin.memsz, twin.align, twin.ways = self.filesz, self.memsz, self.align, self.ways
        setattr(twin, name, value)
        return twin

    @property
    def number(self) -> str:
        """The header's path."""
        return f"phdr[{self.index}]"
