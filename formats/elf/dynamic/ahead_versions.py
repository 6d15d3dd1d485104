"""The grammars of version tables that the dynamic section promises ahead (see `version_debts`).

An entry is followed by its names, as GNU ld writes it; lld writes the needs of all files before their names.
Sources: the Linux Standard Base (symbol versioning), glibc elf/dl-version.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.intset import IntSet, anything, exactly, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.elf.dynamic import version_debts as debts_of
from bytegen.formats.elf.dynamic.settled import versions_read
from bytegen.formats.elf.dynamic.version_debts import (
    DEFINITION,
    DEFINITION_NAME,
    INDEX,
    LEAST_DEFINITION,
    LEAST_NEED,
    NEED,
    NEED_NAME,
    VERDEF,
    VERNEED,
    Debts,
    Place,
)
from bytegen.formats.elf.dynamic.version_names import Names
from bytegen.formats.elf.dynamic.versions import FLAGS_KNOWN, MOST_NAMES
from bytegen.formats.elf.plan import Plan, opener, proceed

_ANY = anything(4)
_FLAGS = interval(2, 0, FLAGS_KNOWN)

Then = Callable[[int, bytearray], Step]


_INDEX = interval(2, 0, INDEX)


# Needs


@opener("verneed")
def _open_needs(plan: Plan, region: Region, data: bytearray) -> Step:
    debts = debts_of.of(plan)
    offset, size = debts.strings
    text = bytes(data[offset : offset + size])
    names = Names(text, plan.target.name)
    files = names.files(names.at(place) for place in debts.needed) if plan.strict else []
    table = _Needs(plan, region, debts.unread[VERNEED], debts_of.stop_of(plan, VERNEED), names, tuple(files))
    return table.entry(_Reading(region.start))


class _Reading(NamedTuple):
    """How far a table is read: the next byte, the entry, names so far, the indices defined.

    ``counts`` and ``files`` of the entries so far, and where the next names come, in a table whose names come last.
    """

    at: int
    number: int = 0
    names: int = 0
    indices: frozenset[int] = frozenset()
    counts: tuple[int, ...] = ()
    files: tuple[int, ...] = ()
    apart: bool = False


class _Needs:
    """A table of needed versions being read. ``files``: where the names of files that may be meant begin."""

    __slots__ = ("debts", "files", "names", "place", "plan", "region", "stop")

    def __init__(
        self, plan: Plan, region: Region, place: Place, stop: int, names: Names, files: tuple[int, ...]
    ) -> None:
        self.plan, self.region, self.place, self.stop = plan, region, place, stop
        self.names, self.files = names, files
        self.debts: Debts = debts_of.of(plan)

    def _must(self, indices: frozenset[int]) -> tuple[int, frozenset[int]]:
        """How many versions must still be defined here, and those that may be among them."""
        hard = self.debts.hard - indices
        soft = self.debts.owed - self.debts.hard - indices
        more = len(soft) - debts_of.definitions_room(self.plan)
        return (len(hard) + more, hard | soft) if more > 0 else (len(hard), hard)

    def _field(self, at: int, size: int, choices: IntSet, path: str, rule: str, then: Then) -> Step:
        return IntStep(at, size, choices, f"verneed{path}", rule, then)

    def entry(self, seen: _Reading) -> Step:
        """vn_version."""
        path = f"[{seen.number}].vn_version"
        return self._field(seen.at, 2, exactly(2, 1), path, "1", lambda _, data: self._count(seen))

    def _count(self, seen: _Reading) -> Step:
        later = self.place.count - seen.number - 1
        if seen.apart:
            most = (self.stop - self.region.start - NEED * self.place.count) // NEED_NAME - seen.names - later
        else:
            most = (self.stop - seen.at - NEED - LEAST_NEED * later) // NEED_NAME
        most = min(most, MOST_NAMES - seen.names - later)
        least = 1 if later else max(1, self._must(seen.indices)[0] - (seen.names if seen.apart else 0))
        rule = f"{least} to {most}: the versions that fit, and those owed"

        def then(value: int, data: bytearray) -> Step:
            return self._file(seen._replace(counts=(*seen.counts, value), names=seen.names + value))

        return self._field(seen.at + 2, 2, interval(2, least, most), f"[{seen.number}].vn_cnt", rule, then)

    def _file(self, seen: _Reading) -> Step:
        places = exactly(4, *self.files) if self.plan.strict else interval(4, 0, len(self.names.text) - 1)
        rule = "the place of a needed library's name of which a version is named; at level parse any"

        def then(value: int, data: bytearray) -> Step:
            return self._first(seen._replace(files=(*seen.files, value)))

        return self._field(seen.at + 4, 4, places, f"[{seen.number}].vn_file", rule, then)

    def _first(self, seen: _Reading) -> Step:
        """vn_aux: the names come at once, or, as the first entry says, behind all entries."""
        behind = NEED * (self.place.count - seen.number) + NEED_NAME * (seen.names - seen.counts[-1])
        choices = {NEED, behind} if not seen.number else {behind if seen.apart else NEED}

        def then(value: int, data: bytearray) -> Step:
            return self._next(seen._replace(apart=value != NEED) if not seen.number else seen)

        rule = "where its names are"
        return self._field(seen.at + 8, 4, exactly(4, *choices), f"[{seen.number}].vn_aux", rule, then)

    def _next(self, seen: _Reading) -> Step:
        last = seen.number + 1 == self.place.count
        size = 0 if last else NEED if seen.apart else NEED + NEED_NAME * seen.counts[-1]

        def then(_: int, data: bytearray) -> Step:
            if seen.apart and not last:
                return self.entry(seen._replace(at=seen.at + NEED, number=seen.number + 1))
            if seen.apart:
                return self._name(seen._replace(at=seen.at + NEED, number=0), 0)
            return self._name(seen._replace(at=seen.at + NEED), 0)

        rule = "the way to the next entry, 0 at the last"
        return self._field(seen.at + 12, 4, exactly(4, size), f"[{seen.number}].vn_next", rule, then)

    def _slots(self, seen: _Reading, done: int) -> int:
        """How many names may come from the one at ``seen.at`` on."""
        here = seen.counts[seen.number] - done
        if seen.apart:
            return here + sum(seen.counts[seen.number + 1 :])
        later = self.place.count - seen.number - 1
        if not later:
            return here
        room = (self.stop - seen.at - NEED_NAME * here - NEED * later) // NEED_NAME
        return here + min(room, MOST_NAMES - seen.names)

    def _name(self, seen: _Reading, done: int) -> Step:
        """A version of the entry ``seen.number``, ``done`` of which are read."""
        path, start, strict = f"[{seen.number}].name[{done}]", seen.at, self.plan.strict
        file = self.names.at(seen.files[seen.number]) if strict else b""
        hashes = IntSet(4, Finite(self.names.hashes(file).astype(np.uint64))) if strict else _ANY
        owed, which = self._must(seen.indices)
        indices = exactly(2, *which) if owed >= self._slots(seen, done) else _INDEX
        last = done + 1 == seen.counts[seen.number]

        def hashed(value: int, data: bytearray) -> Step:
            return self._field(
                start + 4, 2, _FLAGS, f"{path}.vna_flags", "known flags", lambda _, data: other(value)
            )  # fmt: skip

        def other(value: int) -> Step:
            rule = "any; where room is short, one that is used and not defined yet"
            return self._field(
                start + 6, 2, indices, f"{path}.vna_other", rule, lambda index, data: name(value, index)
            )  # fmt: skip

        def name(value: int, index: int) -> Step:
            after = seen._replace(at=start + NEED_NAME, indices=seen.indices | {index & INDEX})
            if strict:
                places = IntSet(4, Finite(self.names.with_hash(file, value).astype(np.uint64)))
            else:
                places = interval(4, 0, len(self.names.text) - 1)
            rule = "the place of a version's name with that hash"
            return self._field(
                start + 8, 4, places, f"{path}.vna_name", rule, lambda _, data: following(after)
            )  # fmt: skip

        def following(after: _Reading) -> Step:
            size = exactly(4, 0 if last else NEED_NAME)
            rule = "the way to the next name, 0 at the last"
            return self._field(
                start + 12, 4, size, f"{path}.vna_next", rule, lambda _, data: self._behind(after, done, data)
            )  # fmt: skip

        rule = "the hash of a version's name"
        return self._field(start, 4, hashes, f"{path}.vna_hash", rule, hashed)

    def _behind(self, seen: _Reading, done: int, data: bytearray) -> Step:
        """What comes after a name."""
        if done + 1 < seen.counts[seen.number]:
            return self._name(seen, done + 1)
        if seen.number + 1 == self.place.count:
            plan = self.plan._replace(versions=self.debts.define(seen.indices, True))
            plan = versions_read(plan, VERNEED, seen.at - self.region.start).reach(seen.at)
            return proceed(plan, seen.at, data)
        seen = seen._replace(number=seen.number + 1)
        return self._name(seen, 0) if seen.apart else self.entry(seen)


# Definitions


@opener("verdef")
def _open_definitions(plan: Plan, region: Region, data: bytearray) -> Step:
    return _Definitions(plan, region).entry(_Reading(region.start))


class _Definitions:
    """A table of defined versions being read."""

    __slots__ = ("count", "debts", "plan", "region", "stop")

    def __init__(self, plan: Plan, region: Region) -> None:
        self.plan, self.region = plan, region
        self.debts: Debts = debts_of.of(plan)
        self.count = self.debts.unread[VERDEF].count
        self.stop = debts_of.stop_of(plan, VERDEF)

    def _field(self, at: int, size: int, choices: IntSet, path: str, rule: str, then: Then) -> Step:
        return IntStep(at, size, choices, f"verdef{path}", rule, then)

    def _indices(self, seen: _Reading) -> IntSet:
        """vd_ndx: any; where few entries are left, one that is used and that the needs to come have no room for."""
        soft = self.debts.owed - self.debts.hard - seen.indices
        owed = len(soft) - (debts_of.needs_room(self.plan) - len(self.debts.hard))
        return exactly(2, *soft) if owed >= self.count - seen.number else _INDEX

    def entry(self, seen: _Reading) -> Step:
        """An entry, up to its names."""
        path, start, later = f"[{seen.number}]", seen.at, self.count - seen.number - 1
        most = (self.stop - start - DEFINITION - LEAST_DEFINITION * later) // DEFINITION_NAME
        most = min(most, MOST_NAMES - seen.names - later)

        def version(_: int, data: bytearray) -> Step:
            return self._field(start + 2, 2, _FLAGS, f"{path}.vd_flags", "known flags", flags)

        def flags(_: int, data: bytearray) -> Step:
            rule = "any; where room is short, one that is used and not defined yet"
            return self._field(start + 4, 2, self._indices(seen), f"{path}.vd_ndx", rule, index)

        def index(value: int, data: bytearray) -> Step:
            after = seen._replace(indices=seen.indices | {value & INDEX})
            rule = f"1 to {most}: the names that fit"
            return self._field(
                start + 6, 2, interval(2, 1, most), f"{path}.vd_cnt", rule,
                lambda names, data: hashed(after._replace(names=seen.names + names), names),
            )  # fmt: skip

        def hashed(after: _Reading, names: int) -> Step:
            return self._field(
                start + 8, 4, _ANY, f"{path}.vd_hash", "any", lambda _, data: first(after, names)
            )  # fmt: skip

        def first(after: _Reading, names: int) -> Step:
            size = 0 if not later else DEFINITION + DEFINITION_NAME * names
            return self._field(
                start + 12, 4, exactly(4, DEFINITION), f"{path}.vd_aux", "20: its names come at once",
                lambda _, data: self._field(
                    start + 16, 4, exactly(4, size), f"{path}.vd_next", "the way to the next entry, 0 at the last",
                    lambda _, data: self._name(after._replace(at=start + DEFINITION), names),
                ),
            )  # fmt: skip

        return self._field(start, 2, exactly(2, 1), f"{path}.vd_version", "1", version)

    def _name(self, seen: _Reading, left: int) -> Step:
        path, size = f"[{seen.number}].name[-{left}]", self.debts.strings[1]
        places = interval(4, 0, size - 1)

        def name(_: int, data: bytearray) -> Step:
            following = exactly(4, DEFINITION_NAME if left > 1 else 0)
            rule = "the way to the next name, 0 at the last"
            return self._field(seen.at + 4, 4, following, f"{path}.vda_next", rule, after)

        def after(_: int, data: bytearray) -> Step:
            done = seen._replace(at=seen.at + DEFINITION_NAME)
            if left > 1:
                return self._name(done, left - 1)
            if seen.number + 1 < self.count:
                return self.entry(done._replace(number=seen.number + 1))
            plan = self.plan._replace(versions=self.debts.define(seen.indices, False))
            plan = versions_read(plan, VERDEF, done.at - self.region.start).reach(done.at)
            return proceed(plan, done.at, data)

        return self._field(seen.at, 4, places, f"{path}.vda_name", "a place in the string table", name)
