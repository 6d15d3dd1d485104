"""What bytes already written can serve as.

A table may describe content behind it. The exact sets of that content's offset, size, link and info follow
from those bytes; each kind of content computes them (`contents`, `notes`), only when a mask needs them, and
keeps them in the cache of `Behind`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np

from bytegen.formats.core.pieces import Finite
from bytegen.formats.core.recent import remember

_NONE = np.zeros(0, np.uint64)
_MANY = 512  # members that are not kept for good
_Rest = ParamSpec("_Rest")
_Plan = TypeVar("_Plan")
_Found = TypeVar("_Found")


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
        finite = self._finite
        if finite is None:
            listed = self._build()
            finite = self._finite = Finite(listed)
            if len(listed) > _MANY:
                remember(self)
        return finite

    def forget(self) -> None:
        """Lets go of the members, which can be listed again."""
        self._finite = None

    def members(self) -> np.ndarray:
        """uint64, ascending: all of them."""
        return self._all().members()

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`."""
        self._all().mark(k, prefix, out)

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`."""
        return self._all().has(k, prefix)

    def bounds(self) -> tuple[int, int] | None:
        """See `Piece.bounds`."""
        return self._all().bounds()


class Provided:
    """The set of one value where ``condition(*given)`` holds, which is asked once, and only when it matters."""

    __slots__ = ("_condition", "_given", "_holds", "value")

    def __init__(self, value: int, condition: Callable[..., bool], *given: object) -> None:
        self.value = value
        self._condition = condition
        self._given = given
        self._holds: bool | None = None

    def _there(self) -> bool:
        if self._holds is None:
            self._holds = self._condition(*self._given)
        return self._holds

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`."""
        shift = 8 * k
        if self.value & (1 << shift) - 1 == prefix:
            byte = self.value >> shift & 255
            if not out[byte] and self._there():
                out[byte] = True

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`."""
        return self.value & (1 << 8 * k) - 1 == prefix and self._there()

    def contains(self, x: int) -> bool:
        """See `Piece.contains`."""
        return x == self.value and self._there()

    def bounds(self) -> tuple[int, int] | None:
        """See `Piece.bounds`."""
        return (self.value, self.value) if self._there() else None


class Behind:
    """The bytes before a table, as the content that the table may describe. ``cache`` is for the kinds."""

    __slots__ = ("_zeros", "cache", "first_zero", "last_zero", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.first_zero = raw.find(0)
        self.last_zero = raw.rfind(0)
        self._zeros: np.ndarray | None = None
        self.cache: dict[Any, Any] = {}

    @property
    def zeros(self) -> np.ndarray:
        """Offsets of the zero bytes, ascending."""
        if self._zeros is None:
            self._zeros = np.flatnonzero(np.frombuffer(self.raw, np.uint8) == 0).astype(np.uint64)
        return self._zeros

    # String tables: a zero first and last.

    def longest_strings(self) -> int:
        """Size of the longest string table: from the first zero to the last."""
        return self.last_zero - self.first_zero + 1 if self.first_zero >= 0 else 0

    def string_offsets(self, need: int) -> Lazily:
        """Where string tables of at least ``need`` bytes begin."""
        last = self.last_zero - max(need, 1) + 1
        return Lazily(
            lambda x: x <= last and self.raw[x] == 0,
            lambda: self.zeros[: np.searchsorted(self.zeros, last, side="right")] if last >= 0 else _NONE,
        )

    def string_sizes(self, start: int, need: int) -> Lazily:
        """Sizes of string tables of at least ``need`` bytes that begin at ``start``."""
        need = max(need, 1)
        raw = self.raw
        if raw[start]:
            return Lazily(lambda x: False, lambda: _NONE)

        def build() -> np.ndarray:
            first = int(np.searchsorted(self.zeros, start + need - 1, side="left"))
            return self.zeros[first:] - np.uint64(start - 1) if start else self.zeros[first:] + np.uint64(1)

        return Lazily(lambda x: x >= need and start + x <= len(raw) and raw[start + x - 1] == 0, build)


def until_bad(good: np.ndarray) -> int:
    """Length of the run of True at the start."""
    return len(good) if good.all() else int(good.argmin())


class Table(NamedTuple):
    """A header table being read: its place, and the bytes before it."""

    start: int
    end: int
    behind: Behind


def remembered(
    function: Callable[Concatenate[_Plan, Table, _Rest], _Found],
) -> Callable[Concatenate[_Plan, Table, _Rest], _Found]:
    """The function of a plan and a table, whose last answer is kept: the rules of one header ask for it again."""

    @wraps(function)
    def asked(plan: _Plan, table: Table, *rest: _Rest.args, **named: _Rest.kwargs) -> _Found:
        cache = table.behind.cache
        known = cache.get(function)
        if known is not None and known[0] is plan and known[1] == rest and not named:
            found: _Found = known[2]
            return found
        found = function(plan, table, *rest, **named)
        if not named:
            cache[function] = plan, rest, found
        return found

    return asked
