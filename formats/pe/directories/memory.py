"""Where directories' contents are or fit: addresses to file offsets, bytes behind, room ahead.

A directory's grammar sees the file through a `View`: the bytes written before the directory (*behind*, judged as
they are) and the ledger of what is promised after it (*ahead*). Nothing a grammar points to lies across the
directory itself. Addresses are relative to the image (RVAs); "mapped" is the file-backed part of a section.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain, compress, count, islice
from operator import is_not
from typing import Any, NamedTuple

import numpy as np

from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.core.pieces import Span
from bytegen.formats.pe.plan import Plan, Section

IMPORT_ADDRESSES = 12  # index of the directory of import address tables
_FEW_CHANGES = 4


class Scanned:
    """What was found in the bytes before a table, and those bytes: forks share it, and may have written others."""

    __slots__ = ("names",)

    def __init__(self) -> None:
        self.names: tuple[bytes, dict[int, list[int]]] = b"", {}  # see `thunks`


class Contents(NamedTuple):
    """What grammars of directories keep for each other in `Plan.contents`."""

    imports: tuple[Any, ...] = ()  # groups of imports: see `imports`
    delayed: tuple[Any, ...] = ()  # tables of delayed imports: see `delay_tables`
    duties: tuple[int, ...] = ()  # addresses that must be relocated: see `relocs`
    resource_bytes: int = (
        0  # sizes of the resources so far, and the least of those that are version information
    )
    information: tuple[int, int, int] = (-1, 0, 0)  # see `resource_leaves`
    functions: tuple[int, ...] = ()  # where the functions of the exception directory begin
    scanned: Scanned | None = None


def contents(plan: Plan) -> Contents:
    """The plan's contents."""
    found: Contents = plan.contents if plan.contents is not None else Contents()
    return found


class Mapping:
    """The file-backed parts of the sections, by address and by file offset (both ascend together)."""

    __slots__ = ("_begins", "_moves", "addresses", "offsets", "spans")

    def __init__(self, sections: Iterable[Section]) -> None:
        spans = [(s.address, s.offset, s.backed) for s in sections if s.raw_size and s.backed]
        self.spans = spans
        self.addresses = [address for address, _, _ in spans]
        self.offsets = [offset for _, offset, _ in spans]
        self._begins = np.array(self.offsets, np.int64)
        self._moves = np.array(self.addresses, np.int64) - self._begins

    def offset(self, address: int) -> int | None:
        """File offset of a mapped address."""
        i = bisect_right(self.addresses, address) - 1
        if i < 0:
            return None
        start, offset, size = self.spans[i]
        return offset + address - start if address < start + size else None

    def address(self, offset: int) -> int:
        """Address of a mapped byte of the file."""
        start, begin, _ = self.spans[bisect_right(self.offsets, offset) - 1]
        return start + offset - begin

    def addresses_of(self, offsets: np.ndarray) -> np.ndarray:
        """int64: `address` of each offset (int64)."""
        found: np.ndarray = offsets + self._moves[self._begins.searchsorted(offsets, side="right") - 1]
        return found

    def stop(self, offset: int) -> int:
        """Where the mapped bytes around a file offset end; 0 where it is not mapped."""
        i = bisect_right(self.offsets, offset) - 1
        if i < 0:
            return 0
        _, begin, size = self.spans[i]
        return begin + size if offset < begin + size else 0


@lru_cache(maxsize=64)
def mapping(sections: tuple[Section, ...]) -> Mapping:
    """The mapping of a file's sections."""
    return Mapping(sections)


def address_tables(plan: Plan) -> tuple[int, int]:
    """File offsets of the import address tables, (0, 0) without any: nothing else is promised there."""
    start, size = plan.directories[IMPORT_ADDRESSES]
    begin = mapping(plan.sections).offset(start) if size else None
    return (begin, begin + size) if begin is not None else (0, 0)


def room(ledger: Ledger, offset: int) -> int:
    """Bytes from ``offset`` to the next promise; 0 inside of one."""
    regions = ledger.regions
    i = bisect_right(ledger._starts, offset)
    if i and regions[i - 1].end > offset:
        return 0
    return (regions[i].start if i < len(regions) else ledger.limit) - offset


