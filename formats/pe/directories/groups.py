"""Groups of imports: which DLLs a descriptor's names can still all come from.

At level "load" the names of functions and of their DLL are chosen apart, in whatever order the file has them, and
must agree in the end. A group keeps the DLLs that export every name read so far and for which the room left to
the names still unread is enough: never none. Room is what lies up to the next promise; a promise that comes to
lie behind an unread name takes room away, so promises are made by `place`, which keeps the group's account, and
the reserved end of an unread name is what the group's least demanding DLL needs.
"""

from __future__ import annotations

from typing import NamedTuple

from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.pe.directories.exported import Names, names
from bytegen.formats.pe.directories.memory import (
    Contents,
    address_tables,
    after,
    contents,
    mapping,
    merged,
)
from bytegen.formats.pe.plan import Plan

FUNCTION, DLL, TABLE = "import_name", "import_dll", "import_table"
SPARE = "import_spare"  # room kept for names of a bound table: see `import_options`
SPARE_NAME = 15  # a name of at most 12 letters, its hint and its zero
DELAYED_FUNCTION, DELAYED_DLL = "delay_name", "delay_dll"
HINT = 2
LEAST_FUNCTION = HINT + 2  # a name of one letter and its zero
LEAST_DLL = 5  # LIEF reads names of DLLs from 4 letters on
MOST_DLL = 255
MOST_ENTRIES = 4000  # of all tables: pefile counts 8192, lookup and address tables alike, with their ends
MOST_FUNCTION = 4096
_PLENTY = 1 << 20


class Group(NamedTuple):
    """What is settled of one descriptor's imports. At level "parse" only ``values`` and ``tables`` matter."""

    dlls: int = -1  # the DLLs that are still possible, as bits of the table
    room: int = _PLENTY  # the least room that a name of a function has had
    dll_room: int = _PLENTY  # the room that the name of the DLL has
    dll_at: int = -1  # file offset of the name of the DLL, while it is ahead and unread
    values: tuple[int, ...] | None = None  # the table's entries, once one of its copies is read
    tables: tuple[int, ...] = ()  # file offsets of its copies ahead
    spare: int = -1  # file offset of a name that no entry refers to yet
    most: int = MOST_ENTRIES  # entries that the table may have
    bound_at: int = -1  # file offset of an address table ahead that may be bound
    exact: int = 0  # entries that it must have, where the address table is written and bound


class Owner(NamedTuple):
    """Detail of a promised name or table: the index of its group, 0 for every name at level "parse"."""

    group: int


def table_of(plan: Plan) -> Names:
    """The names that resolve on the plan's machine."""
    return names(plan.target.plus, plan.libraries)


def group_of(plan: Plan, index: int) -> Group:
    """A group."""
    group: Group = contents(plan).imports[index]
    return group


def with_group(plan: Plan, index: int, group: Group) -> Plan:
    """The plan with one group replaced, or added when ``index`` is the next."""
    kept: Contents = contents(plan)
    groups = kept.imports
    return plan._replace(contents=kept._replace(imports=(*groups[:index], group, *groups[index + 1 :])))


def fitting(plan: Plan, group: Group) -> int:
    """The group's DLLs for which its room is enough."""
    table = table_of(plan)
    found = group.dlls & table.within(min(group.room, _PLENTY) - HINT - 1)
    return found & table.dlls_within(min(group.dll_room, _PLENTY) - 1)


def least_function(plan: Plan, group: Group) -> int:
    """Bytes that a new name of a function in the group needs."""
    return HINT + 1 + table_of(plan).shortest(group.dlls) if plan.resolved else LEAST_FUNCTION


def least_dll(plan: Plan, group: Group) -> int:
    """Bytes that the name of the group's DLL needs."""
    return 1 + table_of(plan).shortest_dll(group.dlls) if plan.resolved else LEAST_DLL


