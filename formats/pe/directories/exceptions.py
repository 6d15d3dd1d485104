"""The exception directory of x64: functions in ascending order, equal ones side by side, each with unwind information.

Unwind information behind is judged by its bytes; ahead it is promised. Where it is chained to a function that the
table has not named yet, the table owes that function. Where there is none, nor place for any, the beginning of the
first function is one that is unwind information itself. The tables of other machines hold what they like.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.intset import IntSet, exactly, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Ranges, Span
from bytegen.formats.core.quick import replacing
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.pe.directories import arm64_unwind
from bytegen.formats.pe.directories.groups import place
from bytegen.formats.pe.directories.memory import Contents, View, contents, outside
from bytegen.formats.pe.directories.unwind import HEAD, KIND, written
from bytegen.formats.pe.plan import Plan, opener, proceed
from bytegen.formats.pe.sets import When
from bytegen.formats.pe.target import Target

SIZE = 12
_AMD64, _ARM64 = 0x8664, 0xAA64

Begins = tuple[tuple[int, ...], ...]
_PIECE = 128
# A record that is its own unwind information, without codes: the low byte of where its function begins is a version.
_VERSIONS, _MOST_ITSELF = (1, 2), 0xFFFF


def _more(begins: Begins, begin: int) -> Begins:
    if len(begins[-1]) < _PIECE:
        return (*begins[:-1], (*begins[-1], begin))
    return (*begins, (begin,))


def _among(begins: Begins, begin: int) -> bool:
    i = bisect_right(begins, begin, key=lambda piece: piece[0] if piece else -1) - 1
    return i >= 0 and begin in begins[i]


@replacing
class _Table(NamedTuple):
    """A table being read: at function ``number``, which begins at ``low`` or above."""

    plan: Plan
    view: View
    region: Region
    functions: int
    number: int = 0
    low: int = 0
    last: int = -1  # where the function before begins
    begins: Begins = ((),)  # where the functions so far begin, ascending, in pieces
    owed: tuple[int, ...] = ()  # functions that must come yet, ascending
    # There was no place for unwind information ahead when the table began, and none behind.
    alone: bool = False
    itself: bool = False  # that holds but for places among instructions: the first record may be its own


def record_size(target: Target) -> int:
    """Bytes of a function's record; machines other than ARM64 have x64's."""
    return arm64_unwind.SIZE if target.machine == _ARM64 else SIZE


@opener("exceptions")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    view = View(plan, region.start, region.end, data)
    if plan.target.machine == _ARM64:
        return arm64_unwind.arm64_function(plan, view, region, 0, data)
    if plan.target.machine != _AMD64:
        return FreeStep(
            region.start, region.end, None, region.path, "", lambda data: proceed(plan, region.end, data)
        )
    gaps = view.gaps(plan.ledger)
    # So that what is good at level "code" is so at the levels below.
    itself = not _fits(outside(gaps, plan)) and _behind(view)[0].bounds() is None
    count = (region.end - region.start) // SIZE
    return _function(_Table(plan, view, region, count, alone=itself and not _fits(gaps), itself=itself), data)


def _fits(gaps: Iterable[tuple[int, int]]) -> bool:
    return any(high - low >= 2 * HEAD - 1 for low, high in gaps)


def _function(table: _Table, data: bytearray) -> Step:
    plan, start = table.plan, table.region.start + SIZE * table.number
    left = table.functions - table.number
    if not left:
        kept: Contents = contents(plan)
        plan = plan._replace(
            contents=kept._replace(functions=tuple(begin for piece in table.begins for begin in piece))
        )
        return proceed(plan, table.region.end, data)
    most, low = plan.image_size, table.low
    if table.owed:
        most = min(most, table.owed[0])
        if left == len(table.owed):
            low = table.owed[0]

    # Linkers that fold equal functions into one leave its records side by side (lld).
    again = table.last if table.last < table.low and left > len(table.owed) else -1

    def begun(begin: int, data: bytearray) -> Step:
        if begin == again:
            return IntStep(
                start + 4,
                4,
                exactly(4, table.low),
                ("exceptions[{}].EndAddress", table.number),
                "the end of the function before, which begins here too",
                lambda value, data: _unwind(table, begin, data),
            )
        owed = table.owed[1:] if table.owed and table.owed[0] == begin else table.owed
        highest = owed[0] if owed else plan.image_size
        read = table._replace(begins=_more(table.begins, begin), owed=owed, last=begin)
        return IntStep(
            start + 4,
            4,
            interval(4, begin, highest),
            ("exceptions[{}].EndAddress", table.number),
            "not before the beginning, nor past functions that must follow",
            lambda value, data: _unwind(read._replace(low=value), begin, data),
        )

    choices = interval(4, low, most)
    if again >= 0:
        choices = IntSet(4, Span(low, most), Span(again, again))
    if table.alone and not table.number:
        # Unwind information without codes: version 1 or 2, any size of the prolog.
        choices = IntSet(4, *(Span(version, min(_MOST_ITSELF, most), 256, version) for version in _VERSIONS))
    return IntStep(
        start,
        4,
        choices,
        ("exceptions[{}].BeginAddress", table.number),
        "not before the end of the function before (or where that begins), nor past functions that must follow",
        begun,
    )


def _unwind(table: _Table, begin: int, data: bytearray) -> Step:
    plan, view = table.plan, table.view
    start = table.region.start + SIZE * table.number + 8
    left = table.functions - table.number - 1
    low = table.low
    # The first beginning, where it is unwind information itself.
    first = table.begins[0][0]
    bare = first <= _MOST_ITSELF and first & 0xFF in _VERSIONS
    itself = view.map.address(table.region.start) if table.itself and bare else -1

    def chained(x: int) -> tuple[int, ...] | None:
        """What the table owes with this unwind information behind; None where it is not good."""
        offset = view.behind(x, HEAD)
        found = (
            written(view.raw, offset, min(view.here, view.map.stop(offset))) if offset is not None else None
        )
        if found is None:
            return None
        other = found[1]
        if other is None:
            return table.owed
        if not _unwinds(view, found[0] - 4):
            return None
        if _among(table.begins, other):
            return table.owed
        if other < low or other > plan.image_size:
            return None
        owed = tuple(sorted({*table.owed, other}))
        return owed if len(owed) <= left else None

    def allowed(x: int) -> bool:
        if x % 4:
            return False
        known = _promised(plan, view, x)
        return known or view.ahead(plan.ledger, x) >= HEAD or chained(x) is not None

    def build() -> Iterable[Piece]:
        yield Ranges(view.places(plan.ledger, HEAD), 4)
        promised = view.promised(plan.ledger, KIND)
        if len(promised):
            yield Finite(view.map.addresses_of(promised).astype(np.uint64))
        alone, others = _behind(view)
        yield alone
        yield Finite([x for x in others if chained(x) is not None])

    def following(value: int, data: bytearray) -> Step:
        settled, owed = plan, table.owed
        if value == itself:
            return _function(table._replace(number=table.number + 1), data)
        if view.ahead(plan.ledger, value) >= HEAD:
            offset = view.map.offset(value)
            assert offset is not None
            path = f"unwind[{table.number}]"
            settled = place(plan, Region(offset, offset + HEAD, KIND, path))
        elif not _promised(plan, view, value):
            owed = chained(value) or ()
        return _function(table._replace(plan=settled, number=table.number + 1, owed=owed), data)

    pieces: list[Piece] = [When(allowed, build, 4)]
    if itself >= 0:
        pieces.append(Span(itself, itself))
    return IntStep(
        start,
        4,
        IntSet(4, *pieces),
        ("exceptions[{}].UnwindInfoAddress", table.number),
        "a multiple of 4 where unwind information is or fits",
        following,
    )


def _unwinds(view: View, place_: int) -> bool:
    """Whether the address at a file offset is that of unwind information that is written."""
    offset = view.behind(int.from_bytes(view.raw[place_ : place_ + 4], "little"), HEAD)
    return offset is not None and written(view.raw, offset, min(view.here, view.map.stop(offset))) is not None


def _promised(plan: Plan, view: View, x: int) -> bool:
    offset = view.map.offset(x)
    return offset is not None and offset >= view.free and plan.ledger.at(offset, KIND) is not None


def _behind(view: View) -> tuple[Finite, list[int]]:
    """Addresses of the unwind information written before: of what stands alone, and of what is chained."""
    if "unwind" not in view._memo:
        raw = np.frombuffer(view.raw, np.uint8)[::4]
        good = np.isin(raw, [v | f << 3 for v in (1, 2) for f in (0, 1, 2, 3, 4)])
        alone, others = list[int](), list[int]()
        for offset in (np.flatnonzero(good) * 4).tolist():
            stop = view.map.stop(offset)
            found = written(view.raw, offset, min(view.here, stop)) if stop else None
            if found is not None and view.map.address(offset) % 4 == 0:
                (alone if found[1] is None else others).append(view.map.address(offset))
        view._memo["unwind"] = Finite(np.array(alone, np.uint64)), others
    behind: tuple[Finite, list[int]] = view._memo["unwind"]
    return behind
