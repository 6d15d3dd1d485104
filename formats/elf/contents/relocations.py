"""Relocations, with addends (RELA) and without (REL): known types, and symbols that the linked table has.

The two kinds are "relocations" (RELA) and "relocations without addend" (REL).
Sources: gABI chapter 4; binutils' readelf.c (an unknown type, a symbol that is not there).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from bytegen.formats.core.intset import IntSet, anything, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.core.records import Record, RecordsStep
from bytegen.formats.core.steps import Step
from bytegen.formats.elf import space, tables
from bytegen.formats.elf.contents.records import RELOCATION_TYPES, relocation, split
from bytegen.formats.elf.plan import Plan, opener, proceed
from bytegen.formats.elf.target import Target
from bytegen.formats.elf.written import Behind, Table, until_bad

RELA, REL = "relocations", "relocations without addend"
_CHUNK = 4096
_NONE = np.zeros(0, np.uint64)
_NOTHING: Piece = Finite((0,))


class RelocationDetail(NamedTuple):
    """What relocations ahead need: the section of their symbol table, and how many symbols there are.

    ``link`` 0: no section header links them. ``symbols`` 0: as many as ``link`` has (one, the null symbol,
    without a link).
    """

    link: int = 0
    symbols: int = 0


def size_of(target: Target, rela: bool) -> int:
    """Bytes of a relocation."""
    return target.rela_size if rela else target.rel_size


@lru_cache(maxsize=8)
def _known(target: Target) -> np.ndarray:
    """bool for each type up to the greatest known one."""
    ranges = RELOCATION_TYPES[target.name]
    known = np.zeros(ranges[-1][1] + 2, dtype=bool)
    for low, high in ranges:
        known[low : high + 1] = True
    return known


def symbols_behind(plan: Plan, behind: Behind, start: int, rela: bool) -> np.ndarray:
    """Over the good relocations from ``start`` on: [i] is the greatest symbol among the first i + 1."""
    key = (RELA if rela else REL, start)
    if key not in behind.cache:
        behind.cache[key] = _run(plan.target, behind.raw, start, rela)
    found: np.ndarray = behind.cache[key]
    return found


def _run(target: Target, raw: bytes, start: int, rela: bool) -> np.ndarray:
    record, known = relocation(target, rela), _known(target)
    count = max(0, len(raw) - start) // record.itemsize
    seen = 0
    found: list[np.ndarray] = []
    while seen < count:
        have = min(_CHUNK, count - seen)
        table = np.frombuffer(raw, record, have, start + seen * record.itemsize)
        kinds, symbols = split(target, table)
        run = until_bad(known[np.minimum(kinds, len(known) - 1)])
        found.append(symbols[:run].astype(np.uint64))
        seen += run
        if run < have:
            break
    return np.maximum.accumulate(np.concatenate(found)) if seen else _NONE


@lru_cache(maxsize=64)
def _record(target: Target, rela: bool, symbols: int) -> Record:
    word = target.word
    addend = (("r_addend", word, anything(word), "any"),) if rela else ()
    low, high = (4, 4) if word == 8 else (1, 3)
    kinds = IntSet(low, *(Span(a, b) for a, b in RELOCATION_TYPES[target.name]))
    return Record(
        ("r_offset", word, anything(word), "any"),
        ("r_info.type", low, kinds, "a known type"),
        ("r_info.symbol", high, interval(high, 0, min(symbols, 1 << 8 * high) - 1), f"below {symbols}"),
        *addend,
    )


def _opener(rela: bool) -> None:
    @opener(RELA if rela else REL)
    def _open(plan: Plan, region: Region, data: bytearray) -> Step:
        detail: RelocationDetail = region.detail
        counts = [detail.symbols, plan.sections[detail.link].entries if detail.link else 0]
        symbols = min((count for count in counts if count), default=1)
        count = (region.end - region.start) // size_of(plan.target, rela)
        path = f"{region.path}.{'rela' if rela else 'rel'}"
        record = _record(plan.target, rela, symbols)
        return RecordsStep(region.start, count, record, path, lambda data: proceed(plan, region.end, data))


def _kind(rela: bool) -> tables.Kind:
    name = RELA if rela else REL

    def offsets(plan: Plan, table: Table, request: tables.Request) -> list[Piece]:
        least = max(request.least, size_of(plan.target, rela))
        behind = Span(0, table.start - least, plan.target.word)
        return [
            behind,
            *space.starts(plan, table, name, request.index, least),
            space.same(plan, table, name, least),
        ]

    def sizes(plan: Plan, table: Table, offset: int, request: tables.Request) -> list[Piece]:
        size = size_of(plan.target, rela)
        least = space.up(request.least, size)
        nothing = [] if least else [_NOTHING]
        if offset < table.start:
            symbols = request.detail.symbols if request.detail is not None else 1
            good = int(symbols_behind(plan, table.behind, offset, rela).searchsorted(max(symbols, 1)))
            return [*nothing, Span(least, size * good, size)]
        return [*nothing, *space.ahead(plan, table, offset, name, request.index, size, max(least, size))]

    def promise(plan: Plan, offset: int, size: int, path: str, detail: Any) -> Plan:
        detail = detail if detail is not None else RelocationDetail()
        known = plan.ledger.at(offset, name)
        if known is None:
            region = Region(offset, offset + size, name, path, detail)
            return plan._replace(ledger=plan.ledger.add(region))
        old: RelocationDetail = known.detail
        counts = [count for count in (old.symbols, detail.symbols) if count]
        merged = RelocationDetail(old.link or detail.link, min(counts, default=0))
        if merged == old:
            return plan
        return plan._replace(ledger=plan.ledger.replace(known, known._replace(detail=merged)))

    return tables.Kind(name, offsets, sizes, promise)


for _rela in (True, False):
    _opener(_rela)
    tables.register(_kind(_rela))