def after(ledger: Ledger, region: Region) -> int:
    """Bytes from the start of a promise to the next one."""
    i = bisect_right(ledger._starts, region.start)
    return (ledger.regions[i].start if i < len(ledger.regions) else ledger.limit) - region.start


def added(ledger: Ledger, region: Region) -> Ledger:
    """A ledger with one promise more; the same one where there is one at its start already."""
    i = bisect_left(ledger._starts, region.start)
    if i < len(ledger.regions) and ledger.regions[i].start == region.start:
        return ledger
    new = object.__new__(Ledger)
    new.limit, new._asked = ledger.limit, (-1, [])
    new.regions = (*ledger.regions[:i], region, *ledger.regions[i:])
    starts = ledger._starts.copy()
    starts.insert(i, region.start)
    new._starts = starts
    return new


def merged(ledger: Ledger, regions: list[Region]) -> Ledger:
    """A ledger with promises more, none of which begins where another does."""
    return Ledger(ledger.limit, tuple(sorted((*ledger.regions, *regions), key=lambda r: r.start)))


def grown(ledger: Ledger, start: int, end: int) -> Ledger:
    """A ledger in which the promise at ``start`` ends at ``end``."""
    i = bisect_left(ledger._starts, start)
    regions = ledger.regions
    old = regions[i]
    assert old.start == start
    return Ledger(ledger.limit, (*regions[:i], old._replace(end=end), *regions[i + 1 :]))


def _grown_by(old: Ledger, new: Ledger) -> list[Region] | None:
    """What ``new`` promises that ``old`` does not: new promises and longer ones; None where more has changed."""
    before, now = old.regions, new.regions
    if old.limit != new.limit:
        return None
    found = list[Region]()
    i = j = 0
    while len(found) < _FEW_CHANGES:
        same = next(compress(count(), map(is_not, islice(before, i, None), islice(now, j, None))), None)
        if same is None and len(before) - i == len(now) - j:
            return found
        same = min(len(before) - i, len(now) - j) if same is None else same
        i, j = i + same, j + same
        if j == len(now) or now[j].start == now[j].end:
            return None
        if i < len(before) and before[i].start <= now[j].start:
            if before[i].start < now[j].start or before[i].end > now[j].end:
                return None
            i += 1
        found.append(now[j])
        j += 1
    return None


def _without(gaps: list[tuple[int, int]], region: Region) -> list[tuple[int, int]]:
    """The gaps that are left where a range is promised."""
    start, end = region.start, region.end
    i = bisect_left(gaps, start, key=lambda gap: gap[1] - 1)
    j = bisect_left(gaps, end, lo=i, key=lambda gap: gap[0])
    left = [
        (a, b)
        for low, high in gaps[i:j]
        for a, b in ((low, min(high, start)), (max(low, end), high))
        if a < b
    ]
    return [*gaps[:i], *left, *gaps[j:]]


