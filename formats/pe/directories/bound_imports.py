"""The directory of bound imports: which DLLs the import address tables were filled in for, and when those were made.

A descriptor names a DLL and its time stamp, and is followed by a reference for each DLL to which that one forwards
functions; a null descriptor ends the list, and names follow. Offsets of names count from the first descriptor, in
16 bits. The directory lies in the headers, behind the section table, where linkers and bind.exe put it: there its
address is its place in the file, for which pefile takes it wherever it is.

Loaders that look at it (Windows before 8) load the DLLs it names, and where a time stamp is not the DLL's resolve its
imports as ever; so at level "load" names are those of DLLs that every Windows has. Others do not look.

Sources: Microsoft's PE format specification (IMAGE_BOUND_IMPORT_DESCRIPTOR, IMAGE_BOUND_FORWARDER_REF); pefile
(names of 1 to 256 printable characters, a first descriptor that has one, raw data of a section behind the directory).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from bytegen.formats.core.intset import IntSet, anything, exactly, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.pe.directories.exported import ContinuedDll, names
from bytegen.formats.pe.directories.imported_names import DLL_LETTERS, letters
from bytegen.formats.pe.plan import Plan, opener, proceed

INDEX = 11
RECORD = 8
LEAST = 2 * RECORD + 16  # a descriptor, the null one, a name: the table of DLLs has some that are shorter
_MOST_NAME = 255
_MOST_OFFSET = 0xFFFF
_ANY2, _ANY4 = anything(2), anything(4)
_ZERO = {1: exactly(1, 0), 2: exactly(2, 0), 4: exactly(4, 0)}
_LETTER = IntSet(1, *letters(DLL_LETTERS))
_LETTER_OR_END = IntSet(1, Span(0, 0), *letters(DLL_LETTERS))


def possible(plan: Plan) -> bool:
    """Whether a file may have bound imports: some section has raw data, which pefile asks for behind them."""
    return bool(plan.needs)


class _Reading(NamedTuple):
    """The directory being read. Places are offsets from its start."""

    plan: Plan
    region: Region
    least: int  # bytes that a name needs
    here: int = 0
    number: int = 0
    names: tuple[int, ...] = ()  # where names are owed, ascending

    @property
    def size(self) -> int:
        return self.region.end - self.region.start

    @property
    def bound(self) -> int:
        """Where the first name that is owed begins."""
        return self.names[0] if self.names else self.size

    def path(self, name: str) -> str:
        return f"bound_imports[{self.number}].{name}"


@opener("bound_imports")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    least = 2
    if plan.resolved:
        table = names(plan.target.plus, plan.libraries)
        least = 1 + table.shortest_dll(table.all)
    return _descriptor(_Reading(plan, region, least))


def _places(read: _Reading, floor: int) -> list[Piece]:
    """Where a name may begin, from ``floor`` on: where one is owed, or where there is room beside the others."""
    found: list[Piece] = [Finite(read.names)] if read.names else []
    low = floor
    for start in (*read.names, read.size):
        high = min(start - read.least, _MOST_OFFSET)
        if low <= high:
            found.append(Span(low, high))
        low = start + read.least
    return found


def _with_name(read: _Reading, offset: int) -> _Reading:
    if offset in read.names:
        return read
    owed = list(read.names)
    insort(owed, offset)
    return read._replace(names=tuple(owed))


def _descriptor(read: _Reading) -> Step:
    floor = read.here + 2 * RECORD
    more = read.bound >= floor and bool(_places(read, floor))
    choices = _ANY4 if more else _ZERO[4]

    def following(value: int, data: bytearray) -> Step:
        pieces = _places(read, floor) if more else []
        if not value and read.number:
            pieces.append(Span(0, 0))
        return IntStep(
            read.region.start + read.here + 4,
            2,
            IntSet(2, *pieces),
            read.path("OffsetModuleName"),
            "where a name is or fits behind the descriptors; 0 in the null one",
            lambda value, data: _references(read, value),
        )

    return IntStep(
        read.region.start + read.here,
        4,
        choices,
        read.path("TimeDateStamp"),
        "any, or 0 for the null descriptor at the end" if more else "0: the null descriptor",
        following,
    )


def _references(read: _Reading, offset: int) -> Step:
    """How many references follow a descriptor."""
    start = read.region.start + read.here + 6
    path = read.path("NumberOfModuleForwarderRefs")
    if not offset:
        after = read._replace(here=read.here + RECORD)
        return IntStep(
            start, 2, _ZERO[2], path, "0: the null descriptor", lambda value, data: _next_name(after, 0, data)
        )
    after = _with_name(read, offset)._replace(here=read.here + RECORD)
    most = (after.bound - after.here - RECORD) // RECORD
    return IntStep(
        start,
        2,
        interval(2, 0, most),
        path,
        f"at most {most}: they and the null descriptor come before the first name",
        lambda value, data: _reference(after, value, 0),
    )


def _reference(read: _Reading, count: int, i: int) -> Step:
    if i == count:
        return _descriptor(read._replace(number=read.number + 1))
    start = read.region.start + read.here
    path = read.path(f"forwarder[{i}]")
    floor = read.here + RECORD * (count - i + 1)

    def name(data: bytearray) -> Step:
        return IntStep(
            start + 4,
            2,
            IntSet(2, *_places(read, floor)),
            f"{path}.OffsetModuleName",
            "where a name is or fits behind the descriptors",
            reserved,
        )

    def reserved(value: int, data: bytearray) -> Step:
        after = _with_name(read, value)._replace(here=read.here + RECORD)
        return IntStep(
            start + 6,
            2,
            _ANY2,
            f"{path}.Reserved",
            "any",
            lambda value, data: _reference(after, count, i + 1),
        )

    return IntStep(start, 4, _ANY4, f"{path}.TimeDateStamp", "any", lambda value, data: name(data))


def _next_name(read: _Reading, done: int, data: bytearray) -> Step:
    """What lies between the names, and the name ``done``."""
    start, region = read.region.start + read.here, read.region
    stop = region.start + read.names[done] if done < len(read.names) else region.end
    following: Callable[[bytearray], Step]
    if done < len(read.names):
        following = partial(_letter, read, done)
    else:
        following = partial(proceed, read.plan, region.end)
    if start < stop:
        return FreeStep(start, stop, None, "bound_imports.padding", "", following)
    return following(data)


def _letter(read: _Reading, done: int, data: bytearray) -> Step:
    """The letter of a name at the end of the bytes so far."""
    begin = read.region.start + read.names[done]
    later = read.names[done + 1] if done + 1 < len(read.names) else read.size
    position = len(data)
    last = min(read.region.start + later - 1, begin + _MOST_NAME)  # by then its zero stands
    plan = read.plan
    if plan.resolved:
        table = names(plan.target.plus, plan.libraries)
        choices = IntSet(1, ContinuedDll(table, table.all, bytes(data[begin:position]), last - begin))
        rule = "a DLL that every Windows has"
    elif position == last:
        choices, rule = _ZERO[1], f"a zero: the name fits {last + 1 - begin} bytes"
    else:
        choices, rule = (_LETTER_OR_END if position > begin else _LETTER), "a letter of a name, or its zero"

    def following(value: int, data: bytearray) -> Step:
        if value:
            return _letter(read, done, data)
        return _next_name(read._replace(here=len(data) - read.region.start), done + 1, data)

    return IntStep(position, 1, choices, f"bound_imports.name[{done}]", rule, following)


__all__ = ["INDEX", "LEAST", "possible"]
