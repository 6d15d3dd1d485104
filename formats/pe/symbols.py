"""The COFF symbol table and string table that some linkers leave behind the sections."""

from __future__ import annotations

from bytegen.formats.core.intset import IntSet, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Span, Window
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.pe.constants import SYMBOL_SIZE
from bytegen.formats.pe.plan import Plan, opener, proceed

_DEBUG, _ABSOLUTE = 0xFFFE, 0xFFFF


class _Table:
    """A symbol table being read, with the sets that its entries share."""

    __slots__ = ("names", "plan", "region", "room", "sections")

    def __init__(self, plan: Plan, region: Region) -> None:
        self.plan = plan
        self.region = region
        after = plan.ledger.after(region.end + 1)
        self.room = (after.start if after is not None else plan.limit) - region.end
        # A name of up to 8 bytes, or four zeros and an offset in the string table.
        self.names = IntSet(
            8,
            Window(0, (1 << 64) - 1, 1 << 32, 1, (1 << 32) - 1),
            Span(0, 0),
            Span(4 << 32, (self.room - 1) << 32, 1 << 32),
        )
        self.sections = IntSet(2, Span(0, plan.section_count), Span(_DEBUG, _ABSOLUTE))


@opener("coff_symbols")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    return _symbol(_Table(plan, region), region.start, plan.string_need, data)


def _symbol(table: _Table, start: int, need: int, data: bytearray) -> Step:
    """The symbol at ``start``; names so far ask for a string table of ``need`` bytes."""
    region = table.region
    if start == region.end:
        plan = table.plan._replace(string_need=need).reach(region.end + need)
        return proceed(plan, start, data)
    path = f"coff.symbol[{(start - region.start) // SYMBOL_SIZE}]."

    def name(value: int, data: bytearray) -> Step:
        longer = need if value & 0xFFFFFFFF or not value else max(need, (value >> 32) + 1)
        return FreeStep(start + 8, start + 12, None, path + "Value", "", lambda data: section(longer))

    def section(need: int) -> Step:
        return IntStep(
            start + 12,
            2,
            table.sections,
            path + "SectionNumber",
            "a section, 0 (undefined), -1 (absolute) or -2 (debug)",
            lambda value, data: FreeStep(
                start + 14, start + 16, None, path + "Type", "", lambda data: storage(need)
            ),
        )

    def storage(need: int) -> Step:
        return FreeStep(start + 16, start + 17, None, path + "StorageClass", "", lambda data: auxiliary(need))

    def auxiliary(need: int) -> Step:
        most = min((region.end - start) // SYMBOL_SIZE - 1, 255)
        return IntStep(
            start + 17,
            1,
            interval(1, 0, most),
            path + "NumberOfAuxSymbols",
            f"at most {most}: the records that are left",
            lambda value, data: records(need, value, data),
        )

    def records(need: int, count: int, data: bytearray) -> Step:
        first, stop = start + SYMBOL_SIZE, start + SYMBOL_SIZE * (1 + count)
        if not count:
            return _symbol(table, stop, need, data)
        return FreeStep(
            first, stop, None, path + "auxiliary", "", lambda data: _symbol(table, stop, need, data)
        )

    return IntStep(start, 8, table.names, path + "Name", "a name, or an offset in the string table", name)


@opener("coff_strings")
def _open_strings(plan: Plan, region: Region, data: bytearray) -> Step:
    start = region.start
    after = plan.ledger.after(start + 1)
    most = (after.start if after is not None else plan.limit) - start

    def content(value: int, data: bytearray) -> Step:
        settled, stop = plan.reach(start + value), start + value
        if stop == start + 4:
            return proceed(settled, stop, data)
        return FreeStep(start + 4, stop, None, "coff.strings", "", lambda data: proceed(settled, stop, data))

    return IntStep(
        start,
        4,
        interval(4, plan.string_need, most),
        "coff.strings.size",
        f"{plan.string_need} to {most}: the names that refer to it, and fits",
        content,
    )
