"""Packed relative relocations (RELR): an address, which is even, then addresses and odd bitmaps of what follows.

Source: the generic-abi proposal that gABI took over; pyelftools asserts that an address comes first.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from bytegen.formats.core.intset import anything, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.core.records import Record, RecordsStep
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.elf import space, tables
from bytegen.formats.elf.plan import Plan, opener, proceed
from bytegen.formats.elf.written import Lazily, Table

RELR = "packed relocations"
_NOTHING: Piece = Finite((0,))


@lru_cache(maxsize=4)
def _record(word: int) -> Record:
    return Record(("entry", word, anything(word), "an address, or an odd bitmap"))


@opener(RELR)
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    word = plan.target.word
    count = (region.end - region.start) // word - 1

    def rest(_: int, data: bytearray) -> Step:
        after = region.start + word
        if not count:
            return proceed(plan, after, data)
        path = f"{region.path}.relr"
        return RecordsStep(after, count, _record(word), path, lambda data: proceed(plan, region.end, data))

    even = interval(word, 0, plan.target.top, 2)
    return IntStep(region.start, word, even, f"{region.path}.relr.first", "an address, which is even", rest)


def offsets(plan: Plan, table: Table, request: tables.Request) -> list[Piece]:
    """Where packed relocations are or fit."""
    least = max(request.least, plan.target.word)
    raw = table.behind.raw
    last = len(raw) - least

    def build() -> np.ndarray:
        places = np.arange(0, max(last + 1, 0), dtype=np.uint64)
        even: np.ndarray = places[np.frombuffer(raw, np.uint8)[: len(places)] & 1 == 0]
        return even

    return [
        Lazily(lambda x: x <= last and not raw[x] & 1, build),
        *space.starts(plan, table, RELR, request.index, least),
        space.same(plan, table, RELR, least),
    ]


def sizes(plan: Plan, table: Table, offset: int, request: tables.Request) -> list[Piece]:
    """Sizes of packed relocations at ``offset``."""
    word = plan.target.word
    least = space.up(request.least, word)
    nothing = [] if least else [_NOTHING]
    if offset < table.start:
        raw = table.behind.raw
        good = 0 if raw[offset] & 1 else (len(raw) - offset) // word
        return [*nothing, Span(least, word * good, word)]
    return [*nothing, *space.ahead(plan, table, offset, RELR, request.index, word, max(least, word))]


def promise(plan: Plan, offset: int, size: int, path: str, detail: Any = None) -> Plan:
    """The plan with packed relocations promised ahead."""
    return plan._replace(ledger=plan.ledger.add(Region(offset, offset + size, RELR, path, detail)))


tables.register(tables.Kind(RELR, offsets, sizes, promise))
