"""The names that the DLLs of every Windows export: what imports resolve to.

The table (`exports.txt.gz`, made by `make_exports`) is read when the first import is constrained at level
"load". A set of DLLs is an int, one bit a DLL of the table; DLLs that share their exports (API sets and the DLL
behind them) have bits of their own and one list of names.
"""

from __future__ import annotations

import gzip
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.pieces import Finite
from bytegen.formats.libraries import Library


class Exports(NamedTuple):
    """What a set of DLLs exports: sorted names, and ordinals (of DLLs some of whose functions have no name)."""

    names: tuple[bytes, ...]
    ordinals: frozenset[int]
    dlls: int  # the DLLs, as bits
    shortest: int  # length of the shortest name
    longest: int


class Names:
    """The table for one machine."""

    def __init__(self, wide: bool, libraries: Iterable[Library] = ()) -> None:
        self.dlls: list[bytes] = []  # lower case, by bit
        self.sets: list[Exports] = []
        self._exporters: dict[bytes, int] = {}  # every name there is
        text = gzip.decompress(files(__package__).joinpath("exports.txt.gz").read_bytes())
        for block in text.split(b"= ")[1:]:
            head, *lines = block.split(b"\n")
            ordinals: set[int] = set()
            if lines and lines[0].startswith(b"# "):
                for run in lines.pop(0)[2:].split():
                    low, _, high = run.partition(b"-")
                    ordinals.update(range(int(low), int(high or low) + 1))
            other = b"+" if wide else b"-"
            names = sorted(n.lstrip(b"+-") for n in lines if n and not n.startswith(other))
            bits = 0
            for dll in head.split():
                bits |= 1 << len(self.dlls)
                self.dlls.append(dll)
            if names:
                lengths = [len(name) for name in names]
                self.sets.append(
                    Exports(tuple(names), frozenset(ordinals - {0}), bits, min(lengths), max(lengths))
                )
        for library in libraries:
            self._add(library)
        self.order = sorted((dll, 1 << bit) for bit, dll in enumerate(self.dlls))
        self.sorted_dlls = [dll for dll, _ in self.order]
        self.longest = max(exports.longest for exports in self.sets)
        self.all = 0
        known = self._exporters
        for exports in self.sets:
            self.all |= exports.dlls
            for name in exports.names:
                known[name] = known.get(name, 0) | exports.dlls
        # By a room in bytes: the DLLs that export a name, and those that have one, of at most so many.
        self._within = _up_to((exports.shortest, exports.dlls) for exports in self.sets)
        self._dlls_within = _up_to((len(dll), 1 << bit) for bit, dll in enumerate(self.dlls))
        self._by_name = {dll: 1 << bit for bit, dll in enumerate(self.dlls) if self.all >> bit & 1}

    def _add(self, library: Library) -> None:
        """Take one more DLL in; it stands for the one of the table that has its name, if any."""
        dll = library.name.lower().encode()
        if dll in self.dlls:
            bit = self.dlls.index(dll)
            self.sets = [e._replace(dlls=e.dlls & ~(1 << bit)) for e in self.sets if e.dlls != 1 << bit]
        else:
            bit = len(self.dlls)
            self.dlls.append(dll)
        names = tuple(sorted(name.encode() for name in library.names))
        lengths = [len(name) for name in names]
        self.sets.append(Exports(names, library.ordinals, 1 << bit, min(lengths), max(lengths)))

    def dll(self, name: bytes) -> int:
        """The DLL of that name, whatever its case; 0 where the table has none."""
        return self._by_name.get(name.lower(), 0)

    def exporters(self, name: bytes) -> int:
        """The DLLs that export a function of that name."""
        return self._exporters.get(name, 0)

    def with_ordinal(self, ordinal: int) -> int:
        """The DLLs that export a function of that ordinal."""
        return sum(exports.dlls for exports in self.sets if ordinal in exports.ordinals)

    @lru_cache(maxsize=256)  # noqa: B019  # one table a machine, kept for good
    def of(self, dlls: int) -> tuple[Exports, ...]:
        """What some of the DLLs export."""
        return tuple(exports for exports in self.sets if exports.dlls & dlls)

    @cache  # noqa: B019
    def ordinals(self, dlls: int) -> tuple[int, ...]:
        """The ordinals that some of the DLLs export, ascending."""
        found: set[int] = set()
        for exports in self.sets:
            if exports.dlls & dlls:
                found |= exports.ordinals
        return tuple(sorted(found))

    @lru_cache(maxsize=256)  # noqa: B019
    def ordinal_entries(self, dlls: int, flag: int) -> Finite | None:
        """The entries of import tables that stand for `ordinals`; None where there are none."""
        found = self.ordinals(dlls)
        return Finite([flag | ordinal for ordinal in found]) if found else None

    @cache  # noqa: B019
    def shortest(self, dlls: int) -> int:
        """Length of the shortest name that some of the DLLs export."""
        return min((e.shortest for e in self.sets if e.dlls & dlls), default=1 << 30)

    @cache  # noqa: B019
    def longest_shortest(self, dlls: int) -> int:
        """The greatest length, over the DLLs, of a DLL's shortest name."""
        return max((e.shortest for e in self.sets if e.dlls & dlls), default=0)

    @lru_cache(maxsize=16_384)  # noqa: B019
    def following(self, dlls: int, prefix: bytes, room: int) -> bytes:
        """The bytes that go on from ``prefix`` to a name of at most ``room`` bytes that one of ``dlls`` exports."""
        size, found = len(prefix), set[int]()
        for exports in self.of(dlls):
            names = exports.names
            i = bisect_left(names, prefix)
            high = bisect_right(names, prefix + b"\x7f", i)
            while i < high:
                # The names that go on with the same byte, together.
                byte = names[i][size] if len(names[i]) > size else 0
                end = bisect_left(names, prefix + bytes((byte + 1,)), i, high)
                if len(names[i]) <= room or any(len(name) <= room for name in names[i:end]):
                    found.add(byte)
                i = end
        return bytes(found)

    def within(self, room: int) -> int:
        """The DLLs that export a name of at most ``room`` bytes."""
        return self._within[min(room, len(self._within) - 1)] if room > 0 else 0

    @cache  # noqa: B019
    def shortest_dll(self, dlls: int) -> int:
        """Length of the shortest name of these DLLs."""
        return min((len(dll) for i, dll in enumerate(self.dlls) if dlls >> i & 1), default=1 << 30)

    @cache  # noqa: B019
    def longest_dll(self, dlls: int) -> int:
        """Length of the longest name of these DLLs."""
        return max((len(dll) for i, dll in enumerate(self.dlls) if dlls >> i & 1), default=0)

    def dlls_within(self, room: int) -> int:
        """The DLLs whose names have at most ``room`` bytes."""
        return self._dlls_within[min(room, len(self._dlls_within) - 1)] if room > 0 else 0


