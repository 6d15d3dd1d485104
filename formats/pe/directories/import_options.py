"""Options of an import descriptor: the ways to complete it, from before its first field is read.

An address table that is still to be promised, with a name in reserve at level "load" until the table's first entry is
read, so that there is one to import; or one that is written already, whose names are promised, or written and right;
or one that is written and bound: it holds the addresses that functions had when the file was made, whatever they are,
and the lookup table has as many entries as it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bytegen.formats.core.ledger import Region
from bytegen.formats.pe.directories.groups import (
    FUNCTION,
    HINT,
    LEAST_FUNCTION,
    MOST_ENTRIES,
    SPARE,
    SPARE_NAME,
    Group,
    Owner,
    fitting,
    group_of,
    least_dll,
    least_function,
    place,
    placed_all,
    table_of,
    with_group,
)
from bytegen.formats.pe.directories.memory import View, contents
from bytegen.formats.pe.directories.spare_names import early, late, together
from bytegen.formats.pe.directories.thunks import MOST_SPREAD, ordinal_flag, written_name
from bytegen.formats.pe.plan import Plan


class Option(NamedTuple):
    """A way to complete a descriptor: the plan so far, and the address table that is written (or None)."""

    plan: Plan
    address: int | None = None
    values: tuple[int, ...] | None = None
    bound: int = 0  # entries of a table that is written and bound

    @property
    def entries(self) -> int:
        """Entries that the tables have at least, with the null one."""
        return len(self.values) + 1 if self.values is not None else (self.bound or 1) + 1

    def takes_lookup(self, offset: int) -> bool:
        """Whether the lookup table can be at a file offset, as far as the option itself goes.

        That of a bound table comes before the room kept for its names.
        """
        group = group_of(self.plan, -1)
        return not self.bound or group.spare < 0 or offset < group.spare


def _least_name(option: Option) -> int:
    return least_dll(option.plan, group_of(option.plan, -1))


def need(option: Option) -> int:
    """Bytes in a row that the name of the DLL needs, whatever a table placed before it does to other names."""
    if option.plan.resolved and option.values is not None:
        return 1 + table_of(option.plan).longest_dll(group_of(option.plan, -1).dlls)
    return _least_name(option)


def options_of(plan: Plan, view: View, start: int, end: int) -> Iterable[Option]:
    """The ways to complete one more descriptor, before any of its fields is known."""
    plan = plan._replace(ledger=plan.ledger.grown(start, end))
    index, word = len(contents(plan).imports), plan.target.word
    all_dlls = table_of(plan).all if plan.resolved else -1
    fresh = with_group(plan, index, Group(dlls=all_dlls))
    if any(high - low - low % 2 >= 2 * word for low, high in view.gaps(plan.ledger, barred=True)):
        plans: list[Plan | None] = [fresh]
        if plan.resolved:
            plans = [late(fresh, index, view), together(fresh, index, view), *early(fresh, index, view)]
        for ahead in (Option(found) for found in plans if found is not None):
            if view.spans(ahead.plan.ledger, 2 * word, need(ahead)):
                yield ahead
    for address, values, good in _written_tables(plan, view):
        option = _placed(fresh, index, view, address, values) if good else None
        if option is None:
            option = _bound(fresh, index, view, address, values)
        if option is not None and any(b - a >= need(option) for a, b in view.gaps(option.plan.ledger)):
            yield option


def _bound(plan: Plan, index: int, view: View, address: int, values: tuple[int, ...]) -> Option | None:
    """The option of a written address table that is bound.

    At level "load" there is room in reserve for a name of each entry; its DLL is one that exports a short one.
    """
    word, count = plan.target.word, len(values)
    # pefile takes an address inside the table for a sign of nonsense.
    if any(address <= value <= address + word * i for i, value in enumerate(values)) or count >= MOST_ENTRIES:
        return None
    offset = view.map.offset(address)
    assert offset is not None
    group = group_of(plan, index)._replace(tables=(offset,), exact=count)
    if not plan.resolved:
        return Option(with_group(plan, index, group), address, None, count)
    size = SPARE_NAME * count
    short = table_of(plan).within(SPARE_NAME - HINT - 1)
    for low, high in reversed(view.gaps(plan.ledger)):
        if high - low >= size:
            group = group._replace(spare=high - size, dlls=group.dlls & short)
            plan = with_group(plan, index, group)
            region = Region(high - size, high, SPARE, "imports.spare", Owner(index))
            return Option(place(plan, region), address, None, count)
    return None


def _written_tables(plan: Plan, view: View) -> list[tuple[int, tuple[int, ...], bool]]:
    """The address tables written in the directory of address tables: runs of entries, each up to a zero.

    The last says whether the entries can be those of a table that is not bound.
    """
    memo = view._memo
    if "tables" not in memo:
        memo["tables"] = list(_runs(plan, view))
    used = {group.tables[0] for group in contents(plan).imports if group.tables}
    return [row for row in memo["tables"] if view.map.offset(row[0]) not in used]


def _runs(plan: Plan, view: View) -> Iterable[tuple[int, tuple[int, ...], bool]]:
    word, flag = plan.target.word, ordinal_flag(plan)
    low, high = view.barred
    high = min(high, view.here)
    start, values, good = low, list[int](), True
    least, most = 1, 0x7FFFFFFF
    for place_ in range(low, high - word + 1, word):
        value = int.from_bytes(view.raw[place_ : place_ + word], "little")
        if value:
            ordinal = flag < value <= flag + 0xFFFF
            within = ordinal or least <= value <= most
            good = good and within and len(values) < MOST_ENTRIES
            values.append(value)
            if good and not ordinal:
                least, most = max(least, value - MOST_SPREAD), min(most, value + MOST_SPREAD)
            continue
        if values and start % 2 == 0:
            yield view.map.address(start), tuple(values), good and len(values) - len(set(values)) < 13
        start, values, good = place_ + word, [], True
        least, most = 1, 0x7FFFFFFF


def _placed(plan: Plan, index: int, view: View, address: int, values: tuple[int, ...]) -> Option | None:
    """The option of a written address table: its names are promised, or written and right."""
    flag = ordinal_flag(plan)
    dlls = group_of(plan, index).dlls
    table = table_of(plan) if plan.resolved else None
    ahead: list[int] = []
    for value in values:
        if value & flag:
            if table is not None:
                dlls &= table.with_ordinal(value & 0xFFFF)
            continue
        offset = view.map.offset(value)
        if offset is None:
            return None
        if offset >= view.free:
            ahead.append(offset)
            continue
        name = written_name(view, value)
        if name is None:
            return None
        if table is not None:
            dlls &= table.exporters(name)
    if not dlls:
        return None
    offset = view.map.offset(address)
    assert offset is not None
    plan = with_group(plan, index, group_of(plan, index)._replace(dlls=dlls, tables=(offset,)))
    placed = _names(plan, index, view, sorted(set(ahead)))
    return None if placed is None else Option(placed, address, values)


def _names(plan: Plan, index: int, view: View, offsets: list[int]) -> Plan | None:
    """The plan in which names are promised at these offsets; None where they do not fit."""
    if not offsets:
        return plan
    group, ledger = group_of(plan, index), plan.ledger
    owner = Owner(index if plan.resolved else 0)
    path = f"imports[{index - 1}].name"
    new: list[Region] = []
    rooms = []
    for i, offset in enumerate(offsets):
        known = ledger.at(offset, FUNCTION)
        if known is not None and known.detail == owner:
            continue
        most = view.ahead(ledger, view.map.address(offset))
        if i + 1 < len(offsets):
            most = min(most, offsets[i + 1] - offset)
        if most < LEAST_FUNCTION:
            return None
        rooms.append(most)
        new.append(Region(offset, offset, FUNCTION, path, owner))
    if not new:
        return plan
    if plan.resolved:
        group = group._replace(room=min(group.room, *rooms))
        group = group._replace(dlls=fitting(plan, group))
        if not group.dlls:
            return None
        plan = with_group(plan, index, group)
    least = least_function(plan, group)
    return placed_all(plan, [region._replace(end=region.start + least) for region in new])
