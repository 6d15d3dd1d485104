"""Where directories' contents are or fit: addresses to file offsets, bytes behind, room ahead.

A directory's grammar sees the file through a `View`: the bytes written before the directory (*behind*, judged as
they are) and the ledger of what is promised after it (*ahead*). Nothing a grammar points to lies across the
directory itself. Addresses are relative to the image (RVAs); "mapped" is the file-backed part of a section.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.core.pieces import Piece, Ranges, Span
from bytegen.formats.pe.constants import MEM_READ
from bytegen.formats.pe.directories.gaps import Gaps, grown_by
from bytegen.formats.pe.plan import Plan, Section

_ROOM_OF_RANGES = 61  # bits that a number of `Ranges` may have, and an address of the image besides
IMPORT_ADDRESSES = 12  # index of the directory of import address tables


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

    __slots__ = ("_moves", "addresses", "begins", "ends", "offsets", "spans")

    def __init__(self, sections: Iterable[Section]) -> None:
        spans = [(s.address, s.offset, s.backed) for s in sections if s.raw_size and s.backed]
        self.spans = spans
        self.addresses = [address for address, _, _ in spans]
        self.offsets = [offset for _, offset, _ in spans]
        self.begins = np.array(self.offsets, np.int64)
        self._moves = np.array(self.addresses, np.int64) - self.begins
        self.ends = self.begins + np.array([size for _, _, size in spans], np.int64)

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
        found: np.ndarray = offsets + self._moves[self.begins.searchsorted(offsets, side="right") - 1]
        return found

    def stops(self, offsets: np.ndarray) -> np.ndarray:
        """int64: `stop` of each offset (int64)."""
        i = self.begins.searchsorted(offsets, side="right") - 1
        ends = np.where(i >= 0, self.ends[i], 0) if len(self.ends) else np.zeros(len(offsets), np.int64)
        return np.where(offsets < ends, ends, 0)

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


def outside(gaps: Iterable[tuple[int, int]], plan: Plan) -> Iterator[tuple[int, int]]:
    """The gaps without the executable parts of the file."""
    for low, high in gaps:
        for start, end, _ in plan.executable:
            if low < end and start < high:
                if low < start:
                    yield low, start
                low = end
        if low < high:
            yield low, high


def read_by_loaders(plan: Plan) -> tuple[Section, ...]:
    """The sections in which loaders can read, where they are to load the file: all of them at level "parse"."""
    if not plan.strict:
        return plan.sections
    return tuple(section for section in plan.sections if section.flags & MEM_READ)


def address_tables(plan: Plan) -> tuple[int, int]:
    """File offsets of the import address tables, (0, 0) without any: nothing else is promised there."""
    start, size = plan.directories[IMPORT_ADDRESSES]
    begin = mapping(plan.sections).offset(start) if size else None
    return (begin, begin + size) if begin is not None else (0, 0)


def after(ledger: Ledger, region: Region) -> int:
    """Bytes from the start of a promise to the next one."""
    following = ledger.after(region.start + 1)
    return (following.start if following is not None else ledger.limit) - region.start


def merged(ledger: Ledger, regions: list[Region]) -> Ledger:
    """A ledger with promises more, none of which begins where another does."""
    return Ledger(ledger.limit, tuple(sorted((*ledger.regions, *regions), key=lambda r: r.start)))


class View:
    """The file as the directory that begins at file offset ``here`` sees it.

    ``raw`` is what is written; promises may be made from ``free`` on, up to ``stop``, in these ``sections`` (all).
    """

    __slots__ = ("_memo", "barred", "base", "free", "here", "map", "raw", "stop")

    def __init__(
        self,
        plan: Plan,
        here: int,
        free: int,
        data: bytearray,
        stop: int = 1 << 40,
        sections: tuple[Section, ...] | None = None,
    ) -> None:
        self.map = mapping(plan.sections if sections is None else sections)
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
        most = max(min(ledger.room(offset), min(self.map.stop(offset), self.stop) - offset), 0)
        low, high = self.barred
        if low <= offset < high:
            return 0
        return min(most, low - offset) if offset < low else most

    def gaps(self, ledger: Ledger, barred: bool = False) -> list[tuple[int, int]]:
        """The mapped file ranges from ``free`` on that nobody has been promised.

        Those of the import address tables are left out, or alone given with ``barred``.
        """
        return (self._gaps(ledger, True) if barred else self.open_gaps(ledger)).pairs()

    def for_ledger(self, name: str, ledger: Ledger, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, kept under a name for the ledger asked last."""
        known: tuple[Ledger, Any] | None = self._memo.get(name)
        if known is None or known[0] is not ledger:
            known = self._memo[name] = ledger, make()
        return known[1]

    def open_gaps(self, ledger: Ledger) -> Gaps:
        """`gaps`, kept for the ledger asked last, and found from it where a ledger promises little more."""
        known: tuple[Ledger, Gaps] | None = self._memo.get("gaps")
        if known is not None and known[0] is ledger:
            return known[1]
        more = None if known is None else grown_by(known[0], ledger)
        if known is None or more is None:
            found = self._gaps(ledger, False)
        else:
            found = known[1]
            for region in more:
                found = found.without(region)
        self._memo["gaps"] = ledger, found
        return found

    def _gaps(self, ledger: Ledger, barred: bool) -> Gaps:
        free = np.array(ledger.gaps(self.free), np.int64).reshape(-1, 2)
        begins, ends = self.map.begins, self.map.ends
        first = ends.searchsorted(free[:, 0], side="right")
        many = np.maximum(begins.searchsorted(free[:, 1]) - first, 0)
        gap = np.repeat(np.arange(len(free)), many)
        span = np.arange(many.sum()) + np.repeat(first - many.cumsum() + many, many)
        low = np.maximum(free[gap, 0], begins[span])
        high = np.minimum(np.minimum(free[gap, 1], ends[span]), self.stop)
        low_barred, high_barred = self.barred
        if barred:
            low, high = np.maximum(low, low_barred), np.minimum(high, high_barred)
        elif high_barred:
            low = np.stack((low, np.maximum(low, high_barred)), axis=1).reshape(-1)
            high = np.stack((np.minimum(high, low_barred), high), axis=1).reshape(-1)
        there = low < high
        low, high = low[there], high[there]
        return Gaps(np.stack((low, high, self.map.addresses_of(low))))

    def promised(self, ledger: Ledger, kind: str) -> np.ndarray:
        """int64: where promises of that kind begin; kept for the ledger asked last, as in `gaps`."""
        known: tuple[Ledger, np.ndarray] | None = self._memo.get(("promised", kind))
        more = None if known is None or known[0] is ledger else grown_by(known[0], ledger)
        if known is not None and known[0] is ledger:
            return known[1]
        if known is None or more is None:
            found = np.array([region.start for region in ledger.regions if region.kind == kind], np.int64)
        else:
            new = [region.start for region in more if region.kind == kind]
            found = np.append(known[1], np.array(new, np.int64)) if new else known[1]
        self._memo["promised", kind] = ledger, found
        return found

    def places(self, ledger: Ledger, least: int, need: int = 0) -> np.ndarray:
        """int64[n, 2]: first and last addresses ahead (none where the last is less) where ``least`` bytes fit so that
        ``need`` in a row fit still."""
        low, high, address = self.open_gaps(ledger).table
        sizes = high - low
        last = address + (sizes - least)
        if not need or not len(sizes):
            return np.stack((address, last), axis=1)
        widest, wide = int(sizes.argmax()), sizes >= need
        if wide.sum() - wide[widest] > 0:  # a gap besides the widest will do, so any but one will
            return np.stack((address, last), axis=1)
        if not wide[widest]:  # none will do as it is: before or behind what is taken
            wide = np.ones(len(sizes), dtype=bool)
        first = np.concatenate((address, (address + need)[wide]))
        return np.stack((first, np.concatenate((np.where(wide, last - need, last), last[wide]))), axis=1)

    def spans(
        self, ledger: Ledger, least: int, need: int = 0, align: int = 1, shift: int = 0
    ) -> Sequence[Piece]:
        """The set of `places` (plus ``shift``), a power of two up to 256 being what addresses are multiples of.

        Empty where there is none.
        """
        rows = self.places(ledger, least, need)
        if shift >> _ROOM_OF_RANGES not in (0, -1):  # an image may be based anywhere
            spans = (Span(low + shift, high + shift, align, shift % align) for low, high in rows.tolist())
            return [span for span in spans if span.bounds()]
        found = Ranges(rows + shift, align, shift)
        return [found] if len(found.lows) else []

    def fits(self, ledger: Ledger, address: int, least: int, need: int = 0) -> bool:
        """Whether `spans` has the address."""
        room_ahead = self.ahead(ledger, address)
        if room_ahead < least:
            return False
        if room_ahead >= least + need:
            return True
        first, last = self.places(ledger, least, need).T
        return bool(((first <= address) & (address <= last)).any())

    def promise(self, ledger: Ledger, address: int, size: int, kind: str, path: str, detail: Any) -> Ledger:
        """A ledger with ``size`` bytes at an address ahead promised."""
        offset = self.map.offset(address)
        assert offset is not None
        return ledger.add(Region(offset, offset + size, kind, path, detail))
