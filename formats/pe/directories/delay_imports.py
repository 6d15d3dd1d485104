"""The directory of delayed imports: a descriptor for each DLL that is loaded when it is first needed, and a null one.

Loaders do not read it: code that the linker adds does, through the addresses of the descriptor. What lies behind is
judged by its bytes, what lies ahead is promised, and a descriptor begins where all that it needs fits in one row.

Sources: Microsoft's PE format specification (all addresses are relative: bit 0 of the attributes); LIEF reads as far
as the directory's size; pefile wants one table at least that has an entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bytegen.formats.core.intset import IntSet, anything, exactly
from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.pe.constants import MEM_WRITE
from bytegen.formats.pe.directories.delay_tables import (
    ADDRESSES,
    NAMES,
    Delayed,
    delayed_of,
    entries,
    tables_behind,
    targets,
    with_delayed,
    written,
)
from bytegen.formats.pe.directories.fields import fields
from bytegen.formats.pe.directories.groups import DELAYED_DLL, LEAST_DLL, place
from bytegen.formats.pe.directories.imported_names import DLL_NAME, dll_at
from bytegen.formats.pe.directories.memory import View, contents
from bytegen.formats.pe.plan import Plan, opener, proceed
from bytegen.formats.pe.sets import When

INDEX, SIZE = 13, 32
_RELATIVE = 1
_ANY, _ZERO = anything(4), {4: exactly(4, 0), 8: exactly(8, 0)}


class _Descriptor(NamedTuple):
    """A descriptor being read."""

    plan: Plan
    view: View
    region: Region
    number: int

    @property
    def start(self) -> int:
        return self.region.start + SIZE * self.number

    @property
    def group(self) -> int:
        """Index of its tables."""
        return len(contents(self.plan).delayed) - 1

    def path(self, name: str) -> str:
        return f"delay_imports[{self.number}].{name}"


@opener("delay_imports")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    return _attributes(_Descriptor(plan, View(plan, region.start, region.end, data), region, 0), data)


def _longer(read: _Descriptor) -> Plan | None:
    """The plan with one descriptor more; None where it, or what it needs, has no place."""
    plan, view, end = read.plan, read.view, read.start + SIZE
    stop = min(view.map.stop(read.start), read.region.start + plan.directories[INDEX][1])
    # A relative address must not be taken for one of code: see `delay_tables`.
    apart = plan.base >= plan.image_size or not plan.strict
    if plan.ledger.room(end) < SIZE or end + SIZE > stop or not apart or not targets(plan):
        return None
    longer = plan._replace(ledger=plan.ledger.grown(read.region.start, end + SIZE))
    row = LEAST_DLL + 2 * entries(plan, Delayed()) + 2 * plan.target.word
    return longer if any(high - low >= row for low, high in view.gaps(longer.ledger)) else None


def _attributes(read: _Descriptor, data: bytearray) -> Step:
    longer = _longer(read)

    def following(value: int, data: bytearray) -> Step:
        if not value:
            return _null(read, 4)
        assert longer is not None
        return _name(read._replace(plan=with_delayed(longer, len(contents(longer).delayed), Delayed())))

    return IntStep(
        read.start,
        4,
        exactly(4, 0, _RELATIVE) if longer is not None else _ZERO[4],
        read.path("Attributes"),
        "1, relative addresses; or 0 in the null descriptor"
        if longer is not None
        else "0: no room for one more DLL",
        following,
    )


def _null(read: _Descriptor, done: int) -> Step:
    size = 4 if done == 4 else 8

    def following(value: int, data: bytearray) -> Step:
        stop = done + size
        return proceed(read.plan, read.start + SIZE, data) if stop == SIZE else _null(read, stop)

    return IntStep(
        read.start + done, size, _ZERO[size], read.path("null"), "0: the null descriptor", following
    )  # fmt: skip


def _row(read: _Descriptor, tables: int) -> int:
    """Bytes in a row that so many tables need, each at a multiple of a word."""
    word = read.plan.target.word
    return tables * (entries(read.plan, delayed_of(read.plan, read.group)) + word)


def _name(read: _Descriptor) -> Step:
    plan, view = read.plan, read.view
    need = _row(read, 2)

    def behind(x: int) -> bool:
        offset = view.behind(x, LEAST_DLL)
        return (
            offset is not None and dll_at(view.raw, offset, min(view.here, view.map.stop(offset))) is not None
        )

    def promised(x: int) -> bool:
        offset = view.map.offset(x)
        return offset is not None and offset >= view.free and plan.ledger.at(offset, DELAYED_DLL) is not None

    def allowed(x: int) -> bool:
        return behind(x) or promised(x) or view.fits(plan.ledger, x, LEAST_DLL, need)

    def build() -> Iterable[Piece]:
        yield from view.spans(plan.ledger, LEAST_DLL, need)
        starts = (match.start() for match in DLL_NAME.finditer(view.raw))
        known = [view.map.address(s) for s in starts if view.map.stop(s)]
        known += [view.map.address(r.start) for r in plan.ledger.regions if r.kind == DELAYED_DLL]
        yield Finite([x for x in known if behind(x) or promised(x)])

    def following(value: int, data: bytearray) -> Step:
        settled = plan
        if not behind(value):
            offset = view.map.offset(value)
            assert offset is not None
            settled = place(plan, Region(offset, offset + LEAST_DLL, DELAYED_DLL, read.path("dll")))
        return _module(read._replace(plan=settled))

    return IntStep(
        read.start + 4, 4, IntSet(4, When(allowed, build)), read.path("Name"), "where the name of a DLL is or fits",
        following,
    )  # fmt: skip


def _module(read: _Descriptor) -> Step:
    plan = read.plan
    flags, word = MEM_WRITE if plan.strict else 0, plan.target.word
    held = (s for s in plan.sections if s.flags & flags == flags and s.size >= word)
    choices = IntSet(4, Span(0, 0), *(Span(s.address, s.address + s.size - word) for s in held))
    return IntStep(
        read.start + 8, 4, choices, read.path("ModuleHandle"), "0, or an address in a section that can be written to",
        lambda value, data: _table(read, ADDRESSES, 12),
    )  # fmt: skip


def _grown_for(read: _Descriptor, count: int) -> Plan | None:
    """The plan in which the tables ahead have that many entries; None where they do not fit."""
    plan, view, word = read.plan, read.view, read.plan.target.word
    ledger: Ledger = plan.ledger
    for start in delayed_of(plan, read.group).tables:
        stop = start + word * (count + 1)
        region = ledger.at(start, ADDRESSES) or ledger.at(start, NAMES)
        assert region is not None
        if stop > region.end and (stop > view.map.stop(start) or ledger.room(region.end) < stop - region.end):
            return None
        ledger = ledger.grown(start, stop)
    return plan._replace(ledger=ledger)


def _table(read: _Descriptor, kind: str, at: int) -> Step:
    """The address of a table: that of addresses comes before that of names."""
    plan, view, word = read.plan, read.view, read.plan.target.word
    delayed = delayed_of(plan, read.group)
    size, need = entries(plan, delayed), _row(read, 1) if kind == ADDRESSES else 0

    def behind(x: int) -> int | None:
        """How many entries a table written there has; None where it does not do."""
        count = written(plan, view, x, kind)
        if count is None or (delayed.length >= 0 and count != delayed.length):
            return None
        if kind == NAMES:
            return count if _grown_for(read, count) is not None else None
        row = word * (count + 2)
        fits = any(high - low >= row for low, high in view.gaps(plan.ledger))
        return count if fits or count in tables_behind(plan, view, NAMES).values() else None

    def allowed(x: int) -> bool:
        return x % word == 0 and (view.fits(plan.ledger, x, size, need) or behind(x) is not None)

    def build() -> Iterable[Piece]:
        yield from view.spans(plan.ledger, size, need, align=word)
        yield Finite([x for x in tables_behind(plan, view, kind) if behind(x) is not None])

    def following(value: int, data: bytearray) -> Step:
        count = behind(value)
        if count is not None:
            settled = _grown_for(read, count)
            assert settled is not None
            settled = with_delayed(settled, read.group, delayed._replace(length=count))
        else:
            offset = view.map.offset(value)
            assert offset is not None
            region = Region(offset, offset + size, kind, read.path(kind[6:]), read.group)
            tables = (*delayed.tables, offset)
            settled = with_delayed(place(plan, region), read.group, delayed._replace(tables=tables))
        after = read._replace(plan=settled)
        return _table(after, NAMES, 16) if kind == ADDRESSES else _rest(after, data)

    field = "ImportAddressTable" if kind == ADDRESSES else "ImportNameTable"
    return IntStep(
        read.start + at, 4, IntSet(4, When(allowed, build)), read.path(field),
        "where a table with as many entries as the other is or fits, at a multiple of a word", following,
    )  # fmt: skip


def _rest(read: _Descriptor, data: bytearray) -> Step:
    inside = (Span(s.address, s.address + s.size - 1) for s in read.plan.sections)
    place_ = IntSet(4, Span(0, 0), *inside)
    return fields(
        read.start + 20,
        f"delay_imports[{read.number}]",
        [
            ("BoundImportAddressTable", 4, place_, "0, or an address in a section"),
            ("UnloadInformationTable", 4, place_, "0, or an address in a section"),
            ("TimeDateStamp", 4, _ANY, "any"),
        ],
        lambda values, data: _attributes(read._replace(number=read.number + 1), data),
        data,
    )


__all__ = ["SIZE"]
