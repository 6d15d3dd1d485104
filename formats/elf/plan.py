"""What a partly written ELF file has settled so far, and where the next step begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.core.steps import FreeStep, Step


class Section(NamedTuple):
    """What later rules need of a section header already read. ``entries``: how many it holds."""

    kind: int
    offset: int
    size: int
    entries: int


class Owed(NamedTuple):
    """A section type that an earlier header promised for a later index; a string table of ``need`` bytes."""

    types: frozenset[int]
    need: int = 0


class Plan(NamedTuple):
    """The settled part of a file. Immutable; every step carries the one that holds at its start."""

    limit: int  # the file is at most this long
    strict: bool  # level "load": the kernel's rules too
    ledger: Ledger
    min_end: int  # the file is at least this long
    entry: int = 0
    phoff: int = 0
    phnum: int = 0
    shoff: int = 0
    shnum: int = 0
    shstrndx: int = 0
    # program headers
    low: int = 0  # the next PT_LOAD begins at this address or above
    entry_owed: bool = False  # a later PT_LOAD must hold the entry
    table_owed: bool = False  # a later PT_LOAD must hold the program header table
    phdr_address: int | None = None  # of PT_PHDR, whose address must be held too
    loads: int = 0
    tls_size: int | None = None
    bss_left: int = 0
    segments_read: bool = False
    labels: tuple[tuple[int, int, str], ...] = ()
    # section headers
    sections: tuple[Section, ...] = ()
    owed: tuple[tuple[int, Owed], ...] = ()  # sorted by index; indices not read yet
    name_need: int = 0  # the section name table is at least this long

    def owed_at(self, index: int) -> Owed | None:
        """What section ``index`` owes."""
        for where, owed in self.owed:
            if where == index:
                return owed
        return None

    def owe(self, index: int, types: frozenset[int], need: int = 0) -> Plan:
        """The plan in which section ``index``, not read yet, is of one of the types and of ``need`` bytes."""
        known = self.owed_at(index)
        if known is not None:
            need = max(need, known.need)
            types = types & known.types
        rest = tuple(item for item in self.owed if item[0] != index)
        return self._replace(owed=tuple(sorted((*rest, (index, Owed(types, need))))))

    def reach(self, end: int) -> Plan:
        """The plan of a file that is at least ``end`` bytes long."""
        return self._replace(min_end=end) if end > self.min_end else self


Opener = Callable[[Plan, Region, bytearray], Step]
OPENERS: dict[str, Opener] = {}


def opener(kind: str) -> Callable[[Opener], Opener]:
    """Register the grammar of a kind of region."""

    def register(function: Opener) -> Opener:
        OPENERS[kind] = function
        return function

    return register


def proceed(plan: Plan, position: int, data: bytearray) -> Step:
    """The step at ``position``, where nothing is being read: the promise there, or bytes up to the next."""
    region = plan.ledger.after(position)
    if region is not None and region.start == position:
        return OPENERS[region.kind](plan, region, data)
    stop = region.start if region is not None else plan.limit
    path = "gap"
    for start, end, name in plan.labels:
        if start <= position < end:
            path, stop = name, min(stop, end)
        elif position < start < stop:
            stop = start
    if region is None:
        end_from, rule = (
            plan.min_end,
            f"the file is at least {plan.min_end} and at most {plan.limit} bytes long",
        )
    else:
        end_from, rule = None, f"{region.path} is promised at offset {region.start:#x}"
    if stop == plan.limit and region is None:
        return FreeStep(position, stop, end_from, path, rule, None)
    return FreeStep(position, stop, end_from, path, rule, lambda data: proceed(plan, stop, data))
