"""The import directory: a descriptor for each DLL, and a null one.

A descriptor gives the addresses of a lookup table, of the DLL's name, and of the address table. What lies behind
is judged by its bytes, what lies ahead is promised; the lookup table is 0 where there is none, or ahead. While a
descriptor is read, its *options* are kept: each is a plan in which the rest of the descriptor can be completed,
with an address table still to be promised, or with one that is written already. LIEF wants address tables inside
the directory of address tables (12), so without it there are no imports. A descriptor imports something: pefile
warns of one that does not.

Level "load" promises imports that a bare system resolves: every DLL is one that each Windows (and Wine) has, and every
function one that it exports, by the table of `exported`. A file that imports a DLL which comes along with it
(python311.dll) is for level "parse": alone, no loader takes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bytegen.formats.core.intset import IntSet, anything, exactly, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Ranges, Span
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.pe.directories.groups import (
    DLL,
    TABLE,
    Group,
    Owner,
    fitting,
    group_of,
    least_dll,
    narrowed,
    place,
    settled,
    table_of,
    with_group,
)
from bytegen.formats.pe.directories.import_options import Option, need, options_of
from bytegen.formats.pe.directories.import_places import dll_fits, dll_places
from bytegen.formats.pe.directories.import_reads import stop_of_imports
from bytegen.formats.pe.directories.imported_names import DLL_NAME, dll_at
from bytegen.formats.pe.directories.memory import Contents, View, contents, read_by_loaders
from bytegen.formats.pe.plan import Plan, opener, proceed
from bytegen.formats.pe.sets import When

SIZE = 20
_INDEX = 1
_ZERO = exactly(4, 0)
_ANY = anything(4)
_NOT_ZERO = interval(4, 1, 0xFFFFFFFF)


class Descriptor(NamedTuple):
    """A descriptor being read. ``plan`` holds if it is the null one."""

    plan: Plan
    view: View
    region: Region
    number: int
    options: tuple[Option, ...]
    lookup: int = 0
    stamped: bool = False  # whether it has a time stamp: its address table may be bound

    @property
    def start(self) -> int:
        """Its file offset."""
        return self.region.start + SIZE * self.number

    @property
    def group(self) -> int:
        """Index of its group."""
        return len(contents(self.plan).imports)

    def path(self, name: str) -> str:
        """Path of a field."""
        return f"imports[{self.number}].{name}"


@opener("imports")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    if plan.contents is None:
        plan = plan._replace(contents=Contents())
    if not contents(plan).imports:
        plan = with_group(plan, 0, Group())  # the owner of shared names
    view = View(plan, region.start, region.end, data, stop_of_imports(plan), read_by_loaders(plan))
    return _descriptor(plan, view, region, 0)


def _descriptor(plan: Plan, view: View, region: Region, number: int) -> Step:
    start = region.start + SIZE * number
    options: tuple[Option, ...] = ()
    # LIEF reads no more descriptors than the directory's size allows.
    stop = min(view.map.stop(start), region.start + plan.directories[_INDEX][1])
    if plan.ledger.room(start + SIZE) >= SIZE and start + 2 * SIZE <= stop:
        options = tuple(options_of(plan, view, region.start, start + 2 * SIZE))
    read = Descriptor(plan, view, region, number, options)

    def allowed(x: int) -> bool:
        return any(_takes_lookup(view, o, x) for o in options)

    def build() -> Iterable[Piece]:
        for option in options:
            yield from _lookup_places(view, option)

    pieces: list[Piece] = [Span(0, 0)]
    if options:
        pieces.append(When(allowed, build))
    return IntStep(
        start,
        4,
        IntSet(4, *pieces),
        read.path("OriginalFirstThunk"),
        "0, or where a lookup table fits" if options else "0: no room or no address table for one more DLL",
        lambda value, data: _stamp(_looked_up(read, value), data),
    )


def _takes_lookup(view: View, option: Option, x: int) -> bool:
    """Whether the lookup table of an option can be at an address."""
    size = option.plan.target.word * option.entries
    if not view.fits(option.plan.ledger, x, size, need(option)):
        return False
    offset = view.map.offset(x)
    return offset is not None and option.takes_lookup(offset)


def _lookup_places(view: View, option: Option) -> Sequence[Piece]:
    """The addresses for which `_takes_lookup`: each gap lies on one side of the room in reserve."""
    size = option.plan.target.word * option.entries
    if not option.bound:
        return view.spans(option.plan.ledger, size, need(option))
    rows = view.places(option.plan.ledger, size, need(option))
    kept = [_takes_lookup(view, option, first) for first in rows[:, 0].tolist()]
    return [Ranges(rows[kept])] if any(kept) else []


def _looked_up(read: Descriptor, value: int) -> Descriptor:
    """The descriptor after its lookup table's address."""
    if not value:
        return read._replace(options=tuple(option for option in read.options if not option.bound))
    view, word, index = read.view, read.plan.target.word, read.group
    offset = view.map.offset(value)
    assert offset is not None
    kept = []
    for option in read.options:
        if not _takes_lookup(view, option, value):
            continue
        region = Region(
            offset, offset + word * option.entries, TABLE, f"imports[{read.number}].lookup", Owner(index)
        )
        plan = place(option.plan, region)
        group = group_of(plan, index)
        plan = with_group(plan, index, group._replace(tables=(*group.tables, offset)))
        kept.append(option._replace(plan=plan))
    return read._replace(options=tuple(kept), lookup=value)


