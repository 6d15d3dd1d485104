"""Where names of imports fit ahead: the exact sets.

A name takes room from the unread name before it. Where both are of one group, it must be one DLL that the room of
each is enough for; so close behind such a name every place is looked at by itself, and farther off only the room
ahead counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

import numpy as np

from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Ranges
from bytegen.formats.pe.directories.groups import (
    DLL,
    FUNCTION,
    HINT,
    Group,
    group_of,
    least_dll,
    least_function,
    table_of,
)
from bytegen.formats.pe.directories.memory import View
from bytegen.formats.pe.plan import Plan

_LEAST_FAR = 64  # past this distance no name of the table is short of room


def _before(plan: Plan, offset: int) -> Region | None:
    """The promise before a place ahead."""
    return plan.ledger.before(offset)


def _starts_before(plan: Plan, low: int) -> tuple[int, ...]:
    """Where the promises before places in the gap from ``low`` on begin: one may begin where the gap does."""
    found = (_before(plan, low), _before(plan, low + 1))
    return tuple(region.start for region in found if region is not None)


def dll_fits(plan: Plan, view: View, x: int) -> bool:
    """Whether the name of the last group's DLL can be promised at an address."""
    room = view.ahead(plan.ledger, x)
    index = -1
    group = group_of(plan, index)
    if room < least_dll(plan, group):
        return False
    if not plan.resolved:
        return True
    offset = view.map.offset(x)
    assert offset is not None
    before = _before(plan, offset)
    own = before is not None and before.kind == FUNCTION and group_of(plan, before.detail.group) is group
    if before is None or not own:
        return True
    table = table_of(plan)
    left = offset - before.start - HINT - 1
    left = min(left, group.room - HINT - 1)
    return bool(group.dlls & table.within(left) & table.dlls_within(min(room, 1 << 20) - 1))


def dll_places(plan: Plan, view: View) -> Iterator[Piece]:
    """The addresses for which `dll_fits`."""
    least = least_dll(plan, group_of(plan, -1))
    names = {region.start for region in plan.ledger.regions if region.kind == FUNCTION}
    far = []
    for low, high in view.gaps(plan.ledger):
        close = plan.resolved and not names.isdisjoint(_starts_before(plan, low))
        near = min(low + _LEAST_FAR, high) if close else low
        move = view.map.address(low) - low
        if close:
            yield Finite([x + move for x in range(low, near) if dll_fits(plan, view, x + move)])
        far.append((near + move, high - least + move))
    yield Ranges(far)


def function_fits(plan: Plan, view: View, index: int, x: int) -> bool:
    """Whether a new name of a function of the group can be promised at an address."""
    room = view.ahead(plan.ledger, x)
    group = group_of(plan, index)
    if room < least_function(plan, group):
        return False
    if not plan.resolved or group.dll_at < 0:
        return True
    offset = view.map.offset(x)
    assert offset is not None
    before = _before(plan, offset)
    if before is None or before.kind != DLL or before.start != group.dll_at:
        return True
    table = table_of(plan)
    fitting = table.dlls_within(offset - before.start - 1) & table.within(min(room, 1 << 20) - HINT - 1)
    return bool(group.dlls & fitting)


def _close(plan: Plan, view: View, group: Group, low: int, high: int, places: range, move: int) -> Finite:
    """The offsets, as addresses, in the gap [low, high), for which `function_fits`; it may be close to a DLL's name.

    Kept for the next entry of the table, before which little changes.
    """
    table, least, own = table_of(plan), least_function(plan, group), group.dll_at
    # Whether the promise before the gap's first byte, and before those after it, is the DLL's name.
    names = [
        before is not None and before.kind == DLL and before.start == own
        for before in (_before(plan, low), _before(plan, low + 1))
    ]
    key = ("close", low, high, places, move, group.dlls, least, own, *names)
    if key in view._memo:
        kept: Finite = view._memo[key]
        return kept
    found = []
    for offset in places:
        if high - offset < least:
            break
        if names[offset > low]:
            room = min(high - offset, 1 << 20) - HINT - 1
            if not group.dlls & table.dlls_within(offset - own - 1) & table.within(room):
                continue
        found.append(offset + move)
    view._memo[key] = made = Finite(found)
    return made


def function_places(plan: Plan, view: View, index: int, first: int, last: int) -> Iterator[Piece]:
    """The addresses from ``first`` to ``last`` for which `function_fits`."""
    group = group_of(plan, index)
    far = view.places(plan.ledger, least_function(plan, group))
    if plan.resolved and group.dll_at >= 0:
        gaps, following = view.gaps(plan.ledger), plan.ledger.after(group.dll_at + 1)
        stop = following.start if following is not None else plan.ledger.limit
        # The gaps before which there is no other promise than the DLL's name.
        for n in range(bisect_left(gaps, (group.dll_at,)), bisect_left(gaps, (stop + 1,))):
            low, high = gaps[n]
            near, move = min(low + _LEAST_FAR, high), int(far[n, 0]) - low
            places = range(max(low, first - move), min(near, last + 1 - move))
            yield _close(plan, view, group, low, high, places, move)
            far[n, 0] = near + move
    yield Ranges(np.stack((np.maximum(far[:, 0], first), np.minimum(far[:, 1], last)), axis=1))
