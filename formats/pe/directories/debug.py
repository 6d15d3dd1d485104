"""The debug directory: entries, each with data somewhere in the file.

The data are free but for what LIEF and pefile read of some types: sizes, and the signatures of CodeView and POGO.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.intset import IntSet, anything, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Ranges, Span
from bytegen.formats.core.quick import replacing
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.pe.directories.groups import place
from bytegen.formats.pe.directories.memory import View
from bytegen.formats.pe.plan import Plan, opener, proceed

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
    stored, pogo = _most(entry, REPRO), _most(entry, POGO)
    known = [
        kind
        for kind in range(21)
        if kind == REPRO or kind not in _LEAST or (pogo if kind == POGO else stored) >= _LEAST[kind]
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
    least, most = _LEAST.get(kind, 1), _most(entry, kind)
    if most >= least:
        pieces.append(Span(least, most))
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


def _offsets(entry: _Entry, kind: int, size: int) -> list[Piece]:
    """Where data of that size are or fit.

    LIEF wants data in a section; those of POGO are where their signature is good or can be promised.
    """
    view = entry.view
    if kind != POGO:
        return [Span(begin, begin + length - size) for _, begin, length in view.map.spans if size <= length]
    low, high, _ = view.open_gaps(entry.plan.ledger).table
    known = _known(entry)
    whole = known[known + size <= view.map.stops(known)]
    ahead = np.stack((low, np.minimum(high - _WORD, view.map.stops(low) - size)), axis=1)
    return [Ranges(ahead), Finite(whole.astype(np.uint64))]


def _most(entry: _Entry, kind: int) -> int:
    """The greatest size for which `_offsets` has a place; less than 1 where there is none."""
    view, plan = entry.view, entry.plan
    if kind != POGO:
        return min(max((length for _, _, length in view.map.spans), default=0), plan.limit)

    def widest() -> int:
        low, high, _ = view.open_gaps(plan.ledger).table
        starts = np.concatenate((low[high - low >= _WORD], _known(entry)))
        return int((view.map.stops(starts) - starts).max()) if len(starts) else 0

    return min(int(view.for_ledger("most", plan.ledger, widest)), plan.limit)


def _known(entry: _Entry) -> np.ndarray:
    """int64: where signatures of profile-guided optimisation are written or promised."""
    view = entry.view
    promised = view.promised(entry.plan.ledger, "pogo")
    return np.concatenate((_signatures(view), promised[promised >= view.free]))


def _signatures(view: View) -> np.ndarray:
    """int64: where the signatures are written."""
    found: np.ndarray | None = view._memo.get("signatures")
    if found is None:
        found = np.array([match.start() for match in re.finditer(rb"GCTL|\0UGP", view.raw)], np.int64)
        view._memo["signatures"] = found
    return found


def _pointer(entry: _Entry, data: bytearray) -> Step:
    plan, kind, size = entry.plan, entry.kind, entry.size
    if not size:
        stored = (Span(offset, offset + length - 1) for _, offset, length in entry.view.map.spans)
        choices = IntSet(4, Span(0, 0), *stored)
    else:
        choices = IntSet(4, *_offsets(entry, kind, size))

    def following(value: int, data: bytearray) -> Step:
        settled = plan.reach(value + size) if size else plan
        if size and kind == POGO and value >= entry.view.free and plan.ledger.room(value) >= _WORD:
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
