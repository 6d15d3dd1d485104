"""sh_name: where names may lie, and which types a name leaves to its section (see `names`)."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.intset import IntSet, interval
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.elf import names, space
from bytegen.formats.elf.plan import Plan
from bytegen.formats.elf.sections import links
from bytegen.formats.elf.sections.types import DYNAMIC, PROGBITS, STRTAB
from bytegen.formats.elf.written import Lazily, Table


class Naming(NamedTuple):
    """What is known of the name table when a header's name is read.

    ``start``: where it lies among the bytes already written, or would have to lie should the names outgrow
    the room ahead (``room`` bytes); None where it cannot lie there. ``most``: its greatest size.
    """

    table: Table
    asks: names.Asked
    settled: bool  # its header has been read
    start: int | None
    room: int
    most: int

    def seen(self, name: int) -> int | None:
        """Where a name stands in the bytes already written, if it has to be there."""
        return None if self.start is None or name < self.room else self.start + name

    def holds(self, name: int, text: bytes) -> bool:
        """Whether a name that has to be among the bytes already written is ``text``."""
        place = self.seen(name)
        return place is not None and self.table.behind.raw.startswith(text, place)

    def all_held(self, text: bytes) -> list[int]:
        """All names of that kind."""
        if self.start is None:
            return []
        known = names.places(self.table.behind, text) - self.start
        return [x for x in known.tolist() if max(self.room, 0) <= x < self.most]


def naming(plan: Plan, table: Table, number: int) -> Naming:
    """What is known of the name table at header ``number``."""
    asks = space.naming(plan)
    if plan.shstrndx < number:
        section = plan.sections[plan.shstrndx]
        behind = section.offset < table.start
        return Naming(
            table, asks, True, section.offset if behind else None, 0 if behind else section.size, section.size
        )
    owed = plan.owed_at(plan.shstrndx)
    need = max(owed.need if owed is not None else 0, asks.least)
    room = space.longest_ahead(plan, table)
    size = names.behind_longest(table.behind, asks)
    start = table.behind.last_zero + 1 - size if size else None
    return Naming(table, asks, False, start, room if room >= need else 0, max(room, size))


def _without(low: int, high: int, barred: list[int]) -> list[Piece]:
    """The integers of [low, high] but the barred ones."""
    edges = [low - 1, *sorted({x for x in barred if low <= x <= high}), high + 1]
    return [Span(a + 1, b - 1) for a, b in itertools.pairwise(edges) if b - a > 1]


def dynamic_names(plan: Plan, known: Naming) -> list[Piece]:
    """Names that the dynamic section may have."""
    taken = list(known.asks.plain)
    behind = known.table.behind
    if known.settled:
        if known.start is None:
            return _without(1, known.room - len(names.DYNAMIC), taken)
        return [Finite([x for x in known.all_held(names.DYNAMIC) if x > 0])]
    asks = known.asks

    def contains(name: int) -> bool:
        if name in taken:
            return False
        asked = asks._replace(dynamic=name, wanted=False)
        starts = (names.places(behind, names.DYNAMIC) - name).tolist()
        owed = plan.owed_at(plan.shstrndx)
        last = behind.last_zero + 1 - (owed.need if owed is not None else 0)
        return any(0 <= x <= last and not behind.raw[x] and asked.fits(behind, x) for x in starts)

    def build() -> np.ndarray:
        owed = plan.owed_at(plan.shstrndx)
        starts = names.behind_starts(behind, asks, owed.need if owed is not None else 0).astype(np.int64)
        found = [place - starts[starts < place] for place in names.places(behind, names.DYNAMIC)]
        every = np.concatenate([np.zeros(0, np.int64), *found])
        every = every[(every > 0) & (every < 1 << 32)]
        return np.setdiff1d(every, np.array(taken, np.int64)).astype(np.uint64)

    return [*_without(1, known.room - len(names.DYNAMIC), taken), Lazily(contains, build)]


def choices(plan: Plan, known: Naming, number: int) -> IntSet:
    """The set of sh_name."""
    owed = plan.owed_at(number)
    if owed is None and links.free_after(plan, number) < links.duties(plan):
        return IntSet(4, *dynamic_names(plan, known))
    barred = known.asks.crowded(known.most)
    if known.asks.dynamic is not None:
        barred.append(known.asks.dynamic)
    missing = links.dynamic_missing(plan)
    if (known.asks.wanted and (owed is not None or missing is None)) or known.asks.dynamic is not None:
        barred += known.all_held(names.DYNAMIC)
    if owed is not None and owed.types == {STRTAB}:
        barred += [x for x in known.all_held(names.DYNSTR) if not strings_fit(known, x)]
    below = min(known.most, 1 << 32)
    return IntSet(4, *_without(0, below - 1, barred)) if barred else _below(below)


@lru_cache(maxsize=16)
def _below(most: int) -> IntSet:
    return interval(4, 0, most - 1)


def strings_fit(known: Naming, name: int) -> bool:
    """Whether a string table may have that name: no second one is ``.dynstr``."""
    if not known.holds(name, names.DYNSTR):
        return True
    return not any(
        known.start is not None and known.table.behind.raw.startswith(names.DYNSTR, known.start + other)
        for other in known.asks.strings
    )


def types_left(plan: Plan, known: Naming, name: int, types: frozenset[int]) -> frozenset[int]:
    """Those of the types that a section of that name may have; `dynamic_names` says when it may be DYNAMIC."""
    if (known.asks.wanted or known.asks.dynamic is not None) and known.holds(name, names.DYNAMIC):
        return types & {DYNAMIC}
    barred = set()
    if not strings_fit(known, name):
        barred.add(STRTAB)
    if not known.settled and known.holds(name, names.STAB):
        barred.add(PROGBITS)
    return types - barred
