"""Which sections a header may link to, those still to come among them.

A link to a section that is not read yet is a debt (`Plan.owe`): its header can then be of one type only. Where
there is a PT_DYNAMIC, a section has to be the dynamic section, and one its string table: so many headers are
kept free of other debts.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import chain, pairwise

import numpy as np

from bytegen.formats.core.intset import IntSet
from bytegen.formats.core.pieces import Finite, Piece, Ranges, Span
from bytegen.formats.elf import space
from bytegen.formats.elf.foreseen import foreseen, waiting
from bytegen.formats.elf.plan import Plan
from bytegen.formats.elf.sections.types import DYNAMIC, DYNSYM, STRTAB
from bytegen.formats.elf.tables import Dynamic, Place

_MANY = 8


def free_after(plan: Plan, number: int) -> int:
    """How many of the headers after ``number`` owe nothing."""
    return plan.shnum - 1 - number - plan.owed_after(number)


def dynamic_missing(plan: Plan) -> Dynamic | None:
    """The dynamic section where its header has still to come."""
    dynamic = space.dynamic_owed(plan)
    if dynamic is None or DYNAMIC in plan.of_kind:
        return None
    return None if any(DYNAMIC in owed.types and len(owed.types) == 1 for _, owed in plan.owed) else dynamic


def strings_place(plan: Plan) -> Place | None:
    """Where the dynamic string table lies; None where that is not known."""
    dynamic = space.dynamic_owed(plan)
    return None if dynamic is None else dynamic.places.get("strings")


def _at(plan: Plan, place: Place) -> int | None:
    """The string table section at that place: read, or owed."""
    for index in plan.of_kind.get(STRTAB, ()):
        section = plan.sections[index]
        if section.offset == place.offset and section.size == place.size:
            return index
    return next((i for i, owed in plan.owed if owed.place == (place.offset, place.size)), None)


def duties(plan: Plan) -> int:
    """How many headers that owe nothing yet must still be left for the dynamic section and its strings."""
    if dynamic_missing(plan) is None:
        return 0
    text = foreseen(plan).text
    if text:
        return 1 if any(plan.sections[i].size >= text for i in read(plan, frozenset({STRTAB}))) else 2
    place = strings_place(plan)
    return 1 if place is None or place.size is None or _at(plan, place) is not None else 2


def later(plan: Plan, number: int, types: frozenset[int], *, duty: bool = False) -> list[Piece]:
    """Headers after ``number`` that may come to be of one of the types; ``duty``: a header kept free may."""
    after = plan.owed[bisect_left(plan.owed, (number + 1,)) :]
    compatible = [i for i, owed in after if owed.place is None and not owed.types.isdisjoint(types)]
    pieces: list[Piece] = [Finite(compatible)] if compatible else []
    if free_after(plan, number) - (0 if duty else duties(plan)) <= 0:
        return pieces
    owing = [number, *(i for i, _ in after), plan.shnum]
    if len(owing) > _MANY:
        between = np.array(owing, np.int64)
        return [*pieces, Ranges(np.stack((between[:-1] + 1, between[1:] - 1), axis=1))]
    return [*pieces, *(Span(low + 1, high - 1) for low, high in pairwise(owing) if high - low > 1)]


def read(plan: Plan, types: frozenset[int]) -> list[int]:
    """The headers read that are of one of the types, but the first."""
    found = [plan.of_kind[kind] for kind in types if kind in plan.of_kind]
    indices = sorted(chain.from_iterable(found)) if len(found) > 1 else [*chain(*found)]
    return indices[1:] if indices and not indices[0] else indices


def dynamic_strings(plan: Plan, number: int) -> list[Piece]:
    """The string table of the dynamic section and what belongs to it."""
    link = foreseen(plan).link
    if link:
        return [Finite((link,))]
    if waiting(plan):
        return _text_links(plan, number)
    place = strings_place(plan)
    if place is None or place.size is None:
        return [Finite(read(plan, frozenset({STRTAB}))), *later(plan, number, frozenset({STRTAB}))]
    found = _at(plan, place)
    if found is not None:
        return [Finite((found,))]
    return [
        piece
        for piece in later(plan, number, frozenset({STRTAB}), duty=True)
        if not isinstance(piece, Finite)  # headers that owe another string table
    ]


def text_need(plan: Plan) -> int:
    """Bytes that the string table of a dynamic section ahead has at least."""
    return max(1, foreseen(plan).text)


def later_texts(plan: Plan, number: int) -> list[Piece]:
    """Headers after ``number`` that may be that string table: the one kept free for it among them."""
    duty = foreseen(plan).text > 0 and duties(plan) > 1
    return later(plan, number, frozenset({STRTAB}), duty=duty)


def _text_links(plan: Plan, number: int) -> list[Piece]:
    """String tables of at least so many bytes, for which there is room; the section name table where it is sure."""
    need = text_need(plan)
    pieces: list[Piece] = [
        Finite([i for i in read(plan, frozenset({STRTAB})) if plan.sections[i].size >= need])
    ]
    # The header that asks is the dynamic section's: the one kept free for that may be this table.
    for piece in later(plan, number, frozenset({STRTAB}), duty=True):
        if isinstance(piece, Finite):
            fitting = [(i, owed) for i, owed in plan.owed if piece.contains(i)]
            piece = Finite([i for i, owed in fitting if i != plan.shstrndx or owed.sure >= need])
        pieces.append(piece)
    return pieces


def dynamic_symbols(plan: Plan, number: int, possible: bool) -> list[Piece]:
    """The dynamic symbol table; ``possible``: whether one can still come."""
    found = read(plan, frozenset({DYNSYM}))
    if found:
        return [Finite(found)]
    owed = [i for i, owed in plan.owed if owed.types == {DYNSYM}]
    if owed:
        return [Finite(owed)]
    return later(plan, number, frozenset({DYNSYM})) if possible else []


def union(size: int, pieces: list[Piece]) -> IntSet:
    """The set of the pieces."""
    return IntSet(size, *pieces)