def _stamp(read: Descriptor, data: bytearray) -> Step:
    start, choices = read.start, _ANY if read.lookup else _ZERO
    plain = tuple(option for option in read.options if not option.bound)
    stamps, rule = choices, "any"
    if not read.lookup:
        rule = "0: there is no lookup table"
    elif not plain:
        stamps, rule = _NOT_ZERO, "not 0: the address table is bound"

    def chain(stamp: int, data: bytearray) -> Step:
        stamped = read._replace(stamped=True) if stamp else read._replace(options=plain)
        return IntStep(
            start + 8,
            4,
            choices,
            read.path("ForwarderChain"),
            "any" if read.lookup else "0",
            lambda value, data: _name(stamped, data),
        )

    return IntStep(start + 4, 4, stamps, read.path("TimeDateStamp"), rule, chain)


def _name(read: Descriptor, data: bytearray) -> Step:
    view, options = read.view, read.options

    def written(x: int) -> bytes | None:
        offset = view.behind(x, 5)
        return None if offset is None else dll_at(view.raw, offset, min(view.here, view.map.stop(offset)))

    def takes(option: Option, x: int) -> bool:
        if dll_fits(option.plan, view, x):
            return True
        name = written(x)
        return name is not None and _accepts(option, name)

    def allowed(x: int) -> bool:
        return any(takes(option, x) for option in options)

    def build() -> Iterable[Piece]:
        for option in options:
            yield from dll_places(option.plan, view)
        starts = (match.start() for match in DLL_NAME.finditer(view.raw))
        places = [view.map.address(s) for s in starts if view.map.stop(s)]
        yield Finite([x for x in places if any(takes(option, x) for option in options)])

    pieces: list[Piece] = [] if read.lookup else [Span(0, 0)]
    if options:
        pieces.append(When(allowed, build))

    def following(value: int, data: bytearray) -> Step:
        if not value:
            return _null(read, data)
        kept = tuple(_named(read, o, value, written(value)) for o in options if takes(o, value))
        return _address(read._replace(options=kept), data)

    return IntStep(
        read.start + 12,
        4,
        IntSet(4, *pieces),
        read.path("Name"),
        "where the name of a DLL is or fits",
        following,
    )


def _accepts(option: Option, name: bytes) -> bool:
    """Whether the DLL of a written name can be the option's."""
    plan = option.plan
    return not plan.resolved or bool(table_of(plan).dll(name) & group_of(plan, -1).dlls)


def _named(read: Descriptor, option: Option, value: int, written: bytes | None) -> Option:
    plan, index, view = option.plan, read.group, read.view
    if not dll_fits(plan, view, value):
        assert written is not None
        return option._replace(
            plan=narrowed(plan, index, table_of(plan).dll(written)) if plan.resolved else plan
        )
    offset = view.map.offset(value)
    assert offset is not None
    group = group_of(plan, index)._replace(dll_at=offset, dll_room=view.ahead(plan.ledger, value))
    if plan.resolved:
        group = group._replace(dlls=fitting(plan, group))
    plan = settled(plan, index, group)
    owner = Owner(index if plan.resolved else 0)
    end = offset + least_dll(plan, group)
    return option._replace(plan=place(plan, Region(offset, end, DLL, read.path("dll"), owner)))


def _null(read: Descriptor, data: bytearray) -> Step:
    end = read.start + SIZE
    return IntStep(
        end - 4,
        4,
        _ZERO,
        read.path("FirstThunk"),
        "0: the null descriptor",
        lambda value, data: proceed(read.plan, end, data),
    )


def _address(read: Descriptor, data: bytearray) -> Step:
    view, word = read.view, read.plan.target.word
    pieces: list[Piece] = []
    for option in read.options:
        if option.address is not None:
            pieces.append(Span(option.address, option.address))
            continue
        for low, high in view.gaps(option.plan.ledger, barred=True):
            move = view.map.address(low) - low
            pieces.append(Span(low + move, high + move - 2 * word, 2))

    def following(value: int, data: bytearray) -> Step:
        for option in read.options:
            if option.address == value:
                return _next(read, option, data)
        # They differ in where the name in reserve lies: the one that leaves most DLLs.
        ahead = (o for o in read.options if o.address is None)
        option = max(ahead, key=lambda o: group_of(o.plan, read.group).dlls.bit_count())
        offset = view.map.offset(value)
        assert offset is not None
        region = Region(offset, offset + 2 * word, TABLE, read.path("address"), Owner(read.group))
        plan = place(option.plan, region)
        group = group_of(plan, read.group)
        group = group._replace(tables=(*group.tables, offset))
        if not read.lookup:
            # pefile reads no more than there are bytes before the descriptor's end.
            group = group._replace(most=min(group.most, (view.map.address(read.start) + SIZE) // word - 2))
        if read.stamped:
            group = group._replace(bound_at=offset)
        plan = with_group(plan, read.group, group)
        return _next(read, option._replace(plan=plan), data)

    return IntStep(
        read.start + 16,
        4,
        IntSet(4, *pieces),
        read.path("FirstThunk"),
        "where an address table is or fits, inside the directory of address tables",
        following,
    )


def _next(read: Descriptor, option: Option, data: bytearray) -> Step:
    plan = option.plan
    if option.values is not None:
        group = group_of(plan, read.group)
        plan = with_group(plan, read.group, group._replace(values=option.values))
    return _descriptor(plan, read.view, read.region, read.number + 1)


__all__ = ["SIZE"]
