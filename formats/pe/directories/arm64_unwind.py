"""The exception directory of ARM64: pairs of a function's address and its unwind information.

The low two bits of the second word tell packed information (1 and 2) from the address of a record (0), which lies
behind, as linkers write it. Source: Microsoft's "ARM64 exception handling".
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bytegen.formats.core.intset import IntSet, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.pe.directories.memory import View
from bytegen.formats.pe.plan import Plan, proceed
from bytegen.formats.pe.sets import When

SIZE = 8
_WORD = (1 << 32) - 1


def is_written(view: View, address: int) -> bool:
    """Whether a whole record is written at an address."""
    offset = view.behind(address, 4)
    if offset is None or address % 4:
        return False
    head = int.from_bytes(view.raw[offset : offset + 4], "little")
    epilogs, codes, size = head >> 22 & 31, head >> 27, 4
    if not epilogs and not codes:
        if view.behind(address, 8) is None:
            return False
        more = int.from_bytes(view.raw[offset + 4 : offset + 8], "little")
        epilogs, codes, size = more & 0xFFFF, more >> 16 & 0xFF, 8
    size += 4 * codes + (0 if head >> 21 & 1 else 4 * epilogs) + (4 if head >> 20 & 1 else 0)
    return view.behind(address, size) is not None


def records(view: View) -> Iterable[Piece]:
    """Addresses of the records written: `is_written` for all of them at once."""
    for address, offset, length in view.map.spans:
        skipped = -address % 4
        count = max(min(offset + length, view.here) - offset - skipped, 0) // 4
        if not count:
            continue
        head = np.frombuffer(view.raw, "<u4", count, offset + skipped).astype(np.int64)
        following = np.append(head[1:], 0)
        extended = head >> 22 == 0
        epilogs = np.where(extended, following & 0xFFFF, head >> 22 & 31)
        size = np.where(extended, 8 + 4 * (following >> 16 & 0xFF), 4 + 4 * (head >> 27))
        size += np.where(head >> 21 & 1, 0, 4 * epilogs) + np.where(head >> 20 & 1, 4, 0)
        stop = min(offset + length, view.here) - offset - skipped
        places = 4 * np.arange(count)
        yield Finite((places[places + size <= stop] + address + skipped).astype(np.uint64))


def _unwind(view: View) -> IntSet:
    """The values of UnwindData: packed information, and the records that are written. One set for the whole table."""
    found: IntSet | None = view._memo.get("unwind data")
    if found is None:
        written = When(lambda x: is_written(view, x), lambda: records(view), 4)
        found = IntSet(4, Span(0, _WORD, 4, 1), Span(0, _WORD, 4, 2), written)
        view._memo["unwind data"] = found
    return found


def arm64_function(plan: Plan, view: View, region: Region, number: int, data: bytearray) -> Step:
    """The step of a function of the table."""
    start = region.start + SIZE * number
    if start == region.end:
        return proceed(plan, start, data)

    return IntStep(
        start, 4, interval(4, 0, plan.image_size - 1), ("exceptions[{}].BeginAddress", number),
        "an address in the image",
        lambda value, data: IntStep(
            start + 4, 4, _unwind(view), ("exceptions[{}].UnwindData", number),
            "packed information, or the address of a record that is written",
            lambda value, data: arm64_function(plan, view, region, number + 1, data),
        ),
    )  # fmt: skip
