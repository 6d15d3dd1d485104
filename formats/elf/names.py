"""Section names: where the name table can lie, given the names that sections have asked of it.

A name is an offset in the table; tools look some names up:

- readelf takes a string table named ``.dynstr`` for the dynamic strings and complains of a second one;
- readelf looks for ``.dynamic`` where there is a PT_DYNAMIC, and takes the first section of that name;
- pyelftools reads sections named ``.stab`` as records of 12 bytes.

So at most one string table has the first name, the dynamic section alone has (and where there is a PT_DYNAMIC,
must have) the second, and what has the third is of whole records. The table may be written already, or lie
ahead: then its grammar (`points`) keeps these rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.intset import exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.quick import replacing
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.elf.plan import Plan, Section, opener, proceed
from bytegen.formats.elf.written import Behind, Lazily

DYNSTR, DYNAMIC, STAB = b".dynstr\0", b".dynamic\0", b".stab\0"
STAB_SIZE = 12
_FEW = 8
SHT_PROGBITS, SHT_STRTAB, SHT_DYNAMIC = 1, 3, 6
_NONE = np.zeros(0, np.uint64)


@replacing
class Asked(NamedTuple):
    """What sections ask of the name table, as offsets in it."""

    dynamic: int | None = None  # holds ".dynamic"
    wanted: bool = False  # holds ".dynamic" somewhere, for a section to come
    plain: tuple[int, ...] = ()  # does not hold ".dynamic"
    strings: tuple[int, ...] = ()  # at most one holds ".dynstr"
    ragged: tuple[int, ...] = ()  # does not hold ".stab"

    def fits(self, behind: Behind, start: int) -> bool:
        """Whether the table that begins at ``start`` holds what is asked."""
        raw = behind.raw
        if self.dynamic is not None and not raw.startswith(DYNAMIC, start + self.dynamic):
            return False
        if self.wanted and not (len(places(behind, DYNAMIC)) and places(behind, DYNAMIC)[-1] > start):
            return False
        if _held(behind, DYNAMIC, start, self.plain) or _held(behind, STAB, start, self.ragged):
            return False
        return _held(behind, DYNSTR, start, self.strings) <= 1

    @property
    def free(self) -> int:
        """The least name that no section has, for a dynamic section to come."""
        taken, name = set(self.plain), 1
        while name in taken:
            name += 1
        return name

    @property
    def least(self) -> int:
        """Bytes that the table has at least on this account."""
        if self.dynamic is not None:
            return self.dynamic + len(DYNAMIC)
        return self.free + len(DYNAMIC) if self.wanted else 0

    def crowded(self, most: int) -> list[int]:
        """The name that a section may not take, lest a table of ``most`` bytes has none for the dynamic one."""
        if not self.wanted:
            return []
        name = self.free
        taken = self._replace(plain=(*self.plain, name))
        return [name] if taken.least > most else []


def with_section(plan: Plan, section: Section, dynamic: bool) -> Plan:
    """The plan with one more section header read; ``dynamic``: whether there is a PT_DYNAMIC."""
    index, kind = len(plan.sections), section.kind
    asks: Asked = plan.asks if plan.asks is not None else Asked(wanted=dynamic)
    if kind == SHT_DYNAMIC:
        asks = asks._replace(dynamic=section.name, wanted=False)
    elif dynamic and index:
        asks = asks._replace(plain=(*asks.plain, section.name))
    if kind == SHT_STRTAB:
        asks = asks._replace(strings=(*asks.strings, section.name))
    elif kind == SHT_PROGBITS and section.size % STAB_SIZE:
        asks = asks._replace(ragged=(*asks.ragged, section.name))
    of_kind = {**plan.of_kind, kind: (*plan.of_kind.get(kind, ()), index)}
    return plan._replace(sections=plan.sections.with_item(section), of_kind=of_kind, asks=asks)


def places(behind: Behind, text: bytes) -> np.ndarray:
    """Where a name stands in the bytes already written, ascending."""
    if text not in behind.cache:
        raw, found = behind.raw, []
        place = raw.find(text)
        while place >= 0:
            found.append(place)
            place = raw.find(text, place + 1)
        behind.cache[text] = np.array(found, np.int64)
    stored: np.ndarray = behind.cache[text]
    return stored


def _held(behind: Behind, text: bytes, start: int, names: tuple[int, ...]) -> int:
    """How many of the names in the table that begins at ``start`` are ``text``, which mostly stands nowhere."""
    stands = places(behind, text)
    if len(stands) <= _FEW:
        return sum(names.count(place - start) for place in stands.tolist())
    return sum(behind.raw.startswith(text, start + name) for name in names)


def _bad(behind: Behind, asks: Asked) -> np.ndarray:
    """Offsets at which the table cannot begin, of those where it holds ".dynamic" if it must."""
    bad = [np.zeros(0, np.int64)]
    for text, names in ((DYNAMIC, asks.plain), (STAB, asks.ragged)):
        if names and len(places(behind, text)):
            bad += [places(behind, text) - name for name in set(names)]
    if len(asks.strings) > 1 and len(places(behind, DYNSTR)):
        starts, counts = np.unique(
            np.concatenate([places(behind, DYNSTR) - name for name in asks.strings]), return_counts=True
        )
        bad.append(starts[counts > 1])
    return np.concatenate(bad)


def _without(starts: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """The ascending ``starts`` that are none of ``bad``, which are few."""
    bad = bad[bad >= 0].astype(starts.dtype)
    at = np.searchsorted(starts, bad)
    bad, at = bad[at < len(starts)], at[at < len(starts)]
    keep = np.ones(len(starts), dtype=bool)
    keep[at[starts[at] == bad]] = False
    return starts[keep]


def behind_starts(behind: Behind, asks: Asked, need: int) -> np.ndarray:
    """Where a name table of at least ``need`` bytes that is already written may begin, ascending."""
    if asks.dynamic is not None:
        starts = places(behind, DYNAMIC) - asks.dynamic
        starts = starts[starts >= 0]
        found = starts[np.frombuffer(behind.raw, np.uint8)[starts] == 0].astype(np.uint64)
    else:
        found = behind.zeros
        if asks.wanted:
            named = places(behind, DYNAMIC)[-1:]
            found = found[: np.searchsorted(found, named[0])] if len(named) else found[:0]
    found = _without(found, _bad(behind, asks))
    last = behind.last_zero - max(need, asks.least, 1) + 1
    return found[: np.searchsorted(found, last, side="right")] if last >= 0 else _NONE


def behind_longest(behind: Behind, asks: Asked) -> int:
    """Size of the longest name table that is already written; 0 when there is none."""
    raw = behind.raw
    if asks.dynamic is not None:
        for start in (places(behind, DYNAMIC) - asks.dynamic).tolist():
            if start >= 0 and not raw[start] and asks.fits(behind, start):
                return behind.last_zero + 1 - int(start)
        return 0
    if asks.wanted and not len(places(behind, DYNAMIC)):
        return 0
    start = raw.find(0)
    while start >= 0 and not asks.fits(behind, start):
        start = raw.find(0, start + 1)
    return behind.last_zero + 1 - start if start >= 0 else 0


def behind_offsets(behind: Behind, asks: Asked, need: int) -> Lazily:
    """Where a name table of at least ``need`` bytes that is already written may begin."""
    last = behind.last_zero - max(need, asks.least, 1) + 1
    return Lazily(
        lambda x: x <= last and behind.raw[x] == 0 and asks.fits(behind, x),
        lambda: behind_starts(behind, asks, need),
    )


def behind_need(behind: Behind, asks: Asked, start: int, need: int) -> int:
    """Bytes that the name table at ``start`` has at least."""
    if asks.wanted:
        known = places(behind, DYNAMIC)
        need = max(need, int(known[np.searchsorted(known, start, side="right")]) + len(DYNAMIC) - start)
    return max(need, asks.least)


def held(raw: bytes, start: int, size: int, text: bytes) -> list[int]:
    """The names of a written table that are ``text`` (which ends with a zero)."""
    stop, found = start + size, []
    place = raw.find(text, start, stop)
    while place >= 0:
        found.append(place - start)
        place = raw.find(text, place + 1, stop)
    return found


Point = Callable[[bytes | bytearray], frozenset[int]]


def points(plan: Plan, start: int, size: int, asks: Asked) -> tuple[dict[int, int], dict[int, list[Point]]]:
    """The bytes of a name table ahead that are settled, and those that depend on the ones before.

    Keys are file offsets. A function gives the bytes that may not stand there; the first and the last byte
    of the table, which are zero, have none.
    """
    fixed: dict[int, int] = {}
    if asks.dynamic is not None:
        fixed = {start + asks.dynamic + i: byte for i, byte in enumerate(DYNAMIC)}
    watched: dict[int, list[Point]] = {}

    def watch(name: int, text: bytes, unless: Callable[[bytes | bytearray], bool]) -> None:
        first, last = start + name, start + name + len(text) - 2
        if name and last < start + size - 1 and last not in fixed:
            letter = frozenset({text[-2]})
            head = text[:-2]
            watched.setdefault(last, []).append(
                lambda data: letter if data[first:last] == head and not unless(data) else frozenset()
            )

    for name in set(asks.plain):
        watch(name, DYNAMIC, lambda data: False)
    for name in set(asks.ragged):
        watch(name, STAB, lambda data: False)
    if len(asks.strings) > 1:
        for name in set(asks.strings):
            single = asks.strings.count(name) == 1
            rest = [start + other for other in set(asks.strings) if other < name]
            watch(
                name,
                DYNSTR,
                lambda data, single=single, rest=rest: (  # type: ignore[misc]
                    single and not any(data[other : other + 7] == DYNSTR[:-1] for other in rest)
                ),
            )
    return fixed, watched


# A PT_DYNAMIC asks for a section of its name; the bytes before the section headers are kept for that name.

_KEPT = b"\0" + DYNAMIC
LEAST_SECTIONS = 4  # the null one, the names, the dynamic section, its strings


def keep(plan: Plan) -> Plan:
    """The plan that keeps room for the name of a dynamic section, where section headers leave any."""
    start = plan.shoff - len(_KEPT)
    if plan.shnum < LEAST_SECTIONS or plan.shoff < plan.phoff or plan.ledger.room(start) < len(_KEPT):
        return plan
    return plan._replace(ledger=plan.ledger.add(Region(start, plan.shoff, "names", "section names")))


def kept(plan: Plan) -> bool:
    """Whether there may be a PT_DYNAMIC: the section headers, if any, can name its section."""
    return not plan.shnum or plan.ledger.at(plan.shoff - len(_KEPT), "names") is not None


@opener("names")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    room = max((high - low for low, high in plan.ledger.gaps(region.end)), default=0)
    first = data.find(0)
    if plan.dynamic is None or room >= len(_KEPT) or 0 <= first < data.rfind(DYNAMIC):
        return FreeStep(
            region.start, region.end, None, "gap", "any byte", lambda data: proceed(plan, region.end, data)
        )

    def at(i: int, data: bytearray) -> Step:
        if i == len(_KEPT):
            return proceed(plan, region.end, data)
        rule = "the name of the dynamic section, which no string table has yet"
        return IntStep(
            region.start + i,
            1,
            exactly(1, _KEPT[i]),
            "names.dynamic",
            rule,
            lambda value, data: at(i + 1, data),
        )

    return at(0, data)
