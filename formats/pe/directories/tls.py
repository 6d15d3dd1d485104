"""The TLS directory: addresses (not relative ones) of the template, the index, and the callbacks.

LIEF's check_layout wants an index, callbacks in executable sections, and each address relocated where the file
has DYNAMIC_BASE; loaders write the index. The template lies in one section's bytes; 0 and 0 is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.intset import IntSet, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Bits, Finite, Piece, Span
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.pe.constants import DYNAMIC_BASE, MEM_WRITE
from bytegen.formats.pe.directories import relocs
from bytegen.formats.pe.directories.fields import fields
from bytegen.formats.pe.directories.groups import place
from bytegen.formats.pe.directories.memory import View, read_by_loaders
from bytegen.formats.pe.directories.target_addresses import executable_spans
from bytegen.formats.pe.plan import Plan, opener, proceed
from bytegen.formats.pe.sets import When

INDEX = 9
_ZERO_FILL = interval(4, 0, 1 << 20)
_CHARACTERISTICS = IntSet(4, Bits(0x00F00000))
_MOST_CALLBACKS = 100


def possible(plan: Plan) -> bool:
    """Whether a file may have a TLS directory: with DYNAMIC_BASE its addresses must be relocated."""
    if plan.strict and plan.section_count < 2:
        return False  # loaders write the index, and a section that holds the entry point cannot be written to
    if not plan.dll_flags & DYNAMIC_BASE:
        return True
    size = plan.directories[relocs.INDEX][1]
    return size >= relocs.HEAD + 4


class _Tls(NamedTuple):
    """A directory being read. ``relocated`` is None while the relocations are ahead, or where none are needed."""

    plan: Plan
    view: View
    region: Region
    moves: bool
    relocated: frozenset[int] | None
    start: int = 0

    @property
    def word(self) -> int:
        return self.plan.target.word

    @property
    def address(self) -> int:
        return self.view.map.address(self.region.start)

    def can_owe(self, plan: Plan, *addresses: int) -> bool:
        return not self.moves or relocs.can_owe(plan, addresses, self.relocated)

    def owing(self, plan: Plan, *addresses: int) -> Plan:
        return relocs.owing(plan, addresses, self.relocated) if self.moves else plan


@opener("tls")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    view = View(plan, region.start, region.end, data, sections=read_by_loaders(plan))
    moves = bool(plan.dll_flags & DYNAMIC_BASE)
    behind = relocs.relocated(plan, region.start, view.raw) if moves else None
    return _begin(_Tls(plan, view, region, moves, behind))


def _index_field(tls: _Tls) -> int:
    return tls.address + 2 * tls.word


def _begin(tls: _Tls) -> Step:
    word, base = tls.word, tls.plan.base
    pieces: list[Piece] = [Span(0, 0)]
    owed = (tls.address, tls.address + word, _index_field(tls))
    if tls.can_owe(tls.plan, *owed):
        pieces += [Span(base + a, base + a + size) for a, _, size in tls.view.map.spans]

    def following(value: int, data: bytearray) -> Step:
        plan = tls.owing(tls.plan, *owed) if value else tls.plan
        return _end(tls._replace(plan=plan, start=value))

    return IntStep(
        tls.region.start, word, IntSet(word, *pieces), "tls.StartAddressOfRawData",
        "0, or an address in a section's bytes, which must be relocated", following,
    )  # fmt: skip


def _end(tls: _Tls) -> Step:
    base, word = tls.plan.base, tls.word
    choices = IntSet(word, Span(0, 0))
    if tls.start:
        stop = max(a + size for a, _, size in tls.view.map.spans if a <= tls.start - base <= a + size)
        choices = interval(word, tls.start, base + stop)
    return IntStep(
        tls.region.start + word, word, choices, "tls.EndAddressOfRawData", "not before the start, in its section",
        lambda value, data: _index(tls),
    )  # fmt: skip


def _index(tls: _Tls) -> Step:
    base, word, plan = tls.plan.base, tls.word, tls.plan
    flags = MEM_WRITE if plan.strict else 0
    pieces = [
        Span(base + s.address, base + s.address + s.size - 4)
        for s in plan.sections
        if s.size >= 4 and s.flags & flags == flags
    ] or [Span(base + s.address, base + s.address + s.size - 4) for s in plan.sections if s.size >= 4]
    return IntStep(
        tls.region.start + 2 * word, word, IntSet(word, *pieces), "tls.AddressOfIndex",
        "where the loader writes the index: in a section that can be written",
        lambda value, data: _callbacks(tls._replace(plan=tls.owing(plan, _index_field(tls)))),
    )  # fmt: skip


def _callbacks(tls: _Tls) -> Step:
    plan, view, word, base = tls.plan, tls.view, tls.word, tls.plan.base
    field = tls.address + 3 * word
    pieces: list[Piece] = [Span(0, 0)]
    listed: dict[int, tuple[int, ...] | None] = {}

    def behind(x: int) -> tuple[int, ...] | None:
        if x not in listed:
            listed[x] = _written(tls, x - base)
        return listed[x]

    def allowed(x: int) -> bool:
        return x > base and (view.ahead(plan.ledger, x - base) >= word or behind(x) is not None)

    def build() -> Iterable[Piece]:
        yield from view.spans(plan.ledger, word, shift=base)
        zeros = (int(a) + base for a in _zeros(view, word))
        yield Finite([x for x in zeros if behind(x) is not None])

    if tls.can_owe(plan, field):
        pieces.append(When(allowed, build))

    def following(value: int, data: bytearray) -> Step:
        settled = tls.owing(plan, field) if value else plan
        if value and view.ahead(plan.ledger, value - base) >= word:
            offset = view.map.offset(value - base)
            assert offset is not None
            settled = place(settled, Region(offset, offset + word, "tls_callbacks", "tls.callbacks"))
        elif value:
            count = len(behind(value) or ())
            settled = tls.owing(settled, *(value - base + word * i for i in range(count)))
        return fields(
            tls.region.start + 4 * word, "tls",
            [("SizeOfZeroFill", 4, _ZERO_FILL, "at most 1 MiB"),
             ("Characteristics", 4, _CHARACTERISTICS, "an alignment")],
            lambda values, data: proceed(settled, tls.region.end, data), data,
        )  # fmt: skip

    return IntStep(
        tls.region.start + 3 * word, word, IntSet(word, *pieces), "tls.AddressOfCallBacks",
        "0, or where a table of callbacks is or fits; it must be relocated", following,
    )  # fmt: skip


def _zeros(view: View, word: int) -> np.ndarray:
    """Addresses of written words that are zero: tables without a callback."""
    raw = np.frombuffer(view.raw, np.uint8)
    if len(raw) < word:
        return np.zeros(0, np.int64)
    run = np.convolve((raw == 0).astype(np.int64), np.ones(word, np.int64), "valid")
    offsets = np.flatnonzero(run == word)
    return np.array(
        [view.map.address(int(o)) for o in offsets if view.map.stop(int(o)) >= o + word], np.int64
    )


def _written(tls: _Tls, address: int) -> tuple[int, ...] | None:
    """The callbacks of a table that is written; None where it is no good one."""
    view, word, plan = tls.view, tls.word, tls.plan
    found: list[int] = []
    spans = executable_spans(plan)
    while len(found) < _MOST_CALLBACKS:
        offset = view.behind(address + word * len(found), word)
        if offset is None:
            return None
        value = int.from_bytes(view.raw[offset : offset + word], "little")
        if not value:
            places = [address + word * i for i in range(len(found))]
            field = tls.address + 3 * word
            return tuple(found) if tls.can_owe(plan, field, *places) else None
        if not any(low <= value - plan.base < high for low, high in spans):
            return None
        found.append(value)
    return None


@opener("tls_callbacks")
def _open_callbacks(plan: Plan, region: Region, data: bytearray) -> Step:
    view = View(plan, region.start, region.end, data, sections=read_by_loaders(plan))
    moves = bool(plan.dll_flags & DYNAMIC_BASE)
    behind = relocs.relocated(plan, region.start, view.raw) if moves else None
    return _callback(_Tls(plan, view, region, moves, behind), 0)


def _callback(tls: _Tls, number: int) -> Step:
    plan, word, view = tls.plan, tls.word, tls.view
    start = tls.region.start + word * number
    address = view.map.address(start)
    pieces: list[Piece] = [Span(0, 0)]
    room = view.ahead(plan.ledger, address + word) >= word
    if room and number < _MOST_CALLBACKS and tls.can_owe(plan, address):
        pieces += [Span(plan.base + low, plan.base + high - 1) for low, high in executable_spans(plan)]

    def following(value: int, data: bytearray) -> Step:
        if not value:
            return proceed(plan, start + word, data)
        settled = tls.owing(plan, address)
        settled = place(settled, Region(start + word, start + 2 * word, "tls_callbacks", "tls.callbacks"))
        return _callback(tls._replace(plan=settled), number + 1)

    return IntStep(
        start, word, IntSet(word, *pieces), f"tls.callback[{number}]",
        "an address in an executable section, which must be relocated; or the zero at the end", following,
    )  # fmt: skip


__all__ = ["possible"]