class View:
    """The file as the directory that begins at file offset ``here`` sees it.

    ``raw`` is what is written; promises may be made from ``free`` on, up to ``stop``.
    """

    __slots__ = ("_memo", "barred", "base", "free", "here", "map", "raw", "stop")

    def __init__(self, plan: Plan, here: int, free: int, data: bytearray, stop: int = 1 << 40) -> None:
        self.map = mapping(plan.sections)
        self.here, self.free, self.stop = here, free, stop
        self.raw = bytes(data[:here])
        self.base = plan.base
        self.barred = address_tables(plan)
        self._memo: dict[Any, Any] = {}

    def behind(self, address: int, size: int = 1) -> int | None:
        """File offset of written bytes; None where not all of them are written and in one section."""
        offset = self.map.offset(address)
        if offset is None or offset + size > self.here or offset + size > self.map.stop(offset):
            return None
        return offset

    def ahead(self, ledger: Ledger, address: int) -> int:
        """Bytes that can be promised at an address ahead, outside of the import address tables."""
        offset = self.map.offset(address)
        if offset is None or offset < self.free:
            return 0
        most = max(min(room(ledger, offset), min(self.map.stop(offset), self.stop) - offset), 0)
        low, high = self.barred
        if low <= offset < high:
            return 0
        return min(most, low - offset) if offset < low else most

    def gaps(self, ledger: Ledger, barred: bool = False) -> list[tuple[int, int]]:
        """The mapped file ranges from ``free`` on that nobody has been promised.

        Those of the import address tables are left out, or alone given with ``barred``.
        """
        if not barred:
            return self._open_gaps(ledger)
        return self._gaps(ledger, True)

    def _open_gaps(self, ledger: Ledger) -> list[tuple[int, int]]:
        """`gaps`, kept for the ledger asked last, and found from it where a ledger promises little more."""
        known: tuple[Ledger, list[tuple[int, int]]] | None = self._memo.get("gaps")
        if known is not None and known[0] is ledger:
            return known[1]
        more = None if known is None else _grown_by(known[0], ledger)
        if known is None or more is None:
            found = self._gaps(ledger, False)
        else:
            found = known[1]
            for region in more:
                found = _without(found, region)
        self._memo["gaps"] = ledger, found
        return found

    def _gaps(self, ledger: Ledger, barred: bool) -> list[tuple[int, int]]:
        low_barred, high_barred = self.barred
        found = []
        for low, high in ledger.gaps(self.free):
            for _, begin, size in self.map.spans:
                a, b = max(low, begin), min(high, begin + size, self.stop)
                if a >= b:
                    continue
                if barred:
                    parts = [(max(a, low_barred), min(b, high_barred))]
                else:
                    parts = [(a, min(b, low_barred)), (max(a, high_barred), b)] if high_barred else [(a, b)]
                found += [(c, d) for c, d in parts if c < d]
        return found

    def promised(self, ledger: Ledger, kind: str) -> np.ndarray:
        """int64: where promises of that kind begin; kept for the ledger asked last, as in `gaps`."""
        known: tuple[Ledger, np.ndarray] | None = self._memo.get(("promised", kind))
        more = None if known is None else _grown_by(known[0], ledger)
        if known is None or more is None:
            found = np.array([region.start for region in ledger.regions if region.kind == kind], np.int64)
        else:
            new = [region.start for region in more if region.kind == kind]
            found = np.append(known[1], np.array(new, np.int64)) if new else known[1]
        self._memo["promised", kind] = ledger, found
        return found

    def places(self, ledger: Ledger, least: int) -> np.ndarray:
        """int64[n, 2]: the first and last address ahead of each gap where ``least`` bytes fit (or past it)."""
        gaps = self.gaps(ledger)
        # Three times as fast as `np.array` of pairs.
        found = np.fromiter(chain.from_iterable(gaps), np.int64, 2 * len(gaps)).reshape(-1, 2)
        lows, highs = found.T
        highs -= lows + least
        lows[:] = self.map.addresses_of(lows)
        highs += lows
        return found

    def spans(self, ledger: Ledger, least: int, need: int = 0, align: int = 1, shift: int = 0) -> list[Span]:
        """Addresses (plus ``shift``) ahead where ``least`` bytes fit so that ``need`` bytes in a row fit still."""
        gaps = self.gaps(ledger)
        sizes = sorted((high - low for low, high in gaps), reverse=True)
        found = []
        for low, high in gaps:
            move = self.map.address(low) - low + shift
            others = sizes[1] if sizes[0] == high - low and len(sizes) > 1 else sizes[0]
            if len(sizes) == 1:
                others = 0
            if others >= need:
                parts = [(low, high - least)]
            else:
                parts = [(low, high - least - need), (low + need, high - least)]
            found += [Span(a + move, b + move, align, shift % align) for a, b in parts if a <= b]
        return [span for span in found if span.bounds()]

    def fits(self, ledger: Ledger, address: int, least: int, need: int = 0) -> bool:
        """Whether `spans` has the address."""
        room_ahead = self.ahead(ledger, address)
        if room_ahead < least:
            return False
        if room_ahead >= least + need:
            return True
        return any(span.contains(address) for span in self.spans(ledger, least, need))

    def promise(self, ledger: Ledger, address: int, size: int, kind: str, path: str, detail: Any) -> Ledger:
        """A ledger with ``size`` bytes at an address ahead promised."""
        offset = self.map.offset(address)
        assert offset is not None
        return ledger.add(Region(offset, offset + size, kind, path, detail))
