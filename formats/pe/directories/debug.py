"""The debug directory: entries, each with data somewhere in the file.

The data are free but for what LIEF and pefile read of some types: sizes, and the signatures of CodeView and POGO.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from bytegen.formats.core.intset import IntSet, anything, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.core.quick import replacing
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.pe.directories.groups import place
from bytegen.formats.pe.directories.memory import View, room
from bytegen.formats.pe.plan import Plan, opener, proceed
from bytegen.formats.pe.sets import When

SIZE = 28
CODEVIEW, MISC, POGO, REPRO, CHECKSUM, EXTENDED = 2, 4, 13, 16, 19, 20
_LEAST = {CODEVIEW: 24, MISC: 12, POGO: 4, REPRO: 4, CHECKSUM: 1, EXTENDED: 4}
# "", "LTCG", "PGU\0": what LIEF knows
_POGO = exactly(4, 0, 0x4C544347, 0x50475500)
_ANY = {2: anything(2), 4: anything(4)}
_WORD = 4


@replacing
class _Entry(NamedTuple):
    """An entry being read."""

    plan: Plan
    view: View
    region: Region
    number: int
    kind: int = 0
    size: int = 0

    @property
    def start(self) -> int:
        return self.region.start + SIZE * self.number

    def path(self, name: str) -> str:
        return f"debug[{self.number}].{name}"


@opener("debug")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    view = View(plan, region.start, region.end, data)
    return _head(_Entry(plan, view, region, 0), 0, data)


_HEAD = (("Characteristics", 0, 4), ("TimeDateStamp", 4, 4), ("MajorVersion", 8, 2), ("MinorVersion", 10, 2))


def _head(entry: _Entry, i: int, data: bytearray) -> Step:
    if entry.start == entry.region.end:
        return proceed(entry.plan, entry.start, data)
    if i == len(_HEAD):
        return _kind(entry, data)
    name, at, size = _HEAD[i]
    return IntStep(
        entry.start + at, size, _ANY[size], entry.path(name), "any",
        lambda value, data: _head(entry, i + 1, data),
    )  # fmt: skip


def _kind(entry: _Entry, data: bytearray) -> Step:
    known = [
        kind
        for kind in range(21)
        if kind == REPRO or kind not in _LEAST or any(True for _ in _offsets(entry, kind, _LEAST[kind]))
    ]
    return IntStep(
        entry.start + 12, 4, IntSet(4, Finite(known)), entry.path("Type"), "a known type",
        lambda value, data: _size(entry._replace(kind=value), data),
    )  # fmt: skip


def _size(entry: _Entry, data: bytearray) -> Step:
    kind = entry.kind
    pieces: list[Piece] = []
    if kind == REPRO or kind not in _LEAST:
        pieces.append(Span(0, 0))
    least = _LEAST.get(kind, 1)

    def allowed(x: int) -> bool:
        return x >= least and any(True for _ in _offsets(entry, kind, x))

    def build() -> Iterable[Piece]:
        low, high = least, entry.plan.limit
        if not allowed(low):
            return
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if allowed(middle) else (low, middle - 1)
        yield Span(least, low)

    pieces.append(When(allowed, build))
    return IntStep(
        entry.start + 16, 4, IntSet(4, *pieces), entry.path("SizeOfData"),
        f"at least {least}, and no more than the file has place for",
        lambda value, data: _address(entry._replace(size=value), data),
    )  # fmt: skip


def _address(entry: _Entry, data: bytearray) -> Step:
    sections = (Span(s.address, s.address + s.size - 1) for s in entry.plan.sections)
    return IntStep(
        entry.start + 20, 4, IntSet(4, Span(0, 0), *sections), entry.path("AddressOfRawData"),
        "0, or an address in a section", lambda value, data: _pointer(entry, data),
    )  # fmt: skip


def _offsets(entry: _Entry, kind: int, size: int) -> Iterable[Span | int]:
    """Where data of that size are or fit.

    LIEF wants data in a section; those of POGO are where their signature is good or can be promised.
    """
    plan = entry.plan
    spans = [(offset, offset + length) for _, offset, length in entry.view.map.spans]
    if kind != POGO:
        yield from (Span(low, high - size) for low, high in spans if size <= high - low)
        return
    for low, high in entry.view.gaps(plan.ledger):
        most = min(high - _WORD, entry.view.map.stop(low) - size)
        if low <= most:
            yield Span(low, most)

    def whole(start: int) -> bool:
        return start + size <= entry.view.map.stop(start)

    yield from filter(whole, _signatures(entry.view))
    for region in plan.ledger.regions:
        if region.kind == "pogo" and region.start >= entry.view.free and whole(region.start):
            yield region.start


def _signatures(view: View) -> list[int]:
    """Where the signatures of profile-guided optimisation are written."""
    found: list[int] | None = view._memo.get("signatures")
    if found is None:
        found = [match.start() for match in re.finditer(rb"GCTL|\0UGP", view.raw)]
        view._memo["signatures"] = found
    return found


def _pointer(entry: _Entry, data: bytearray) -> Step:
    plan, kind, size = entry.plan, entry.kind, entry.size
    if not size:
        stored = (Span(offset, offset + length - 1) for _, offset, length in entry.view.map.spans)
        choices = IntSet(4, Span(0, 0), *stored)
    else:
        found = list(_offsets(entry, kind, size))
        spans = [piece for piece in found if isinstance(piece, Span)]
        choices = IntSet(4, *spans, Finite([piece for piece in found if isinstance(piece, int)]))

    def following(value: int, data: bytearray) -> Step:
        settled = plan.reach(value + size) if size else plan
        if size and kind == POGO and value >= entry.view.free and room(plan.ledger, value) >= _WORD:
            settled = place(settled, Region(value, value + _WORD, "pogo", entry.path("data")))
        return _head(entry._replace(plan=settled, number=entry.number + 1), 0, data)

    return IntStep(entry.start + 24, 4, choices, entry.path("PointerToRawData"), "in a section", following)


@opener("pogo")
def _open_pogo(plan: Plan, region: Region, data: bytearray) -> Step:
    return IntStep(
        region.start, 4, _POGO, f"{region.path}.signature", "a signature of profile-guided optimisation",
        lambda value, data: proceed(plan, region.end, data),
    )  # fmt: skip


__all__ = ["SIZE"]
