"""What bytes already written can serve as: strings, symbols, relocations, notes.

A table may describe content behind it. The exact sets of that content's offset, size, link and info follow
from those bytes; `Behind` computes them, each part only when a mask needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.intset import Finite
from bytegen.formats.elf.constants import (
    HIGHEST_RELOCATION,
    RELA_SIZE,
    SHN_ABS,
    SHN_COMMON,
    STT_TLS,
    SYM_SIZE,
    SYMBOL_BINDS,
    SYMBOL_TYPES,
)
from bytegen.formats.elf.notes import (
    GNU_PROPERTY_NAME,
    HEAD,
    MOST_DESC,
    PROPERTIES,
    name_fits,
    name_starts,
    up,
)

_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_RELA = np.dtype([("offset", "<u8"), ("kind", "<u4"), ("symbol", "<u4"), ("addend", "<u8")])
_CHUNK = 4096
_GOOD_INFO = np.zeros(256, dtype=bool)
_GOOD_INFO[[bind << 4 | kind for bind in SYMBOL_BINDS for kind in SYMBOL_TYPES]] = True
_NO_SYMBOLS = np.zeros(0, np.uint64)
_GOOD_FIRST = np.array([name_starts(byte) for byte in range(256)])


class Lazily:
    """A piece of an integer set (see `Piece`) whose members are listed only when a mask is asked for.

    ``contains`` answers for one value at once, which is all that a replay asks.
    """

    __slots__ = ("_build", "_finite", "contains")

    def __init__(self, contains: Callable[[int], bool], build: Callable[[], np.ndarray]) -> None:
        self.contains = contains
        self._build = build
        self._finite: Finite | None = None

    def _all(self) -> Finite:
        if self._finite is None:
            self._finite = Finite(self._build())
        return self._finite

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`."""
        self._all().mark(k, prefix, out)

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`."""
        return self._all().has(k, prefix)

    def bounds(self) -> tuple[int, int] | None:
        """See `Piece.bounds`."""
        return self._all().bounds()


def provided(value: int, condition: Callable[[], bool]) -> Lazily:
    """The set of one value where the condition holds, which is asked only when it matters."""
    return Lazily(
        lambda x: x == value and condition(), lambda: np.array([value] if condition() else [], np.uint64)
    )


class SymbolRun(NamedTuple):
    """The longest run of good symbols at a place, and running totals over its prefixes."""

    length: int
    names: np.ndarray  # [i]: the greatest name offset among the first i + 1
    locals: np.ndarray  # [i]: how many of the first i + 1 are local

    def within(self, size: int) -> int:
        """How many symbols, from the first on, have names in a string table of ``size`` bytes."""
        return int(np.searchsorted(self.names, size, side="left"))


class Behind:
    """The bytes before a table, as the content that the table may describe."""

    __slots__ = ("_ends", "_note_starts", "_runs", "_some_note", "_zeros", "first_zero", "last_zero", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.first_zero = raw.find(0)
        self.last_zero = raw.rfind(0)
        self._zeros: np.ndarray | None = None
        self._note_starts: np.ndarray | None = None
        self._some_note: bool | None = None
        self._ends: dict[tuple[int, int], tuple[int, ...]] = {}
        self._runs: dict[tuple[int, int, int | None, bool], SymbolRun] = {}

    # String tables: a zero first and last.

    @property
    def zeros(self) -> np.ndarray:
        """Offsets of the zero bytes, ascending."""
        if self._zeros is None:
            self._zeros = np.flatnonzero(np.frombuffer(self.raw, np.uint8) == 0).astype(np.uint64)
        return self._zeros

    def longest_strings(self) -> int:
        """Size of the longest string table: from the first zero to the last."""
        return self.last_zero - self.first_zero + 1 if self.first_zero >= 0 else 0

    def string_offsets(self, need: int) -> Lazily:
        """Where string tables of at least ``need`` bytes begin."""
        last = self.last_zero - max(need, 1) + 1
        return Lazily(
            lambda x: x <= last and self.raw[x] == 0,
            lambda: (
                self.zeros[: np.searchsorted(self.zeros, last, side="right")] if last >= 0 else _NO_SYMBOLS
            ),
        )

    def string_sizes(self, start: int, need: int) -> Lazily:
        """Sizes of string tables of at least ``need`` bytes that begin at ``start``."""
        need = max(need, 1)
        raw = self.raw
        if raw[start]:
            return Lazily(lambda x: False, lambda: _NO_SYMBOLS)

        def build() -> np.ndarray:
            first = int(np.searchsorted(self.zeros, start + need - 1, side="left"))
            return self.zeros[first:] - np.uint64(start - 1) if start else self.zeros[first:] + np.uint64(1)

        return Lazily(lambda x: x >= need and start + x <= len(raw) and raw[start + x - 1] == 0, build)

    # Symbol and relocation tables.

    def symbols(self, start: int, sections: int, tls_size: int | None, tls_known: bool) -> SymbolRun:
        """The run of good symbols that begins at ``start``.

        Good: the first is null; local ones come first; known type and binding, plain visibility, a section
        that exists or an absolute or common one; thread-local ones inside PT_TLS where there is one, and
        none before the program headers are known.
        """
        key = (start, sections, tls_size, tls_known)
        if key not in self._runs:
            self._runs[key] = _symbol_run(self.raw, *key)
        return self._runs[key]

    def relocation_symbols(self, start: int) -> np.ndarray:
        """Over the good relocations from ``start`` on: [i] is the greatest symbol among the first i + 1."""
        count = max(0, len(self.raw) - start) // RELA_SIZE
        seen = 0
        found: list[np.ndarray] = []
        while seen < count:
            have = min(_CHUNK, count - seen)
            table = np.frombuffer(self.raw, _RELA, have, start + seen * RELA_SIZE)
            run = _until_bad(table["kind"] <= HIGHEST_RELOCATION)
            found.append(table["symbol"][:run].astype(np.uint64))
            seen += run
            if run < have:
                break
        return np.maximum.accumulate(np.concatenate(found)) if seen else _NO_SYMBOLS

    # Notes.

    def note_ends(self, start: int, align: int) -> tuple[int, ...]:
        """Where the run of good notes that begins at ``start`` may end, ascending."""
        key = (start, align)
        if key not in self._ends:
            ends = []
            position = start
            if start % 4 == 0:
                while (end := _note_end(self.raw, position, start, align)) is not None:
                    ends.append(end)
                    position = end
            self._ends[key] = tuple(ends)
        return self._ends[key]

    def _candidates(self) -> np.ndarray:
        """Offsets of words that may begin a good note, by its sizes, type and first letter."""
        whole = len(self.raw) // 4
        if whole < 4:
            return _NO_SYMBOLS
        words = np.frombuffer(self.raw, "<u4", whole).astype(np.int64)
        left = np.arange(whole, 3, -1) * 4
        namesz, descsz, kind, name = words[:-3], words[1:-2], words[2:-1], words[3:]
        good = (namesz > 0) & (descsz <= MOST_DESC) & (namesz + descsz + HEAD <= left)
        return np.flatnonzero(good & (kind | 1 != 0x101) & _GOOD_FIRST[name & 255]) * 4

    def _starts(self) -> np.ndarray:
        if self._note_starts is None:
            found = [place for place in self._candidates().tolist() if self.note_ends(place, 4)]
            self._note_starts = np.array(found, np.uint64)
        return self._note_starts

    def note_offsets(self) -> Lazily:
        """Where good notes begin. Those padded to 8 bytes are among those padded to 4."""
        return Lazily(lambda x: x < len(self.raw) and bool(self.note_ends(x, 4)), self._starts)

    def has_notes(self) -> bool:
        """Whether there is any good note."""
        if self._some_note is None:
            self._some_note = any(self.note_ends(place, 4) for place in self._candidates().tolist())
        return self._some_note

    def property_end(self, start: int) -> int | None:
        """Where the GNU property note that begins at ``start`` ends; None when there is none."""
        if (
            self.raw[start : start + 4] != b"\4\0\0\0"
            or self.raw[start + 8 : start + 16] != GNU_PROPERTY_NAME
        ):
            return None
        ends = self.note_ends(start, 8)
        return ends[0] if ends else None

    def property_starts(self) -> list[int]:
        """Where GNU property notes begin."""
        found = []
        place = self.raw.find(GNU_PROPERTY_NAME)
        while place >= 0:
            if place >= 8 and self.property_end(place - 8) is not None:
                found.append(place - 8)
            place = self.raw.find(GNU_PROPERTY_NAME, place + 1)
        return found


def _until_bad(good: np.ndarray) -> int:
    """Length of the run of True at the start."""
    return len(good) if good.all() else int(good.argmin())


def _symbol_run(raw: bytes, start: int, sections: int, tls_size: int | None, tls_known: bool) -> SymbolRun:
    count = max(0, len(raw) - start) // SYM_SIZE
    names: list[np.ndarray] = []
    locals_: list[np.ndarray] = []
    seen = 0
    was_local = True
    while seen < count:
        have = min(_CHUNK, count - seen)
        table = np.frombuffer(raw, _SYMBOL, have, start + seen * SYM_SIZE)
        shndx = table["shndx"]
        good = _GOOD_INFO[table["info"]] & (table["other"] < 4)
        good &= (shndx < sections) | (shndx == SHN_ABS) | (shndx == SHN_COMMON)
        tls = (table["info"] & 15) == STT_TLS
        if not tls_known:
            good &= ~tls
        elif tls_size is not None and tls.any():
            size = np.uint64(tls_size)
            room = size - np.minimum(table["value"], size)
            good &= ~tls | ((table["value"] <= size) & (table["size"] <= room))
        if seen == 0:
            good[0] = not any(raw[start : start + SYM_SIZE])
        local = table["info"] >> 4 == 0
        good &= ~local | np.concatenate(([was_local], local[:-1]))
        run = _until_bad(good)
        names.append(table["name"][:run].astype(np.uint64))
        locals_.append(local[:run])
        seen += run
        if run < have:
            break
        was_local = bool(local[-1])
    if not seen:
        return SymbolRun(0, _NO_SYMBOLS, _NO_SYMBOLS)
    return SymbolRun(seen, np.maximum.accumulate(np.concatenate(names)), np.cumsum(np.concatenate(locals_)))


def _note_end(raw: bytes, position: int, start: int, align: int) -> int | None:
    """Where the note at ``position``, in notes that begin at ``start``, ends; None when it is not good."""
    if position + HEAD >= len(raw):
        return None
    namesz, descsz, kind = (int.from_bytes(raw[position + i : position + i + 4], "little") for i in (0, 4, 8))
    desc = start + up(position - start + HEAD + namesz, align)
    end = start + up(desc - start + descsz, align)
    if not namesz or end > len(raw) or kind in (0x100, 0x101) or descsz > MOST_DESC:
        return None
    if align == 8 and (desc - position - HEAD - namesz >= 4 or end - desc - descsz >= 4):
        return None
    name = raw[position + HEAD : position + HEAD + namesz]
    if any(raw[position + HEAD + namesz : desc]) or any(raw[desc + descsz : end]):
        return None
    if not name_fits(name, kind, descsz):
        return None
    if name == b"GNU\0" and kind == 5 and not _properties_fit(raw[desc : desc + descsz]):
        return None
    return end


def _properties_fit(desc: bytes) -> bool:
    position, last = 0, -1
    while position < len(desc):
        kind = int.from_bytes(desc[position : position + 4], "little")
        size = int.from_bytes(desc[position + 4 : position + 8], "little")
        stop = position + 8 + up(size, 8)
        if kind <= last or PROPERTIES.get(kind) != size or stop > len(desc):
            return False
        if any(desc[position + 8 + size : stop]):
            return False
        position, last = stop, kind
    return position == len(desc)


class Table(NamedTuple):
    """A header table being read: its place, and the bytes before it."""

    start: int
    end: int
    behind: Behind
