"""The grammar of the symbols' version indices that the dynamic section promises ahead (see `version_debts`).

readelf shows the version of each symbol: it looks for a hidden index among the definitions alone, and for those of
symbols that are not defined among the needs.
"""

from __future__ import annotations

import numpy as np

from bytegen.formats.core.intset import IntSet, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Span
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.elf import tables
from bytegen.formats.elf.dynamic import version_debts as debts_of
from bytegen.formats.elf.dynamic.settled import MOST
from bytegen.formats.elf.dynamic.version_debts import HIDDEN, INDEX, NEED, NEED_NAME, VERNEED, VERSYM, Debts
from bytegen.formats.elf.plan import Plan, opener, proceed
from bytegen.formats.elf.written import Lazily

_PLAIN = (0, 1, HIDDEN, HIDDEN | 1)  # of no version


@opener("versym")
def _open_indices(plan: Plan, region: Region, data: bytearray) -> Step:
    count = debts_of.of(plan).least
    undefined = debts_of.undefined(plan, data, 0, count)
    undefined[0] = True  # the null symbol
    room = debts_of.needs_room(plan)
    return _Indices(plan, region, undefined, room, room + debts_of.definitions_room(plan)).entry(
        0, 1, frozenset()
    )


class _Indices:
    """Version indices being read, of which tables to come may have to define some.

    ``undefined``: which symbols are, as far as is known: their versions are needed. ``needs``: how many versions
    a table of needs to come may have; ``room``: it and one of definitions.
    """

    __slots__ = ("debts", "needs", "plan", "region", "room", "undefined")

    def __init__(self, plan: Plan, region: Region, undefined: np.ndarray, needs: int, room: int) -> None:
        self.plan, self.region, self.undefined = plan, region, undefined
        self.needs, self.room = needs, room
        self.debts: Debts = debts_of.of(plan)

    def _owed(self, highest: int, hard: frozenset[int]) -> int:
        """How many versions are to be defined: those up to ``highest``, and ``hard`` ones by the needs."""
        defined = self.debts.defined
        missing = highest - 1 - sum(2 <= index <= highest for index in defined)
        return missing + sum(index in defined for index in hard)

    def _top(self, highest: int, hard: frozenset[int]) -> int:
        """The greatest index that a symbol may have."""
        low, high = highest, min(highest + self.room + len(self.debts.defined) + 1, INDEX + 1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._owed(middle, hard) <= self.room else (low, middle)
        return low

    def _choices(self, number: int, highest: int, hard: frozenset[int]) -> IntSet:
        """The index of a symbol; a hidden one, as readelf looks for it, is among the definitions read already."""
        top, debts = self._top(highest, hard), self.debts
        if not self.undefined[number]:
            shown = [index | HIDDEN for index in debts.defined - debts.needs if index <= top]
            return IntSet(2, Span(0, top), Finite([*_PLAIN, *shown]))
        if len(hard) >= self.needs:
            return exactly(2, *{*_PLAIN, *hard, *(index for index in debts.needs if index <= top)})

        def contains(index: int) -> bool:
            if index in _PLAIN or index in hard or (index in debts.needs and index <= top):
                return True
            return index <= top and self._owed(max(highest, index), hard | {index}) <= self.room

        def build() -> np.ndarray:
            found = [index for index in range(2, top + 1) if index not in debts.defined or contains(index)]
            return np.array([*_PLAIN, *found], np.uint64)

        return IntSet(2, Lazily(contains, build))

    def entry(self, number: int, highest: int, hard: frozenset[int]) -> Step:
        """The index of a symbol; ``highest`` so far, ``hard``: those that the needs must have."""

        def then(value: int, data: bytearray) -> Step:
            index, more = value & INDEX, hard
            if self.undefined[number] and index > 1 and index not in self.debts.needs:
                more = hard | {index}
            if number + 1 < len(self.undefined):
                return self.entry(number + 1, max(highest, index), more)
            return self._end(max(highest, index), more, data)

        rule = "0, 1, or the index of a version that is defined, or may come to be"
        return IntStep(
            self.region.start + 2 * number, 2, self._choices(number, highest, hard), ("versym[{}]", number), rule, then
        )  # fmt: skip

    def _end(self, highest: int, hard: frozenset[int], data: bytearray) -> Step:
        """What comes after the table: the tables to come have room for what it uses."""
        debts = self.debts.read(VERSYM)
        owed = frozenset(range(2, highest + 1)) - debts.defined
        plan = self.plan._replace(versions=debts._replace(owed=owed, hard=hard))
        place = debts.unread.get(VERNEED)
        if place is not None:
            count = min(self.needs, len(owed | hard))
            plan = debts_of.grow(plan, VERNEED, NEED * place.count + NEED_NAME * count)
        return proceed(plan, self.region.end, data)


def _before_sections(plan: Plan, raw: bytes) -> Plan:
    """The plan in which section headers know how many symbols have good indices."""
    debts: Debts | None = plan.versions
    if plan.named is None or debts is None or debts.indices is None:
        return plan
    return plan._replace(named=plan.named._replace(indices=debts_of.sure_symbols(plan, raw, MOST)))


tables.Hooks.before_sections = staticmethod(_before_sections)