def _up_to(sizes: Iterable[tuple[int, int]]) -> list[int]:
    """At each size, the bits of all that have at most that size."""
    by_size: dict[int, int] = {}
    for size, bits in sizes:
        by_size[size] = by_size.get(size, 0) | bits
    found = [0]
    for size in range(1, max(by_size) + 1):
        found.append(found[-1] | by_size.get(size, 0))
    return found


class Continued:
    """The bytes that continue a function's name: one-byte integers, 0 for its end.

    The name is exported by one of ``dlls`` and has at most ``room`` bytes.
    """

    __slots__ = ("dlls", "names", "prefix", "room")

    def __init__(self, names: Names, dlls: int, prefix: bytes, room: int) -> None:
        self.names, self.dlls, self.prefix, self.room = names, dlls, prefix, room

    def _range(self, exports: Exports, prefix: bytes) -> tuple[int, int]:
        low = bisect_left(exports.names, prefix)
        return low, bisect_right(exports.names, prefix + b"\x7f", low)

    def contains(self, x: int) -> bool:
        """See `Piece.contains`."""
        prefix, room = self.prefix, self.room
        if not x:
            return bool(prefix) and bool(self.names.exporters(prefix) & self.dlls)
        longer = prefix + bytes((x,))
        for exports in self.names.of(self.dlls):
            low, high = self._range(exports, longer)
            if low < high and (
                exports.longest <= room or any(len(n) <= room for n in exports.names[low:high])
            ):
                return True
        return False

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`."""
        if k:
            return
        room = min(self.room, self.names.longest)
        for byte in self.names.following(self.dlls, self.prefix, room):
            out[byte] = True

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`."""
        return k == 0 or self.contains(prefix)

    def bounds(self) -> tuple[int, int] | None:
        """See `Piece.bounds`: an outer bound."""
        return 0, 127


class ContinuedDll:
    """The bytes that continue the name of one of ``dlls``, in any case, of at most ``room`` bytes; 0 for its end."""

    __slots__ = ("dlls", "names", "prefix", "room")

    def __init__(self, names: Names, dlls: int, prefix: bytes, room: int) -> None:
        self.names, self.dlls, self.prefix, self.room = names, dlls, prefix.lower(), room

    def _next(self) -> set[int]:
        order, size = self.names.order, len(self.prefix)
        low = bisect_left(self.names.sorted_dlls, self.prefix)
        found = set()
        for dll, bit in order[low:]:
            if not dll.startswith(self.prefix):
                break
            if bit & self.dlls and len(dll) <= self.room:
                found.add(dll[size] if len(dll) > size else 0)
        return found

    def contains(self, x: int) -> bool:
        """See `Piece.contains`."""
        return x < 128 and (x | 32 if 65 <= x <= 90 else x) in self._next()

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`."""
        if k:
            return
        for byte in self._next():
            out[byte] = True
            if 97 <= byte <= 122:
                out[byte - 32] = True

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`."""
        return k == 0 or self.contains(prefix)

    def bounds(self) -> tuple[int, int] | None:
        """See `Piece.bounds`: an outer bound."""
        return 0, 127


@lru_cache(maxsize=16)
def names(wide: bool, libraries: tuple[Library, ...] = ()) -> Names:
    """The table for x86-64 (``wide``) or i386, with the DLLs that come along."""
    return Names(wide, libraries)