def narrowed(plan: Plan, index: int, dlls: int) -> Plan:
    """The plan in which the group's DLL is one of ``dlls`` too, not none of them.

    Names still unread get the bytes that the DLLs left need.
    """
    group = group_of(plan, index)
    kept = fitting(plan, group) & dlls
    if kept == group.dlls:
        return plan
    plan = settled(plan, index, group._replace(dlls=kept))
    if group.dll_at < 0:
        return plan
    end = group.dll_at + least_dll(plan, group_of(plan, index))
    return plan._replace(ledger=plan.ledger.grown(group.dll_at, end))


def settled(plan: Plan, index: int, group: Group) -> Plan:
    """The plan with a group that has fewer DLLs left: names of functions still unread get the bytes that those need."""
    before = least_function(plan, group_of(plan, index))
    plan = with_group(plan, index, group)
    need = least_function(plan, group)
    if need <= before:
        return plan
    return plan._replace(ledger=plan.ledger.each(lambda region: _grown(region, index, need)))


def _grown(region: Region, index: int, need: int) -> Region:
    if region.kind != FUNCTION or region.detail.group != index or region.end >= region.start + need:
        return region
    return region._replace(end=region.start + need)


def place(plan: Plan, region: Region) -> Plan:
    """The plan with one promise more (kept once where the same is there already).

    The promise before it, where it is an unread name of imports, has less room from now on.
    """
    ledger = plan.ledger.add(region)
    if ledger is plan.ledger:
        return plan
    plan = plan._replace(ledger=ledger)
    if not plan.resolved:
        return plan
    before = ledger.before(region.start)
    if before is not None:
        plan = _squeezed(plan, before)
    if region.kind in (FUNCTION, DLL):
        plan = _squeezed(plan, region)
    return plan


def placed_all(plan: Plan, regions: list[Region]) -> Plan:
    """`place` for several new promises, sorted, whose own group knows the room that they have."""
    ledger = merged(plan.ledger, regions)
    plan = plan._replace(ledger=ledger)
    if plan.resolved:
        own = {region.start for region in regions}
        for region in regions:
            before = ledger.before(region.start)
            if before is not None and before.start not in own:
                plan = _squeezed(plan, before)
    return plan


def _squeezed(plan: Plan, region: Region) -> Plan:
    """The plan after a look at the room of a name."""
    if region.kind not in (FUNCTION, DLL):
        return plan
    index = region.detail.group
    group = group_of(plan, index)
    room = min(after(plan.ledger, region), mapping(plan.sections).stop(region.start) - region.start)
    low, high = address_tables(plan)
    if region.start < low < high:
        room = min(room, low - region.start)
    if region.kind == FUNCTION:
        if room >= group.room:
            return plan
        group = group._replace(room=room)
    else:
        if room > group.dll_room:
            return plan
        group = group._replace(dll_room=room)
    return narrowed(with_group(plan, index, group), index, group.dlls)


def kept_spare(plan: Plan, index: int, count: int) -> Plan:
    """The plan in which a bound group's room in reserve is that of ``count`` more names."""
    group = group_of(plan, index)
    regions = list(plan.ledger.regions)
    i = next(i for i, r in enumerate(regions) if r.start == group.spare and r.kind == SPARE)
    start = regions[i].end - SPARE_NAME * count
    regions[i : i + 1] = [regions[i]._replace(start=start)] if count else []
    plan = plan._replace(ledger=Ledger(plan.ledger.limit, tuple(regions)))
    return with_group(plan, index, group._replace(spare=start if count else -1))


def released(plan: Plan, index: int) -> Plan:
    """The plan without the group's spare name, before the first entry of its table is read."""
    group = group_of(plan, index)
    if group.spare < 0:
        return plan
    spare = plan.ledger.at(group.spare, FUNCTION)
    if spare is not None:
        plan = plan._replace(ledger=plan.ledger.dropped(spare))
    return with_group(plan, index, group._replace(spare=-1, room=_PLENTY))
