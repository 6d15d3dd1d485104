"""Tables of delayed imports: names of functions, and where they are called through until the DLL is loaded.

An entry of the table of names is an ordinal, or the address of a hint and a name; one of the table of addresses is the
address (not a relative one) of code that loads the DLL. Both end with a zero and have as many entries as the other:
the one that comes first in the file says how many.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.intset import IntSet
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Ranges, Span
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.pe.constants import MEM_EXECUTE
from bytegen.formats.pe.directories.groups import DELAYED_FUNCTION, LEAST_FUNCTION, place
from bytegen.formats.pe.directories.imported_names import FUNCTION_NAME
from bytegen.formats.pe.directories.memory import Contents, View, contents
from bytegen.formats.pe.directories.thunks import MOST_SPREAD, ordinal_flag, spread, written_name
from bytegen.formats.pe.plan import Plan, opener, proceed
from bytegen.formats.pe.sets import When

_NONE = np.zeros(0, np.int64)
NAMES, ADDRESSES = "delay_names", "delay_addresses"
MOST = 2000  # pefile counts 8192 entries of all tables
_MOST_REPEATED = 13
_ADDRESS_BITS = 0x7FFFFFFF
_MOST_ORDINAL = 0x7FFF  # LIEF leaves out greater ones


class Delayed(NamedTuple):
    """The tables of one DLL: how many entries they have, -1 while neither is read; file offsets of those ahead."""

    length: int = -1
    tables: tuple[int, ...] = ()


def delayed_of(plan: Plan, index: int) -> Delayed:
    """What is known of a DLL's tables."""
    found: Delayed = contents(plan).delayed[index]
    return found


def with_delayed(plan: Plan, index: int, delayed: Delayed) -> Plan:
    """The plan with one of them replaced, or added when ``index`` is the next."""
    kept: Contents = contents(plan)
    known = kept.delayed
    return plan._replace(contents=kept._replace(delayed=(*known[:index], delayed, *known[index + 1 :])))


def entries(plan: Plan, delayed: Delayed) -> int:
    """Bytes that a table needs at least."""
    return plan.target.word * ((delayed.length if delayed.length >= 0 else 1) + 1)


class _Reading(NamedTuple):
    """A table being read."""

    plan: Plan
    view: View
    region: Region
    values: tuple[int, ...] = ()

    @property
    def start(self) -> int:
        return self.region.start + self.plan.target.word * len(self.values)


@opener(NAMES)
@opener(ADDRESSES)
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    return _entry(_Reading(plan, View(plan, region.start, region.end, data), region), data)


def _extended(read: _Reading) -> Plan | None:
    """The plan in which every table of the DLL that is ahead has place for one more entry; None where one has not."""
    plan, word, count = read.plan, read.plan.target.word, len(read.values)
    delayed = delayed_of(plan, read.region.detail)
    if delayed.length >= 0:
        return plan if count < delayed.length else None
    if not count:
        return plan
    ledger = plan.ledger
    for start in delayed.tables:
        end, need = start + word * (count + 1), start + word * (count + 2)
        if need > read.view.map.stop(start) or ledger.room(end) < word or count >= MOST:
            return None
        ledger = ledger.grown(start, need)
    return plan._replace(ledger=ledger)


def _entry(read: _Reading, data: bytearray) -> Step:
    word, count = read.plan.target.word, len(read.values)
    known = delayed_of(read.plan, read.region.detail).length
    longer = _extended(read)
    pieces: list[Piece] = [Span(0, 0)] if (count if known < 0 else count == known) else []
    if longer is not None:
        read = read._replace(plan=longer)
        pieces += _names(read) if read.region.kind == NAMES else _addresses(read)
    plan = read.plan

    def following(value: int, data: bytearray) -> Step:
        if not value:
            return _ended(read, data)
        settled = plan
        offset = read.view.map.offset(value) if read.region.kind == NAMES else None
        if offset is not None and offset >= read.view.free and not value & ordinal_flag(plan):
            promise = Region(
                offset, offset + LEAST_FUNCTION, DELAYED_FUNCTION, f"{read.region.path}.name[{count}]"
            )
            settled = place(plan, promise)
        return _entry(read._replace(plan=settled, values=(*read.values, value)), data)

    return IntStep(
        read.start,
        word,
        IntSet(word, *pieces),
        ("{}[{}]", read.region.path, count),
        "what the other table has too: an entry, or the zero at the end",
        following,
    )


def written_names(view: View) -> np.ndarray:
    """int64, ascending: addresses of the functions' names that are written, as `written_name` takes them."""
    found: np.ndarray | None = view._memo.get("functions")
    if found is None:
        matches = [match.span() for match in FUNCTION_NAME.finditer(view.raw)]
        starts = [np.arange(max(start - 2, 0), end - 3) for start, end in matches]
        offsets = np.concatenate([_NONE, *starts])
        ends = np.repeat([end for _, end in matches], [len(part) for part in starts])
        low, high = view.barred
        good = (ends <= view.map.stops(offsets)) & ((offsets < low) | (offsets >= high))
        found = view._memo["functions"] = view.map.addresses_of(offsets[good])
    return found


