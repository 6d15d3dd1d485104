"""The registry of table contents: one entry a kind, asked alike by section headers and by dynamic entries.

A kind of content (``"symbols"``, ``"strings"``, ``"relocations"``, ``"hash"``, ...) is registered by the
module that owns its grammar. Headers ask it where such content is or fits, how long it may be, and to promise
it ahead; the grammar of promised content is the kind's `opener`. Content behind the table that describes it is
judged by its bytes, which ``table.behind.raw`` holds.

A header whose kind is not registered is not offered (`find` gives None).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from bytegen.formats.core.pieces import Piece
from bytegen.formats.elf.plan import Plan
from bytegen.formats.elf.written import Table


class Request(NamedTuple):
    """Who asks, and what is known of the content.

    ``least``: bytes it has at least (0: it may be empty). ``index``: number of the section header that asks,
    0 for a program header or a dynamic entry. ``size``: bytes it has, where that is settled. ``detail``: what
    the kind needs to judge it (see the kind's own module), such as the size of a string table.
    """

    least: int = 0
    index: int = 0  # type: ignore[assignment]  # hides tuple.index
    size: int | None = None
    detail: Any = None


class Offsets(Protocol):
    """File offsets at which content of at least ``request.least`` bytes (of ``request.size``, if given) is or
    fits."""

    def __call__(self, plan: Plan, table: Table, request: Request, /) -> list[Piece]: ...  # noqa: D102


class Sizes(Protocol):
    """Sizes in bytes that content at a file offset may have, 0 included where it may be empty."""

    def __call__(self, plan: Plan, table: Table, offset: int, request: Request, /) -> list[Piece]: ...  # noqa: D102


class Promise(Protocol):
    """The plan in which [offset, offset + size), ahead, holds the content.

    A promise of the same place and kind is kept once, with the stricter detail of the two. ``size`` > 0.
    """

    def __call__(self, plan: Plan, offset: int, size: int, path: str, detail: Any, /) -> Plan: ...  # noqa: D102


class Kind(NamedTuple):
    """What headers may ask of a kind of content. ``name`` is that of its regions and of its `opener`."""

    name: str
    offsets: Offsets
    sizes: Sizes
    promise: Promise


_kinds: dict[str, Kind] = {}


def register(kind: Kind) -> None:
    """Add a kind; a name stands for one kind only."""
    if kind.name in _kinds:
        raise ValueError(f"content {kind.name} is registered twice")
    _kinds[kind.name] = kind


def find(name: str) -> Kind | None:
    """The kind of that name; None where nobody has registered it."""
    return _kinds.get(name)


class Place(NamedTuple):
    """Where a table of the dynamic section lies: in the file, and in memory.

    ``size`` in bytes; None where the dynamic section leaves it open. ``count``: entries (symbols, version
    definitions or needs), None where it leaves them open.
    """

    offset: int
    address: int
    size: int | None = None
    count: int | None = None  # type: ignore[assignment]  # hides tuple.count


class Dynamic(NamedTuple):
    """What the program headers and the dynamic section have settled, for the section headers to agree with.

    ``places`` maps a kind (``"symbols"``, ``"strings"``, ``"hash"``, ``"gnu_hash"``, ``"versym"``,
    ``"verdef"``, ``"verneed"``) to its table; it is empty until the dynamic section has been read.
    """

    offset: int  # of PT_DYNAMIC
    size: int
    address: int
    read: bool = False
    places: Mapping[str, Place] = MappingProxyType({})
    pending: bool = False  # a hash table ahead leaves open how many symbols there are


FunctionStarts = Callable[[Plan, np.ndarray, bytes | bytearray], np.ndarray]


def _anywhere(plan: Plan, addresses: np.ndarray, data: bytes | bytearray) -> np.ndarray:
    return np.ones(len(addresses), dtype=bool)


class Hooks:
    """What other parts of the format fill in.

    ``function_starts(plan, addresses, data)``: bool for each virtual address (uint64) of a function symbol,
    whether a function may begin there, given the bytes so far. Set by the part that reads code; anywhere,
    until then. ``dynamic(plan)``: what the dynamic section has settled, None where there is no PT_DYNAMIC.
    ``counts(plan, raw)``: the least and the greatest number of symbols while that is open, given the bytes so
    far; ``count(plan, number)``: the plan in which it is settled. ``before_sections(plan, raw)``: the plan that knows
    what the bytes before the section headers have settled. Set by the part that reads the dynamic section.
    """

    function_starts: FunctionStarts = staticmethod(_anywhere)
    dynamic: Callable[[Plan], Dynamic | None] = staticmethod(lambda plan: None)
    counts: Callable[[Plan, bytes], tuple[int, int]] = staticmethod(lambda plan, raw: (0, -1))
    count: Callable[[Plan, int], Plan] = staticmethod(lambda plan, number: plan)
    before_sections: Callable[[Plan, bytes], Plan] = staticmethod(lambda plan, raw: plan)
