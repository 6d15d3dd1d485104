"""Names in reserve: at level "load" each table of imports ahead has room kept for the name of its first entry.

Where they lie is nobody's business but ours, and a linker's names may lie there in the end: lld writes the names of
functions, then those of DLLs, up to the last bytes of a section. So there are several ways to keep them: late, in the
last gaps; together, at the end of the widest gap; and where room is scarce early, at the beginning of that gap, with
the DLL's name close behind. A descriptor may be completed in any of them. When a table is read those of the others are
kept late again, for by then its own names take the widest gap from the front; and while it is read they may move once
more, out of the way of a name that lies where they do.

At level "code" no name lies in an executable section, so at "load" none is kept there either while there is room
elsewhere: the names in reserve of a file that was made for "code" lie at the same places at both levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.pe.directories.groups import (
    DLL,
    FUNCTION,
    HINT,
    Owner,
    group_of,
    least_function,
    place,
    released,
    table_of,
    with_group,
)
from bytegen.formats.pe.directories.memory import View, contents, outside
from bytegen.formats.pe.plan import Plan

_SIZE = 64  # no DLL's shortest name is longer, so a spare name of this size rules none out
_NARROW = 4 * _SIZE
_FEW = (8, 12, 16)  # sizes of a name in reserve where room is scarce
_PATH = "imports.spare"
_FEW_MOVED = 4
_MOST_MOVED = 16  # moving takes time for each of them, and more have room enough elsewhere


def late(plan: Plan, index: int, view: View) -> Plan | None:
    """The plan with a group's name in reserve at the end of the last gap with place for it; None where there is none.

    One where it has all the room it can need, and takes none that a name promised before may need: that would rule out
    DLLs. Else any where it takes none; else, small, where it leaves that name most.
    """
    least = least_function(plan, group_of(plan, index))
    found = None
    for gaps in (_gaps(plan, view), view.gaps(plan.ledger)):
        found = _last(plan, index, gaps, least) if found is None else found
    return found


def _last(plan: Plan, index: int, every: list[tuple[int, int]], least: int) -> Plan | None:
    """`late` in these gaps."""
    gaps = [(max(low, high - _SIZE), high) for low, high in every if high - low >= least]
    harmless = [row for row in gaps if _harmless(plan, row[0])]
    roomy = [(start, high) for start, high in harmless if high - start == _SIZE]
    if harmless:
        return _kept(plan, index, *(roomy or harmless)[-1])
    size = max(_FEW[-1], least)
    return _small(plan, index, [high for start, high in gaps if high - start >= size], size)


def _small(plan: Plan, index: int, ends: list[int], size: int) -> Plan | None:
    """The plan with a name in reserve of that size before one of the ends, where it leaves the name before it most."""
    ledger = plan.ledger
    ends = [end for end in ends if not _beside_own(plan, index, end - size)]
    if not ends:
        return None
    end = max(ends, key=lambda end: _left(ledger, end - size))
    return _kept(plan, index, end - size, end)


def _harmless(plan: Plan, start: int) -> bool:
    """Whether a promise from there on leaves the name promised before it, if it is one, all room it can need."""
    return _left(plan.ledger, start) == _SIZE


def together(plan: Plan, index: int, view: View) -> Plan | None:
    """The plan with a group's name in reserve, and those of the groups before it, at the end of the widest gap.

    None where it does not take them all, or they are too many.
    """
    groups = (*_reserved(plan), index)
    if len(groups) > _MOST_MOVED:
        return None
    plan = _without(plan, groups)
    low, high = _widest(plan, view)
    first = high - _SIZE * len(groups)
    if first < low or not _harmless(plan, first):
        return None
    for group in groups:
        plan, high = _kept(plan, group, high - _SIZE, high), high - _SIZE
    return plan


def early(plan: Plan, index: int, view: View) -> Iterator[Plan]:
    """The plans with a group's name in reserve at the beginning of the widest gap, if that is narrow.

    What comes close behind it must not rule out DLLs later on, so each size rules them out at once.
    """
    low, high = _widest(plan, view)
    if high - low >= _NARROW or not _harmless(plan, low):
        return
    group, seen = group_of(plan, index), 0
    for size in _FEW:
        dlls = group.dlls & table_of(plan).within(size - HINT - 1)
        if size <= high - low and dlls != seen:
            yield _kept(with_group(plan, index, group._replace(dlls=dlls)), index, low, low + size)
        seen = dlls


def _gaps(plan: Plan, view: View) -> list[tuple[int, int]]:
    """The gaps that level "code" has too; all of them where it has none."""
    every = view.gaps(plan.ledger)
    return list(outside(every, plan)) or every


def _widest(plan: Plan, view: View) -> tuple[int, int]:
    return max(_gaps(plan, view), key=lambda gap: gap[1] - gap[0], default=(0, 0))


def late_again(plan: Plan, index: int, view: View) -> Plan:
    """The plan in which all names in reserve are late, that of the group ``index`` last.

    The plan as it is where they do not fit, or are too many.
    """
    groups = sorted(_reserved(plan), key=lambda group: (group == index, group))
    if len(groups) > _MOST_MOVED:
        return plan
    moved = _without(plan, groups)
    for group in groups:
        placed = late(moved, group, view)
        if placed is None:
            return plan
        moved = placed
    return moved


def elsewhere(plan: Plan, view: View) -> Plan | None:
    """The plan in which names in reserve, where they are few and room is scarce, are small and all at other places.

    Each goes where it leaves the name that is promised before it most; None where there is no such place, or no need.
    """
    groups, (low, high) = _reserved(plan), _widest(plan, view)
    if not 0 < len(groups) <= _FEW_MOVED or high - low >= _NARROW:
        return None
    kept = [plan.ledger.at(group_of(plan, group).spare, FUNCTION) for group in groups]
    moved = _without(plan, groups)
    for group in groups:
        size = max(_FEW[-1], least_function(moved, group_of(moved, group)))
        ends = [
            end
            for start, end in _gaps(moved, view)
            if end - start >= size and not any(r and r.start < end and end - size < r.end for r in kept)
        ]
        placed = _small(moved, group, ends, size)
        if placed is None:
            return None
        moved = placed
    return moved


def _beside_own(plan: Plan, index: int, start: int) -> bool:
    """Whether a place is close behind the name of the group's DLL: both would have to be short, and of one DLL."""
    before, own = plan.ledger.before(start), group_of(plan, index).dll_at
    return before is not None and before.kind == DLL and before.start == own and start - own < _SIZE


def _left(ledger: Ledger, start: int) -> int:
    """Bytes left to the name promised before a place; as good as any where it is no name, or has all it can need."""
    before = ledger.before(start)
    name = before is not None and before.kind in (FUNCTION, DLL) and before.path != _PATH
    return min(start - before.start, _SIZE) if name and before is not None else _SIZE


def _reserved(plan: Plan) -> list[int]:
    """The groups with a name in reserve (a bound table's is another matter)."""
    return [i for i, group in enumerate(contents(plan).imports) if group.spare >= 0 and not group.exact]


def _without(plan: Plan, groups: Iterable[int]) -> Plan:
    """The plan without the names in reserve of these groups."""
    for group in groups:
        plan = released(plan, group)
    return plan


def _kept(plan: Plan, index: int, start: int, end: int) -> Plan:
    plan = with_group(plan, index, group_of(plan, index)._replace(spare=start))
    return place(plan, Region(start, end, FUNCTION, _PATH, Owner(index)))


__all__ = ["early", "elsewhere", "late", "late_again", "together"]
