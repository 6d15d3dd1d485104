"""The resource directory: a tree of tables by type, name and language, whose leaves give the data.

Tables, names and leaves lie ahead of what refers to them, inside of the directory; offsets count from the root.
Ids ascend. Every entry that is still to come has its 16 bytes (and a named one its string) in one row.

Sources: Microsoft's PE format specification; pefile (at most 4096 entries a table, sizes that add up to less than
the file's).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.intset import IntSet, anything, interval
from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.core.pieces import Piece, Ranges, Span
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.pe.directories.fields import fields
from bytegen.formats.pe.directories.groups import place
from bytegen.formats.pe.directories.memory import Contents, View, after, contents, mapping
from bytegen.formats.pe.directories.resource_leaves import KIND as LEAF_KIND
from bytegen.formats.pe.directories.resource_leaves import SIZE as LEAF
from bytegen.formats.pe.directories.resource_leaves import budget, most_leaves, owing_leaves, with_spare
from bytegen.formats.pe.plan import Plan, opener, proceed
from bytegen.formats.pe.sets import When

INDEX, HEAD = 2, 16
LEAST = 24  # LIEF reads past the head of a root without entries
TABLE, NAME = "resource_table", "resource_name"
_ENTRY, _LEAST_NAME = 8, 4
_MOST_ENTRIES, _MOST_NAME = 4096, 100
_DEPTH = 3  # types, names, languages
_HIGH = 1 << 31
_LETTERS = IntSet(2, Span(1, 0xD7FF), Span(0xE000, 0xFFFD))  # no halves of surrogate pairs
_VERSION = 16  # pefile takes an entry of the root for version information by the low half of its name
# What a table has to do with version information: nothing; it is the entry's of the root; it is the first below that,
# and its leaves are such information.
PLAIN, ABOVE, INFORMATION = 0, 1, 2


class _Reading(NamedTuple):
    """A table being read. ``root`` is the file offset from which offsets count."""

    plan: Plan
    view: View
    region: Region
    root: int
    depth: int
    version: int = PLAIN
    named: int = 0
    entries: int = 0
    number: int = 0
    least: int = 0  # the next id is at least this

    def path(self, name: str) -> str:
        return f"{self.region.path}.{name}"


_HEAD_FIELDS = [
    ("Characteristics", 4, anything(4), "any"),
    ("TimeDateStamp", 4, anything(4), "any"),
    ("MajorVersion", 2, anything(2), "any"),
    ("MinorVersion", 2, anything(2), "any"),
]


@opener("resources")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    view = View(plan, region.start, region.end, data, region.start + plan.directories[INDEX][1])
    return _head(_Reading(plan, view, region, region.start, 0), data)


@opener(TABLE)
def _open_table(plan: Plan, region: Region, data: bytearray) -> Step:
    root, depth, version = region.detail
    view = View(plan, region.start, region.end, data, root + plan.directories[INDEX][1])
    return _head(_Reading(plan, view, region, root, depth, version), data)


def _head(read: _Reading, data: bytearray) -> Step:
    return fields(read.region.start, read.region.path, _HEAD_FIELDS, lambda v, data: _named(read), data)


def _fitting(read: _Reading, named: int) -> int:
    """How many entries fit, ``named`` of them by name."""
    view, ledger = read.view, read.plan.ledger
    end = read.region.end
    here = min(after(ledger, read.region) - HEAD, min(view.map.stop(read.region.start), view.stop) - end)
    gaps = view.gaps(ledger)
    widest: list[int] = view.for_ledger("widest", ledger, lambda: _widest_from(view, ledger))

    def possible(entries: int) -> bool:
        # The entries take their bytes from the gap after the head.
        past, need = end + _ENTRY * entries, LEAF * entries + _LEAST_NAME * named
        i = bisect_left(gaps, (past,))
        return widest[i] >= need or (i > 0 and gaps[i - 1][1] - past >= need)

    low, high = 0, min(max(here, 0) // _ENTRY, _MOST_ENTRIES)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if possible(middle) else (low, middle - 1)
    return low


def _widest_from(view: View, ledger: Ledger) -> list[int]:
    """Of each gap ahead: the size of the widest from it on; and 0 at the end."""
    sizes = (high - low for low, high in reversed(view.gaps(ledger)))
    return [*accumulate(sizes, max, initial=0)][::-1]


def _most_named(read: _Reading) -> int:
    low, high = 0, _MOST_ENTRIES
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fitting(read, middle) >= middle else (low, middle - 1)
    return low


def _named(read: _Reading) -> Step:
    if read.version == INFORMATION:
        read = read._replace(plan=with_spare(read.plan, read.view))
    kept: Contents = contents(read.plan)
    # A letter of each name counts at once.
    most = min(_most_named(read), budget(read.plan))
    if read.version == INFORMATION:
        most = min(most, most_leaves(read.plan, 1))

    def following(value: int, data: bytearray) -> Step:
        counted = kept._replace(resource_bytes=kept.resource_bytes + value)
        return _ids(read._replace(named=value, plan=read.plan._replace(contents=counted)))

    return IntStep(
        read.region.start + 12,
        2,
        interval(2, 0, most),
        read.path("NumberOfNamedEntries"),
        f"at most {most}: entries and what they refer to fit",
        following,
    )


def _ids(read: _Reading) -> Step:
    most = _fitting(read, read.named) - read.named
    if read.version == INFORMATION:
        most = min(most, most_leaves(read.plan) - read.named)

    def following(value: int, data: bytearray) -> Step:
        total = read.named + value
        region = read.region._replace(end=read.region.end + _ENTRY * total)
        plan = owing_leaves(read.plan, total) if read.version == INFORMATION else read.plan
        if total:
            plan = plan._replace(ledger=plan.ledger.replace(read.region, region))
        view = View(plan, read.region.start, region.end, data, read.view.stop)
        return _entry(read._replace(plan=plan, view=view, entries=total, region=region), data)

    return IntStep(
        read.region.start + 14,
        2,
        interval(2, 0, most),
        read.path("NumberOfIdEntries"),
        f"at most {most}: entries and what they refer to fit",
        following,
    )


def _need(read: _Reading, number: int) -> int:
    """Bytes in a row that the entries from ``number`` on need."""
    return LEAF * (read.entries - number) + _LEAST_NAME * max(read.named - number, 0)


def _entry(read: _Reading, data: bytearray) -> Step:
    plan, view, number = read.plan, read.view, read.number
    start = read.region.start + HEAD + _ENTRY * number
    if number == read.entries:
        return proceed(plan, read.region.end, data)
    path = read.path(f"entry[{number}]")
    if number >= read.named:
        most = 0xFFFF - (read.entries - number - 1)
        return IntStep(
            start, 4, interval(4, read.least, most), f"{path}.Id", "greater than the one before, 16 bits",
            lambda value, data: _target(read._replace(least=value + 1), data),
        )  # fmt: skip
    need = _need(read, number) - _LEAST_NAME
    shift = _HIGH - view.map.address(read.root)

    def allowed(x: int) -> bool:
        if x & 0xFFFF == _VERSION:
            return False
        return x >= _HIGH and view.fits(plan.ledger, x - shift, _LEAST_NAME, need)

    def build() -> Iterable[Piece]:
        yield Ranges(_without(view.places(plan.ledger, _LEAST_NAME, need) + shift))

    def following(value: int, data: bytearray) -> Step:
        offset = view.map.offset(value - shift)
        assert offset is not None
        settled = place(plan, Region(offset, offset + _LEAST_NAME, NAME, f"{path}.name"))
        return _target(read._replace(plan=settled), data)

    return IntStep(
        start, 4, IntSet(4, When(allowed, build)), f"{path}.Name", "where a name fits, from the root on", following
    )  # fmt: skip


def _without(ranges: np.ndarray) -> np.ndarray:
    """The ranges [n, 2] without the integers whose low half is that of version information."""
    low, high = ranges.T
    cut = np.flatnonzero(low + (_VERSION - low) % 0x10000 <= high)
    parts = []
    for first, last in ranges[cut].tolist():
        for barred in range(first + (_VERSION - first) % 0x10000, last + 1, 0x10000):
            parts.append((first, barred - 1))
            first = barred + 1
        parts.append((first, last))
    return np.concatenate((np.delete(ranges, cut, axis=0), np.array(parts, np.int64).reshape(-1, 2)))


def _below(read: _Reading) -> int:
    """What a table that the entry just named leads to has to do with version information."""
    if not read.depth:
        return ABOVE if read.number >= read.named and read.least == _VERSION + 1 else PLAIN
    return INFORMATION if read.version == ABOVE and not read.number else PLAIN


def _target(read: _Reading, data: bytearray) -> Step:
    plan, view, number = read.plan, read.view, read.number
    start = read.region.start + HEAD + _ENTRY * number + 4
    need = _need(read, number + 1)
    base = view.map.address(read.root)
    deeper = read.depth + 1 < _DEPTH

    def allowed(x: int) -> bool:
        if x >= _HIGH:
            return deeper and view.fits(plan.ledger, x - _HIGH + base, HEAD, need)
        return view.fits(plan.ledger, x + base, LEAF, need)

    def build() -> Iterable[Piece]:
        yield from view.spans(plan.ledger, LEAF, need, shift=-base)
        if deeper:
            yield from view.spans(plan.ledger, HEAD, need, shift=_HIGH - base)

    def following(value: int, data: bytearray) -> Step:
        offset = view.map.offset((value & ~_HIGH) + base)
        assert offset is not None
        path = f"{read.region.path}[{number}]"
        if value >= _HIGH:
            region = Region(offset, offset + HEAD, TABLE, path, (read.root, read.depth + 1, _below(read)))
        else:
            region = Region(offset, offset + LEAF, LEAF_KIND, path, read.version == INFORMATION)
        return _entry(read._replace(plan=place(plan, region), number=number + 1), data)

    return IntStep(
        start, 4, IntSet(4, When(allowed, build)), read.path(f"entry[{number}].OffsetToData"),
        "where a leaf fits, or with the high bit set one more table", following,
    )  # fmt: skip


@opener(NAME)
def _open_name(plan: Plan, region: Region, data: bytearray) -> Step:
    stop = min(region.start + after(plan.ledger, region), mapping(plan.sections).stop(region.start))
    used = contents(plan).resource_bytes
    most = min((stop - region.start - 2) // 2, _MOST_NAME, 1 + budget(plan))

    def begin(value: int, data: bytearray) -> Step:
        kept: Contents = contents(plan)
        settled = plan._replace(contents=kept._replace(resource_bytes=used + value - 1))
        return letter(settled, region.start + 2, region.start + 2 + 2 * value, data)

    def letter(plan: Plan, position: int, end: int, data: bytearray) -> Step:
        if position == end:
            return proceed(plan, end, data)
        return IntStep(
            position, 2, _LETTERS, region.path, "a character of 16 bits",
            lambda value, data: letter(plan, position + 2, end, data),
        )  # fmt: skip

    return IntStep(
        region.start, 2, interval(2, 1, most), f"{region.path}.Length", f"1 to {most}: it fits",
        begin,
    )  # fmt: skip
