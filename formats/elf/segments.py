"""The program header table: its entries field by field, in the order that the class of the file gives them."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from bytegen.formats.core.intset import IntSet
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.elf import code
from bytegen.formats.elf.held_kinds import HELD
from bytegen.formats.elf.kinds import PLAIN, Kind
from bytegen.formats.elf.note_kinds import NOTES
from bytegen.formats.elf.phdr import Header
from bytegen.formats.elf.plan import Plan, opener, proceed
from bytegen.formats.elf.worlds import keeping
from bytegen.formats.elf.written import Behind, Provided, Table

KINDS: dict[int, Kind] = {**PLAIN, **HELD, **NOTES}


class Cell(NamedTuple):
    """A field of a program header after p_type: its name and place in the header."""

    name: str
    at: int
    size: int


@cache
def _cells(bits: int) -> tuple[Cell, ...]:
    """The fields in their order: p_flags comes early in 64-bit files and late in 32-bit ones."""
    word = bits // 8
    rows = [("offset", word), ("vaddr", word), ("paddr", word), ("filesz", word), ("memsz", word)]
    rows.insert(0 if bits == 64 else len(rows), ("flags", 4))
    found, at = [], 4
    for name, size in (*rows, ("align", word)):
        found.append(Cell(name, at, size))
        at += size
    return tuple(found)


@opener("phdrs")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    return _entry(plan, Table(region.start, region.end, Behind(bytes(data))), 0, data)


def _entry(plan: Plan, table: Table, index: int, data: bytearray) -> Step:
    if index == plan.phnum:
        plan = plan._replace(segments_read=True, ledger=plan.ledger.without("entry"))
        plan = code.segments_read(plan, table.end, data)
        return proceed(plan, table.end, data)
    slots = plan.phnum - index - 1
    start = table.start + index * plan.target.phdr_size

    def then(value: int, data: bytearray) -> Step:
        kind = KINDS[value]
        header = Header(plan, table, index, start, slots)
        kind.begin(header)
        return _field(kind, header, 0, data)

    return IntStep(start, 4, _types(plan, table, slots), ("phdr[{}].p_type", index), _TYPE_RULE, then)


_TYPE_RULE = (
    "a known type, with room left for the segments still owed (one holds the entry and is executable, one holds "
    "the program headers, others what headers before have described)"
)


def _types(plan: Plan, table: Table, slots: int) -> IntSet:
    """The types of a header with ``slots`` more after it; those that are costly to judge are asked when chosen."""
    probe = Header(plan, table, 0, 0, slots)
    spare = not plan.owing or any(True for _ in keeping(plan, slots))
    sure, unsure = [], []
    for value, kind in KINDS.items():
        offered = kind.offered(probe, spare)
        if offered is True:
            sure.append(value)
        elif offered is not False:
            unsure.append(Provided(value, offered))
    return IntSet(4, Finite(sure), *unsure)


def _field(kind: Kind, header: Header, i: int, data: bytearray) -> Step:
    cells = _cells(header.plan.target.bits)
    if i == len(cells):
        return _entry(kind.done(header), header.table, header.index + 1, data)
    cell = cells[i]
    choices, rule = getattr(kind, cell.name)(header)

    def then(value: int, data: bytearray) -> Step:
        return _field(kind, header.having(cell.name, value), i + 1, data)

    def path() -> str:
        return f"phdr[{header.index}].p_{cell.name}"

    return IntStep(header.start + cell.at, cell.size, choices, path, rule, then)
