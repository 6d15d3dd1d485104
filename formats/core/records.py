"""Tables of equal records as one step: symbols, relocations, unwind entries, import slots.

A `Record` is compiled once, when a module is loaded or a table begins; its fields' sets are built once, not once
an entry. A `RecordsStep` costs a byte what one long integer would.

    _RELA = Record(("r_offset", 8, anything(8), "any"), ("r_info", 8, info, "a known type"), ...)
    RecordsStep(start, count, _RELA, "section[3].rela", then)

A set may depend on the fields before it in the same record: give ``choices(step, index, raw)`` in place of
the set, ``raw`` being the bytes of the record so far; return a set made beforehand where possible, for it is
asked once a field. What a record owes later is for ``each(step, index, raw, data)``, called when it is complete:
it may note instruction starts that are owed (`Written.want`), and nothing else. Where a record changes what
the format has settled, use `IntStep`s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bytegen.formats.core.intset import IntSet
from bytegen.formats.core.steps import Linked, Step, Text, text
from bytegen.formats.core.written import Written

Choose = Callable[["RecordsStep", int, bytes], IntSet]
Each = Callable[["RecordsStep", int, bytes, Written], None]
_BULK = 65_536


class Cell(NamedTuple):
    """A field of a record: bytes [start, start + size) of it."""

    name: str
    start: int
    size: int
    choices: IntSet | Choose
    rule: Text


class Record:
    """The fields of a record, in order: (name, size, choices, rule)."""

    __slots__ = ("by_byte", "cells", "fixed", "kind", "size")

    def __init__(self, *fields: tuple[str, int, IntSet | Choose, Text]) -> None:
        cells, start = [], 0
        for name, size, choices, rule in fields:
            cells.append(Cell(name, start, size, choices, rule))
            start += size
        self.cells = tuple(cells)
        self.size = start
        self.by_byte = tuple(i for i, cell in enumerate(cells) for _ in range(cell.size))
        self.fixed = all(isinstance(cell.choices, IntSet) for cell in cells)
        spread = [(f"f{i}", f"<u{cell.size}") for i, cell in enumerate(cells) if cell.size in (1, 2, 4, 8)]
        self.kind = np.dtype(spread) if self.fixed and len(spread) == len(cells) else None

    def good(self, raw: memoryview) -> int:
        """How many records, whole ones from the first on, are good by sets that depend on nothing."""
        if self.kind is None:
            return 0
        table = np.frombuffer(raw, self.kind, len(raw) // self.size)
        fine = np.ones(len(table), dtype=bool)
        for i, cell in enumerate(self.cells):
            assert isinstance(cell.choices, IntSet)
            if not cell.choices.full:
                fine &= cell.choices.contains_all(table[f"f{i}"])
        return len(fine) if fine.all() else int(fine.argmin())


class RecordsStep(Linked):
    """``count`` records from offset ``start`` on.

    ``detail`` is for ``choices`` and ``each`` of the record. ``path`` is the table's; a field's is
    ``path[index].name``.
    """

    __slots__ = ("_path", "detail", "each", "record", "start", "stop", "then")

    def __init__(
        self,
        start: int,
        count: int,
        record: Record,
        path: Text,
        then: Callable[[bytearray], Step],
        *,
        detail: Any = None,
        each: Each | None = None,
    ) -> None:
        self.parent = None
        self.start = start
        self.stop = start + count * record.size
        self.record = record
        self._path = path
        self.then = then
        self.detail = detail
        self.each = each

    @property
    def path(self) -> str:
        """Path of the table."""
        return text(self._path)

    @property
    def rule(self) -> str:
        """What it may be, in words."""
        return "good records"

    def cell(self, position: int) -> tuple[int, Cell]:
        """The record and the field that the byte at ``position`` belongs to."""
        index, at = divmod(position - self.start, self.record.size)
        return index, self.record.cells[self.record.by_byte[at]]

    def choices(self, position: int, data: bytearray) -> tuple[int, int, IntSet]:
        """The field at ``position``: where it starts, its size, its set."""
        size = self.record.size
        index, at = divmod(position - self.start, size)
        cell = self.record.cells[self.record.by_byte[at]]
        start = position - at
        choices = cell.choices
        if not isinstance(choices, IntSet):
            choices = choices(self, index, bytes(data[start : start + cell.start]))
        return start + cell.start, cell.size, choices

    def name(self, position: int) -> tuple[str, str]:
        """Path and rule of the field at ``position``."""
        index, cell = self.cell(position)
        return f"{self.path}[{index}].{cell.name}", text(cell.rule)

    def complete(self, position: int, data: Written) -> None:
        """Call ``each`` where a record ends at ``position``."""
        if self.each is not None:
            index, at = divmod(position - self.start, self.record.size)
            if not at:
                self.each(self, index - 1, bytes(data[position - self.record.size : position]), data)

    def run(self, data: memoryview) -> int:
        """How many bytes at the head of ``data``, which begins where a record does, are whole good records.

        0 where sets depend on earlier fields: then only field by field will tell.
        """
        if self.record.kind is None:
            return 0
        most = min(len(data), _BULK) // self.record.size * self.record.size
        return self.record.good(data[:most]) * self.record.size if most else 0
