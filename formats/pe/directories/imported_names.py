"""The names that imports promise: of DLLs, and of functions with their hints."""

from __future__ import annotations

import re
from typing import NamedTuple

from bytegen.formats.core.intset import IntSet, anything, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Piece, Span
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.pe.directories.exported import Continued, ContinuedDll
from bytegen.formats.pe.directories.groups import (
    DELAYED_DLL,
    DELAYED_FUNCTION,
    DLL,
    FUNCTION,
    HINT,
    MOST_DLL,
    MOST_FUNCTION,
    Group,
    group_of,
    narrowed,
    table_of,
    with_group,
)
from bytegen.formats.pe.directories.memory import after, mapping
from bytegen.formats.pe.plan import Plan, opener, proceed

# Letters that pefile takes in names of functions, and in names of files.
_FUNCTION_LETTERS = b"._?@$()<>0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
DLL_LETTERS = _FUNCTION_LETTERS.translate(None, b"?<>") + b"!#%&'-^`{}~+,;=[]:\\/"
FUNCTION_NAME = re.compile(b"[" + re.escape(_FUNCTION_LETTERS) + b"]{1,4096}\0")
DLL_NAME = re.compile(b"[" + re.escape(DLL_LETTERS) + b"]{4,255}\0")


def letters(listed: bytes) -> tuple[Piece, ...]:
    """The bytes listed, as few intervals."""
    ordered = sorted(listed)
    spans: list[list[int]] = []
    for byte in ordered:
        if spans and spans[-1][1] == byte - 1:
            spans[-1][1] = byte
        else:
            spans.append([byte, byte])
    return tuple(Span(low, high) for low, high in spans)


_ANY_HINT = anything(2)
_ZERO = exactly(1, 0)
_SETS = {
    kind: (IntSet(1, *letters(listed)), IntSet(1, Span(0, 0), *letters(listed)))
    for kind, listed in (
        (FUNCTION, _FUNCTION_LETTERS),
        (DELAYED_FUNCTION, _FUNCTION_LETTERS),
        (DLL, DLL_LETTERS),
        (DELAYED_DLL, DLL_LETTERS),
    )
}


class _Name(NamedTuple):
    """A name being read: where its letters begin, and the offset by which its zero stands."""

    plan: Plan
    region: Region
    begin: int
    stop: int
    least: int  # letters

    @property
    def resolved(self) -> bool:
        """Whether it must be a name that resolves: those of delayed imports need not before they are called."""
        return self.plan.resolved and self.region.kind in (FUNCTION, DLL)


def _stop(plan: Plan, region: Region, most: int) -> int:
    """Where the room of a name ends."""
    room = after(plan.ledger, region)
    return min(region.start + room, mapping(plan.sections).stop(region.start), region.start + most + 1)


@opener(FUNCTION)
@opener(DELAYED_FUNCTION)
def _open_function(plan: Plan, region: Region, data: bytearray) -> Step:
    stop = _stop(plan, region, HINT + MOST_FUNCTION)
    name = _Name(plan, region, region.start + HINT, stop, 1)
    letters = _Letters(name)
    return IntStep(
        region.start,
        2,
        _ANY_HINT,
        f"{region.path}.hint",
        "any",
        lambda value, data: letters.step(name.begin, data),
    )


@opener(DLL)
@opener(DELAYED_DLL)
def _open_dll(plan: Plan, region: Region, data: bytearray) -> Step:
    name = _Name(plan, region, region.start, _stop(plan, region, MOST_DLL), 4)
    return _Letters(name).step(name.begin, data)


class _Letters:
    """The steps of a name's letters."""

    __slots__ = ("_name",)

    def __init__(self, name: _Name) -> None:
        self._name = name

    def step(self, position: int, data: bytearray) -> Step:
        """The step of the letter at a position."""
        name = self._name
        region, plan = name.region, name.plan
        if name.resolved:
            written = bytes(data[name.begin : position])
            group = group_of(plan, region.detail.group)
            room = name.stop - name.begin - 1
            piece = (Continued if region.kind == FUNCTION else ContinuedDll)(
                table_of(plan), group.dlls, written, room
            )
            choices = IntSet(1, piece)
            is_function = region.kind == FUNCTION
            rule = "a name that the DLL exports" if is_function else "a DLL that exports these names"
        elif position == name.stop - 1:
            choices, rule = _ZERO, f"a zero: the name fits {name.stop - name.begin} bytes"
        else:
            choices = _SETS[region.kind][position - name.begin >= name.least]
            rule = "a letter of a name, or the zero after it"
        return IntStep(position, 1, choices, region.path, rule, self._after)

    def _after(self, value: int, data: bytearray) -> Step:
        return self.step(len(data), data) if value else _done(self._name, len(data) - 1, data)


def _done(name: _Name, end: int, data: bytearray) -> Step:
    plan, region = name.plan, name.region
    if name.resolved:
        written = bytes(data[name.begin : end])
        index = region.detail.group
        if region.kind == FUNCTION:
            plan = narrowed(plan, index, table_of(plan).exporters(written))
        else:
            plan = with_group(plan, index, group_of(plan, index)._replace(dll_at=-1))
            plan = narrowed(plan, index, table_of(plan).dll(written))
    return proceed(plan, end + 1, data)


def function_at(raw: bytes, offset: int, stop: int) -> bytes | None:
    """The name of a function that is written, with its hint, at an offset; None where there is none."""
    found = FUNCTION_NAME.match(raw, offset + HINT, min(stop, offset + HINT + MOST_FUNCTION + 1))
    return found.group()[:-1] if found else None


def dll_at(raw: bytes, offset: int, stop: int) -> bytes | None:
    """The name of a DLL that is written at an offset; None where there is none."""
    found = DLL_NAME.match(raw, offset, min(stop, offset + MOST_DLL + 1))
    return found.group()[:-1] if found else None


def possible(plan: Plan, group: Group, name: bytes) -> int:
    """The DLLs of the group that export a name; -1 at level "parse"."""
    return table_of(plan).exporters(name) & group.dlls if plan.resolved else -1


__all__ = ["DLL_LETTERS", "dll_at", "function_at", "letters", "possible"]