def _names(read: _Reading) -> list[Piece]:
    """The entries of a table of names."""
    plan, view, flag = read.plan, read.view, ordinal_flag(read.plan)
    low, high = spread(read.values, flag)
    repeated = len(read.values) - len(set(read.values)) >= _MOST_REPEATED

    def allowed(x: int) -> bool:
        if not low <= x <= high or (repeated and x in read.values):
            return False
        offset = view.map.offset(x)
        if offset is None:
            return False
        ahead = (
            plan.ledger.at(offset, DELAYED_FUNCTION) is not None
            or view.ahead(plan.ledger, x) >= LEAST_FUNCTION
        )
        return ahead if offset >= view.free else written_name(view, x) is not None

    def build() -> Iterable[Piece]:
        ends = view.places(plan.ledger, LEAST_FUNCTION).T
        yield Ranges(np.stack((np.maximum(ends[0], low), np.minimum(ends[1], high)), axis=1))
        promised = view.map.addresses_of(view.promised(plan.ledger, DELAYED_FUNCTION))
        yield Finite([x for x in promised.tolist() if allowed(x)])
        written = written_names(view)
        written = written[(low <= written) & (written <= high)]
        if repeated:
            written = np.setdiff1d(written, [x for x in read.values if x <= high])
        yield Finite(written.astype(np.uint64))

    return [Span(flag | 1, flag | _MOST_ORDINAL), When(allowed, build)]


def _addresses(read: _Reading) -> list[Piece]:
    """The entries of a table of addresses; pefile takes a relative address in the table for a sign of nonsense."""
    first, last = read.view.map.address(read.region.start), read.view.map.address(read.start)
    found: list[Piece] = []
    for low, high in targets(read.plan):
        found += [Span(low, min(high, first - 1)), Span(max(low, last + 1), high)]
    return [span for span in found if span.bounds()]


def targets(plan: Plan) -> list[tuple[int, int]]:
    """The ranges of addresses (not relative ones) that a call may go to until the DLL is loaded."""
    flags = MEM_EXECUTE if plan.strict else 0
    held = (s for s in plan.sections if s.flags & flags == flags)
    return [(max(plan.base + s.address, 1), plan.base + s.address + s.size - 1) for s in held]


def _ended(read: _Reading, data: bytearray) -> Step:
    index = read.region.detail
    plan = with_delayed(read.plan, index, delayed_of(read.plan, index)._replace(length=len(read.values)))
    return proceed(plan, read.start + plan.target.word, data)


def written(plan: Plan, view: View, address: int, kind: str) -> int | None:
    """How many entries a table that is written at an address has; None where it is no good one."""
    word, flag = plan.target.word, ordinal_flag(plan)
    offset = view.behind(address, 2 * word)
    if offset is None or address % word or view.barred[0] <= offset < view.barred[1]:
        return None
    stop = min(view.here, view.map.stop(offset))
    spans, least, most = targets(plan), 1, _ADDRESS_BITS
    values: list[int] = []
    while offset + word <= stop and len(values) <= MOST:
        value = int.from_bytes(view.raw[offset : offset + word], "little")
        if not value:
            return len(values) if values and len(values) - len(set(values)) < _MOST_REPEATED else None
        inside = address <= value <= address + word * len(values)
        if kind == ADDRESSES:
            good = any(low <= value <= high for low, high in spans)
        elif value & flag:
            good = flag < value <= flag + _MOST_ORDINAL
        else:
            good = least <= value <= most and written_name(view, value) is not None
            least, most = max(least, value - MOST_SPREAD), min(most, value + MOST_SPREAD)
        if inside or not good:
            return None
        values.append(value)
        offset += word
    return None


def _likely(words: np.ndarray, plan: Plan, kind: str) -> list[int]:
    """The words from which on each could be an entry of a table, up to a zero: what `written` then looks at."""
    flag = ordinal_flag(plan)
    if kind == ADDRESSES:
        good = np.zeros(len(words), dtype=bool)
        for low, high in targets(plan):
            good |= (words >= np.uint64(low)) & (words <= np.uint64(high))
    else:
        good = (words >= np.uint64(1)) & (words <= np.uint64(flag + _MOST_ORDINAL))
    other = np.flatnonzero(~good)
    if not len(other):
        return []
    ends = other[words[other] == 0]
    # A run of good words counts where the word after it is a zero.
    first = np.concatenate(([-1], other))[np.searchsorted(other, ends)] + 1
    return [
        i
        for low, end in zip(first.tolist(), ends.tolist(), strict=True)
        for i in range(max(low, end - MOST), end)
    ]


def tables_behind(plan: Plan, view: View, kind: str) -> dict[int, int]:
    """The tables that are written: how many entries the one at each address has."""
    if kind not in view._memo:
        word, found = plan.target.word, dict[int, int]()
        for low, offset, size in view.map.spans:
            first, stop = offset + -low % word, min(offset + size, view.here)
            if first >= stop:
                continue
            words = np.frombuffer(view.raw, f"<u{word}", (stop - first) // word, first)
            for i in _likely(words, plan, kind):
                address = low + first - offset + word * i
                count = written(plan, view, address, kind)
                if count is not None:
                    found[address] = count
        view._memo[kind] = found
    tables: dict[int, int] = view._memo[kind]
    return tables


__all__ = [
    "ADDRESSES",
    "NAMES",
    "Delayed",
    "delayed_of",
    "entries",
    "tables_behind",
    "targets",
    "with_delayed",
    "written",
]
