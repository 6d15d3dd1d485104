"""Leaves of the resource tree: where the data of a resource are, and how many.

Data are any bytes of a section. Those of version information are promised, or are good where they are written
(`version_info`): while a table is read whose leaves are such, a place for one is kept in reserve, and every leaf's
share of the sizes that pefile adds up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bytegen.formats.core.intset import IntSet, anything, exactly, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.pe.directories import version_info
from bytegen.formats.pe.directories.fields import fields
from bytegen.formats.pe.directories.groups import place
from bytegen.formats.pe.directories.memory import Contents, View, contents, mapping
from bytegen.formats.pe.layout import up
from bytegen.formats.pe.plan import Plan, opener, proceed
from bytegen.formats.pe.sets import When

KIND, SIZE = "resource_leaf", 16
_LEAST = version_info.LEAST


class Owed(NamedTuple):
    """Version information that leaves ahead are to have (`Contents.information`)."""

    spare: int = -1  # file offset of the place in reserve
    leaves: int = 0  # leaves that are unread
    share: int = 0  # what each of them has of the sizes


def _owed(plan: Plan) -> Owed:
    return Owed(*contents(plan).information)


def _with(plan: Plan, owed: Owed, more: int = 0) -> Plan:
    kept: Contents = contents(plan)
    used = kept.resource_bytes + more
    return plan._replace(
        contents=kept._replace(information=(owed.spare, owed.leaves, owed.share), resource_bytes=used)
    )


def budget(plan: Plan) -> int:
    """What sizes of resources may still add up to: pefile warns when they are more than the file's."""
    return max(plan.min_end - contents(plan).resource_bytes, 0)


def with_spare(plan: Plan, view: View) -> Plan:
    """The plan with a place for version information in reserve, at the end of the last gap where it fits."""
    for low, high in reversed(view.gaps(plan.ledger)):
        address = view.map.address(low)
        first = low + up(address, 4) - address
        if high - first >= _LEAST:
            start = first + (high - first - _LEAST) // 4 * 4
            region = Region(start, start + _LEAST, version_info.KIND, "resources.version")
            return _with(place(plan, region), Owed(start))
    return plan


def most_leaves(plan: Plan, names: int = 0) -> int:
    """How many leaves can be version information, with a name of that length each."""
    return budget(plan) // (_LEAST + names) if _owed(plan).spare >= 0 else 0


def owing_leaves(plan: Plan, leaves: int) -> Plan:
    """The plan after the number of leaves is read."""
    if not leaves:
        return _released(plan)
    return _with(plan, _owed(plan)._replace(leaves=leaves, share=_LEAST), _LEAST * leaves)


def _released(plan: Plan) -> Plan:
    """The plan without the place in reserve."""
    owed = _owed(plan)
    spare = plan.ledger.at(owed.spare, version_info.KIND)
    ledger = plan.ledger if spare is None else plan.ledger.dropped(spare)
    return _with(plan._replace(ledger=ledger), owed._replace(spare=-1))


@opener(KIND)
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    if region.detail:
        return _information(plan, region, data)
    spans = mapping(plan.sections).spans

    def size(address: int) -> Step:
        room = max((a + length - address for a, _, length in spans if a <= address <= a + length), default=0)
        most = min(room, budget(plan))
        return IntStep(
            region.start + 4, 4, interval(4, 0, most), f"{region.path}.Size", f"at most {most}: in its section",
            lambda value, data: _rest(_with(plan, _owed(plan), value), region, data),
        )  # fmt: skip

    return IntStep(
        region.start, 4, IntSet(4, *(Span(a, a + length) for a, _, length in spans)),
        f"{region.path}.OffsetToData", "an address in a section's bytes", lambda value, data: size(value),
    )  # fmt: skip


def _rest(plan: Plan, region: Region, data: bytearray) -> Step:
    return fields(
        region.start + 8, region.path,
        [("CodePage", 4, anything(4), "any"), ("Reserved", 4, exactly(4, 0), "0")],
        lambda values, data: proceed(plan, region.end, data), data,
    )  # fmt: skip


def _information(plan: Plan, region: Region, data: bytearray) -> Step:
    """A leaf whose data are version information."""
    view = View(plan, region.start, region.end, data)
    owed = _owed(plan)
    free = _released(plan) if owed.spare >= view.free else plan
    least: dict[int, int | None] = {}

    def promised(x: int) -> Region | None:
        offset = view.map.offset(x)
        return (
            plan.ledger.at(offset, version_info.KIND) if offset is not None and offset != owed.spare else None
        )

    def written(x: int) -> int | None:
        """The least size of information that is written there."""
        if x not in least:
            offset = view.behind(x, _LEAST) if x % 4 == 0 else None
            least[x] = None
            if offset is not None:
                stop = view.map.stop(offset)
                raw = view.raw[offset : min(view.here, stop, offset + most)]
                least[x] = version_info.needed(raw, stop - offset)
        return least[x]

    # What this leaf and all that follow it can have.
    most = (budget(plan) + owed.share * owed.leaves) // owed.leaves

    def allowed(x: int) -> bool:
        if x % 4:
            return False
        there = promised(x)
        if there is not None:
            return there.end - there.start <= most
        return view.ahead(free.ledger, x) >= _LEAST or written(x) is not None

    def build() -> Iterable[Piece]:
        yield from view.spans(free.ledger, _LEAST, align=4)
        regions = plan.ledger.regions
        ahead = [view.map.address(r.start) for r in regions if r.kind == version_info.KIND]
        yield Finite([x for x in ahead if allowed(x)])
        places, start = [], view.raw.find(version_info.KEY)
        while start >= 0:
            if view.map.stop(start - version_info.HEAD):
                places.append(view.map.address(start - version_info.HEAD))
            start = view.raw.find(version_info.KEY, start + 1)
        yield Finite([x for x in places if x % 4 == 0 and written(x) is not None])

    def size(address: int) -> Step:
        there, low = promised(address), written(address)
        fresh = there is None and low is None
        offset = view.map.offset(address)
        assert offset is not None
        if there is not None:
            low = high = there.end - there.start
        elif fresh:
            low, high = _LEAST, min(view.ahead(free.ledger, address), most)
        else:
            high = min(view.map.stop(offset) - offset, most)
        assert low is not None

        def following(value: int, data: bytearray) -> Step:
            left, share = owed.leaves - 1, max(value, owed.share)
            settled = plan
            if fresh:
                promise = Region(offset, offset + value, version_info.KIND, f"{region.path}.data")
                settled = place(free, promise)
            elif there is None:
                share = max(low, owed.share)
            counted = value + share * left - owed.share * owed.leaves
            spare = _owed(settled).spare
            return _rest(_with(settled, Owed(spare, left, share), counted), region, data)

        return IntStep(
            region.start + 4, 4, interval(4, low, high), f"{region.path}.Size", f"{low} to {high}: its records fit",
            following,
        )  # fmt: skip

    return IntStep(
        region.start, 4, IntSet(4, When(allowed, build)), f"{region.path}.OffsetToData",
        "where version information is or fits", lambda value, data: size(value),
    )  # fmt: skip


__all__ = ["KIND", "SIZE", "budget", "most_leaves", "owing_leaves", "with_spare"]
