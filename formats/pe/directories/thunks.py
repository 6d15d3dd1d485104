"""Tables of imported functions: lookup tables, and address tables, which hold the same until a file is loaded.

An entry is an ordinal, or the address of a hint and a name; a zero ends the table. The copy that comes first in
the file is read; the other must then equal it. pefile gives up a table in which an address comes back 15 times.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.intset import IntSet, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.pe.directories.groups import (
    FUNCTION,
    HINT,
    MOST_ENTRIES,
    TABLE,
    Group,
    Owner,
    group_of,
    kept_spare,
    least_function,
    narrowed,
    place,
    released,
    table_of,
    with_group,
)
from bytegen.formats.pe.directories.import_places import function_fits, function_places
from bytegen.formats.pe.directories.import_reads import stop_of_imports
from bytegen.formats.pe.directories.imported_names import FUNCTION_NAME, function_at, possible
from bytegen.formats.pe.directories.memory import Scanned, View, contents, mapping, read_by_loaders
from bytegen.formats.pe.directories.spare_names import elsewhere, late_again
from bytegen.formats.pe.plan import Plan, opener, proceed
from bytegen.formats.pe.sets import When

_MOST_REPEATED = 13
_ADDRESS_BITS = 0x7FFFFFFF
MOST_SPREAD = 1 << 27


class Reading(NamedTuple):
    """A table being read: its group, its place, the file behind it, and the entries so far."""

    group: int
    region: Region
    view: View
    values: tuple[int, ...] = ()
    repeated: int = 0
    near: int = -1  # the address of the room kept for names of a bound table


def ordinal_flag(plan: Plan) -> int:
    """The bit that marks an entry as an ordinal."""
    return 1 << (8 * plan.target.word - 1)


@opener(TABLE)
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    group = group_of(plan, region.detail.group)
    if group.values is not None:
        if region.start == group.bound_at:
            return _address(plan, region, len(group.values), 0)
        return _repeat(plan, region, (*group.values, 0), 0)
    if contents(plan).scanned is None:
        plan = plan._replace(contents=contents(plan)._replace(scanned=Scanned()))
    view = View(plan, region.start, region.end, data, stop_of_imports(plan), read_by_loaders(plan))
    near = view.map.address(group.spare) if group.exact and group.spare >= 0 else -1
    if plan.resolved:
        plan = late_again(plan, region.detail.group, view)
    return _entry(plan, Reading(region.detail.group, region, view, near=near), data)


def _repeat(plan: Plan, region: Region, values: tuple[int, ...], i: int) -> Step:
    word = plan.target.word
    stop = region.start + word * (i + 1)
    return IntStep(
        stop - word,
        word,
        exactly(word, values[i]),
        f"{region.path}[{i}]",
        "the same as in the table's other copy",
        lambda value, data: (
            proceed(plan, stop, data) if i + 1 == len(values) else _repeat(plan, region, values, i + 1)
        ),
    )


def _address(plan: Plan, region: Region, entries: int, i: int) -> Step:
    """An entry of the address table behind the lookup table, where the table may be bound: any address.

    pefile takes an address inside the table for a sign of nonsense.
    """
    word = plan.target.word
    stop = region.start + word * (i + 1)
    if i == entries:
        choices, rule = exactly(word, 0), "0: the end of the table"
    else:
        first = mapping(plan.sections).address(region.start)
        choices = IntSet(word, Span(1, first - 1), Span(first + word * i + 1, (1 << 8 * word) - 1))
        rule = "any but 0 and addresses in the table: it may be bound"
    return IntStep(
        stop - word,
        word,
        choices,
        ("{}[{}]", region.path, i),
        rule,
        lambda value, data: (
            proceed(plan, stop, data) if i == entries else _address(plan, region, entries, i + 1)
        ),
    )


def entries(plan: Plan) -> int:
    """Entries of the tables that are read."""
    return sum(len(group.values or ()) + 1 for group in contents(plan).imports)


def _extended(plan: Plan, reading: Reading) -> Plan | None:
    """The plan in which every copy of the table has place for one more entry; None where there is none."""
    word, count = plan.target.word, len(reading.values)
    ledger = plan.ledger
    group = group_of(plan, reading.group)
    if not count:
        return plan
    if group.exact:
        return plan if count < group.exact else None
    if count >= group.most or count + entries(plan) >= MOST_ENTRIES:
        return None
    for start in group.tables:
        end, need = start + word * (count + 1), start + word * (count + 2)
        stop = reading.view.map.stop(start)
        low, high = reading.view.barred
        if low <= start < high:
            stop = min(stop, high)
        if need > stop or ledger.room(end) < word:
            return None
        ledger = ledger.grown(start, need)
    return plan._replace(ledger=ledger)


def _entry(plan: Plan, reading: Reading, data: bytearray) -> Step:
    word, count = plan.target.word, len(reading.values)
    start = reading.region.start + word * count
    longer = _extended(plan, reading)
    exact, spare = _bound(plan, reading)
    pieces: list[Piece] = [Span(0, 0)] if (count == exact if exact else count) else []
    if longer is not None:
        if spare >= 0:
            longer = kept_spare(longer, reading.group, exact - count - 1)
        elif not count:
            longer = released(longer, reading.group)
        usual = _choices(longer, reading)
        pieces += usual
        if plan.resolved and spare < 0:
            moved = _Moved(longer, reading)
            pieces.append(When(moved.allows, lambda: moved.pieces))

    def following(value: int, data: bytearray) -> Step:
        if not value:
            return _ended(plan, reading, data)
        assert longer is not None
        if any(piece.contains(value) for piece in usual):
            return _next(longer, reading, value, data)
        assert moved.plan is not None
        return _next(moved.plan, reading, value, data)

    return IntStep(
        start,
        word,
        IntSet(word, *pieces),
        f"{reading.region.path}[{count}]",
        "an ordinal, the address of a hint and a name, or the zero at the end",
        following,
    )


class _Moved:
    """The entries that are possible with the names in reserve elsewhere, found when somebody asks."""

    def __init__(self, plan: Plan, reading: Reading) -> None:
        self._given = plan, reading

    @cached_property
    def plan(self) -> Plan | None:
        """The plan with those names elsewhere, if they can be there."""
        plan, reading = self._given
        return elsewhere(plan, reading.view)

    @cached_property
    def pieces(self) -> list[Piece]:
        """The entries."""
        return [] if self.plan is None else _choices(self.plan, self._given[1])

    def allows(self, x: int) -> bool:
        """Whether ``x`` is one of them."""
        return any(piece.contains(x) for piece in self.pieces)


def _bound(plan: Plan, reading: Reading) -> tuple[int, int]:
    """How many entries the table must have, where it is bound, and the file offset of the room kept for names."""
    group = group_of(plan, reading.group)
    return group.exact, group.spare if group.exact else -1


def spread(values: tuple[int, ...], flag: int) -> tuple[int, int]:
    """The least and the greatest address that may join these entries: pefile wants all within 128 MiB."""
    addresses = [value for value in values if not value & flag]
    if not addresses:
        return 1, _ADDRESS_BITS
    return max(max(addresses) - MOST_SPREAD, 1), min(min(addresses) + MOST_SPREAD, _ADDRESS_BITS)


def _choices(plan: Plan, reading: Reading) -> list[Piece]:
    """The entries that are no end of the table."""
    flag, view = ordinal_flag(plan), reading.view
    group = group_of(plan, reading.group)
    pieces: list[Piece] = []
    if plan.resolved:
        ordinals = table_of(plan).ordinal_entries(group.dlls, flag)
        if ordinals is not None:
            pieces.append(ordinals)
    else:
        pieces.append(Span(flag | 1, flag | 0xFFFF))

    low, high = spread(reading.values, flag)
    if reading.near >= 0:
        # The room in reserve must stay within reach.
        low, high = max(low, reading.near - MOST_SPREAD // 2), min(high, reading.near + MOST_SPREAD // 2)

    def allowed(x: int) -> bool:
        if not low <= x <= high:
            return False
        return function_fits(plan, view, reading.group, x) or _known(plan, reading, group, x)

    def build() -> Iterable[Piece]:
        yield from function_places(plan, view, reading.group, low, high)
        known = _existing(plan, reading, group)
        yield Finite(known[(known >= low) & (known <= high)])

    pieces.append(When(allowed, build))
    return pieces


def _existing(plan: Plan, reading: Reading, group: Group) -> np.ndarray:
    """Addresses (uint64) for which `_known`: of names that are promised, and of names behind."""
    view, owner = reading.view, _owner(plan, reading.group)
    promised = [region for region in plan.ledger.regions if region.kind == FUNCTION]
    spent = {view.map.address(region.start) for region in promised if region.start < view.free}
    if reading.repeated >= _MOST_REPEATED:
        spent.update(reading.values)
    ahead = [view.map.address(r.start) for r in promised if r.start >= view.free and r.detail == owner]
    found = [np.array(ahead, np.uint64)]
    for dlls, addresses in _names_behind(plan, view).items():
        if dlls & group.dlls or not plan.resolved:
            found.append(addresses)
    known = np.concatenate(found)
    if spent and len(known):
        known = known[np.isin(known, np.array(list(spent), np.uint64), invert=True)]
    return known


def _names_behind(plan: Plan, view: View) -> dict[int, np.ndarray]:
    """Addresses of the names written before, with their hints, by the DLLs that export them (0 at level "parse")."""
    if "names" not in view._memo:
        found = _written_names(plan, view)
        view._memo["names"] = {dlls: np.array(places, np.uint64) for dlls, places in found.items()}
    behind: dict[int, np.ndarray] = view._memo["names"]
    return behind


def _written_names(plan: Plan, view: View) -> dict[int, list[int]]:
    """The same as lists. What the table before found is taken over, and the bytes after it are looked at."""
    scanned = contents(plan).scanned
    raw, known = scanned.names if scanned is not None else (b"", {})
    if not view.raw.startswith(raw):  # a fork has written other bytes
        raw, known = b"", {}
    found = {dlls: places.copy() for dlls, places in known.items()}
    table = table_of(plan) if plan.resolved else None
    barred = range(*view.barred)
    for match in FUNCTION_NAME.finditer(view.raw, raw.rfind(0) + 1):
        end = match.end()
        for offset in range(max(match.start() - HINT, 0), end - HINT - 1):
            # What `written_name` asks: the name is all in one section, and in no address table.
            if end <= view.map.stop(offset) and offset not in barred:
                dlls = table.exporters(view.raw[offset + HINT : end - 1]) if table is not None else 0
                if dlls or table is None:
                    found.setdefault(dlls, []).append(view.map.address(offset))
    if scanned is not None:
        scanned.names = view.raw, found
    return found


def _known(plan: Plan, reading: Reading, group: Group, x: int) -> bool:
    """Whether an entry may refer to ``x``: a name promised to the same group, or one written before."""
    view = reading.view
    offset = view.map.offset(x)
    if offset is None:
        return False
    if reading.repeated >= _MOST_REPEATED and x in reading.values:
        return False
    promised = plan.ledger.at(offset, FUNCTION)
    if promised is not None:
        return offset >= view.free and promised.detail == _owner(plan, reading.group)
    name = written_name(view, x)
    return name is not None and bool(possible(plan, group, name))


def written_name(view: View, x: int) -> bytes | None:
    """The name, with its hint, that is written at an address outside of the address tables."""
    offset = view.behind(x, HINT + 2)
    if offset is None or view.barred[0] <= offset < view.barred[1]:
        return None
    return function_at(view.raw, offset, min(view.here, view.map.stop(offset)))


def _owner(plan: Plan, group: int) -> Owner:
    return Owner(group if plan.resolved else 0)


def referred(plan: Plan, index: int, view: View, x: int, path: str) -> Plan:
    """The plan after an entry: a name is promised, or what is known of the DLL gets narrower."""
    flag = ordinal_flag(plan)
    if x & flag:
        if plan.resolved:
            plan = narrowed(plan, index, table_of(plan).with_ordinal(x & 0xFFFF))
        return plan
    offset = view.map.offset(x)
    assert offset is not None
    if offset < view.here:
        name = written_name(view, x)
        assert name is not None
        return narrowed(plan, index, table_of(plan).exporters(name)) if plan.resolved else plan
    end = offset + least_function(plan, group_of(plan, index))
    return place(plan, Region(offset, end, FUNCTION, path, _owner(plan, index)))


def _next(plan: Plan, reading: Reading, value: int, data: bytearray) -> Step:
    seen = value in reading.values and not value & ordinal_flag(plan)
    path = f"{reading.region.path}.name[{len(reading.values)}]"
    plan = referred(plan, reading.group, reading.view, value, path)
    reading = reading._replace(values=(*reading.values, value), repeated=reading.repeated + seen)
    return _entry(plan, reading, data)


def _ended(plan: Plan, reading: Reading, data: bytearray) -> Step:
    group = group_of(plan, reading.group)
    plan = with_group(plan, reading.group, group._replace(values=reading.values))
    end = reading.region.start + plan.target.word * (len(reading.values) + 1)
    return proceed(plan, end, data)


__all__ = ["MOST_SPREAD", "Reading", "ordinal_flag", "referred", "spread", "written_name"]
