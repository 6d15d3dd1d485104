"""The export directory: a name, and tables of functions, of names, and of the names' ordinals.

Tables and strings lie ahead of what refers to them, as linkers write them. A function is 0, an address outside
of the directory, or, inside of it, the address of a forwarder's text ("DLL.function"). Each count leaves room for
its tables in one row. Names can be the directory's own, or one kept in reserve where it has none.

Sources: Microsoft's PE format specification; LIEF and pefile (which functions are forwarders, letters of names).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.intset import IntSet, anything, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Ranges, Span
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.pe.directories.export_texts import (
    FORWARDER,
    LEAST_FORWARDER,
    LEAST_STRING,
    STRING,
)
from bytegen.formats.pe.directories.fields import fields
from bytegen.formats.pe.directories.groups import place
from bytegen.formats.pe.directories.memory import View
from bytegen.formats.pe.plan import Plan, opener, proceed
from bytegen.formats.pe.sets import When

INDEX, SIZE = 0, 40
_SPARE = "exports.spare"
_HEAD = [
    ("Characteristics", 4, anything(4), "any"),
    ("TimeDateStamp", 4, anything(4), "any"),
    ("MajorVersion", 2, anything(2), "any"),
    ("MinorVersion", 2, anything(2), "any"),
]


class _Exports(NamedTuple):
    """A directory being read."""

    plan: Plan
    view: View
    region: Region
    base: int = 0
    functions: int = 0
    names: int = 0
    nameless: bool = False  # there is no string that the names of functions can be


def _row(functions: int, names: int) -> int:
    """Bytes of the tables."""
    return 4 * functions + 6 * names


@opener("exports")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    read = _Exports(plan, View(plan, region.start, region.end, data), region)
    return fields(region.start, "exports", _HEAD, lambda values, data: _name(read), data)


def _longest(plan: Plan, view: View) -> int:
    return max((high - low for low, high in view.gaps(plan.ledger)), default=0)


def _name(read: _Exports) -> Step:
    plan, view = read.plan, read.view

    def allowed(x: int) -> bool:
        return view.ahead(plan.ledger, x) >= LEAST_STRING

    def following(value: int, data: bytearray) -> Step:
        return _base(read._replace(plan=_promise(plan, view, value, STRING, "exports.name")))

    return IntStep(
        read.region.start + 12,
        4,
        IntSet(4, Span(0, 0), When(allowed, lambda: view.spans(plan.ledger, LEAST_STRING))),
        "exports.Name",
        "0, or where a string fits",
        lambda value, data: following(value, data) if value else _base(_with_string(read)),
    )


def _promise(plan: Plan, view: View, address: int, kind: str, path: str, size: int = 0) -> Plan:
    offset = view.map.offset(address)
    assert offset is not None
    least = size or (LEAST_STRING if kind == STRING else LEAST_FORWARDER)
    return place(plan, Region(offset, offset + least, kind, path))


def _with_string(read: _Exports) -> _Exports:
    """The directory with a string at the end of the last gap: one that the names can be, since it has no name."""
    view, plan = read.view, read.plan
    for low, high in reversed(view.gaps(plan.ledger)):
        if high - low >= LEAST_STRING:
            region = Region(high - LEAST_STRING, high, STRING, _SPARE)
            return read._replace(plan=place(plan, region))
    return read._replace(nameless=True)


def _without_spare(plan: Plan, free: int) -> Plan:
    """The plan without that string, where it is still ahead: there are no names, or the first is about to be chosen."""
    ledger = plan.ledger.where(lambda region: region.path != _SPARE or region.start < free)
    return plan if ledger is plan.ledger else plan._replace(ledger=ledger)


def _base(read: _Exports) -> Step:
    return IntStep(
        read.region.start + 16,
        4,
        interval(4, 0, 0xFFFF),
        "exports.Base",
        "at most 65,535",
        lambda value, data: _functions(read._replace(base=value)),
    )


def _functions(read: _Exports) -> Step:
    most = min(_longest(read.plan, read.view) // 4, 0xFFFF - read.base + 1)
    return IntStep(
        read.region.start + 20,
        4,
        interval(4, 0, most),
        "exports.NumberOfFunctions",
        f"at most {most}: the tables fit",
        lambda value, data: _names(read._replace(functions=value)),
    )


def _names(read: _Exports) -> Step:
    room = _longest(read.plan, read.view) - _row(read.functions, 0)
    most = max(room, 0) // 6 if read.functions and not read.nameless else 0
    return IntStep(
        read.region.start + 24,
        4,
        interval(4, 0, most),
        "exports.NumberOfNames",
        f"at most {most}: the tables and the names fit",
        lambda value, data: _table(
            read._replace(
                names=value, plan=read.plan if value else _without_spare(read.plan, read.view.free)
            ),
            0,
        ),
    )


_TABLES = (
    ("AddressOfFunctions", "export_functions", 4),
    ("AddressOfNames", "export_names", 4),
    ("AddressOfNameOrdinals", "export_ordinals", 2),
)


def _table(read: _Exports, i: int) -> Step:
    plan, view = read.plan, read.view
    field, kind, width = _TABLES[i]
    count = read.names if i else read.functions
    rest = [_row(0, read.names), 2 * read.names, 0][i]
    start = read.region.start + 28 + 4 * i
    # Tables of nothing are nowhere, or anywhere in the sections' bytes.
    choices = IntSet(4, Span(0, 0), *(Span(a, a + size - 1) for a, _, size in view.map.spans))
    if count:
        choices = IntSet(
            4,
            When(
                lambda x: view.fits(plan.ledger, x, width * count, rest),
                lambda: view.spans(plan.ledger, width * count, rest),
            ),
        )

    def following(value: int, data: bytearray) -> Step:
        settled = plan
        if count:
            offset = view.map.offset(value)
            assert offset is not None
            detail = (count, read.functions)
            settled = place(plan, Region(offset, offset + width * count, kind, f"exports.{kind[7:]}", detail))
        if i + 1 < len(_TABLES):
            return _table(read._replace(plan=settled), i + 1)
        return proceed(settled, read.region.end, data)

    return IntStep(
        start,
        4,
        choices,
        f"exports.{field}",
        f"where {width * count} bytes fit" if count else "any",
        following,
    )


class _Rows(NamedTuple):
    """A table being read."""

    plan: Plan
    view: View
    region: Region
    total: int
    functions: int


def _rows(plan: Plan, region: Region, data: bytearray) -> _Rows:
    count, functions = region.detail
    return _Rows(plan, View(plan, region.start, region.end, data), region, count, functions)


@opener("export_functions")
def _open_functions(plan: Plan, region: Region, data: bytearray) -> Step:
    return _function(_rows(plan, region, data), 0, data)


def _outside(plan: Plan) -> list[Span]:
    """Addresses in sections, outside of the export directory."""
    start, size = plan.directories[INDEX]
    spans = []
    for section in plan.sections:
        low, high = section.address, section.address + section.size
        spans += [Span(low, min(high, start) - 1), Span(max(low, start + size), high - 1)]
    return [span for span in spans if span.lo <= span.hi]


def _targets(plan: Plan, view: View) -> IntSet:
    """The values of an entry of the table of functions."""
    first, size = plan.directories[INDEX]

    def allowed(x: int) -> bool:
        return first <= x < first + size and view.ahead(plan.ledger, x) >= LEAST_FORWARDER

    def build() -> Iterable[Piece]:
        places = view.places(plan.ledger, LEAST_FORWARDER)
        yield Ranges(np.stack((places[:, 0].clip(first), places[:, 1].clip(None, first + size - 1)), axis=1))

    return IntSet(4, Span(0, 0), *_outside(plan), When(allowed, build))


def _function(rows: _Rows, i: int, data: bytearray) -> Step:
    if i == rows.total:
        return proceed(rows.plan, rows.region.end, data)
    plan, view = rows.plan, rows.view
    return IntStep(
        rows.region.start + 4 * i,
        4,
        view.for_ledger("targets", plan.ledger, lambda: _targets(plan, view)),
        ("exports.function[{}]", i),
        "0, an address outside of the directory, or where a forwarder fits in it",
        partial(_after_function, rows, i),
    )


def _after_function(rows: _Rows, i: int, value: int, data: bytearray) -> Step:
    first, size = rows.plan.directories[INDEX]
    if first <= value < first + size:
        plan = _promise(rows.plan, rows.view, value, FORWARDER, f"exports.forwarder[{i}]")
        rows = rows._replace(plan=plan)
    return _function(rows, i + 1, data)


@opener("export_names")
def _open_names(plan: Plan, region: Region, data: bytearray) -> Step:
    return _pointer(_rows(plan, region, data), 0, data)


def _pointer(rows: _Rows, i: int, data: bytearray) -> Step:
    if i == rows.total:
        return proceed(rows.plan, rows.region.end, data)
    plan, view = rows.plan, rows.view
    if not i:
        plan = _without_spare(plan, view.free)

    def known(x: int) -> bool:
        offset = view.map.offset(x)
        return offset is not None and plan.ledger.at(offset, STRING) is not None

    def build() -> Iterable[Piece]:
        yield Ranges(view.places(plan.ledger, LEAST_STRING))
        yield Finite(view.map.addresses_of(view.promised(plan.ledger, STRING)).astype(np.uint64))

    return IntStep(
        rows.region.start + 4 * i,
        4,
        IntSet(4, When(lambda x: known(x) or view.ahead(plan.ledger, x) >= LEAST_STRING, build)),
        ("exports.name[{}]", i),
        "where a name is or fits",
        lambda value, data: _pointer(
            rows._replace(plan=_promise(plan, view, value, STRING, f"exports.text[{i}]")), i + 1, data
        ),
    )


@opener("export_ordinals")
def _open_ordinals(plan: Plan, region: Region, data: bytearray) -> Step:
    rows = _rows(plan, region, data)
    choices = interval(2, 0, min(rows.functions - 1, 0xFFFF))

    def ordinal(i: int, data: bytearray) -> Step:
        if i == rows.total:
            return proceed(plan, region.end, data)
        return IntStep(
            region.start + 2 * i,
            2,
            choices,
            ("exports.ordinal[{}]", i),
            f"below {rows.functions}",
            lambda value, data: ordinal(i + 1, data),
        )

    return ordinal(0, data)
