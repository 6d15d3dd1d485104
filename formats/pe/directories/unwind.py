"""x64 unwind information: a head, unwind codes, and a handler or a chained function.

Source: Microsoft's "x64 exception handling". Codes are slots of two bytes; an operation takes one to three. pefile
wants operations that it knows, and a chained function that the exception directory lists.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from bytegen.formats.core.intset import IntSet, anything, exactly, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Span
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.pe.directories.memory import after, contents, mapping
from bytegen.formats.pe.plan import Plan, opener, proceed

KIND = "unwind"
HEAD = 4
CHAINED = 4  # UNW_FLAG_CHAININFO
_FUNCTION = 12
_EXCEPTIONS = 3
_EPILOG = 6
_ANY = {size: anything(size) for size in (1, 2, 4)}
# operation -> slots that it takes, by its operand; others do not exist. 6 and 7 belong to version 2.
_SLOTS = {0: 1, 2: 1, 3: 1, 4: 2, 5: 3, 8: 2, 9: 3}


def slots_of(code: int, version: int) -> int:
    """Slots that the operation of a code takes (the code as a 16-bit integer); 0 where there is none such.

    ``version`` is 3 in information of version 2 after its first epilog.
    """
    operation, operand = code >> 8 & 15, code >> 12
    if operation == 1:
        return {0: 2, 1: 3}.get(operand, 0)
    if operation == 10:
        return 1 if operand < 2 else 0
    if operation == 6:
        return 0 if version == 1 else 1 if version == 3 or operand & 1 else 2
    return _SLOTS.get(operation, 0)


def _codes(version: int, room: int) -> IntSet:
    high = [code for code in range(0, 1 << 16, 256) if 0 < slots_of(code, version) <= room]
    return IntSet(2, *(Span(code, code | 0xFF) for code in high))


_CODES = {(version, room): _codes(version, room) for version in (1, 2, 3) for room in (1, 2, 3)}


def _extra(flags: int) -> int:
    """Bytes after the codes."""
    return _FUNCTION if flags & CHAINED else HEAD if flags else 0


def written(raw: bytes, offset: int, stop: int) -> tuple[int, int | None] | None:
    """Where good unwind information at an offset ends, and the function it is chained to; None if it is not."""
    if offset + HEAD > stop or offset % 4:
        return None
    version, flags, count = raw[offset] & 7, raw[offset] >> 3, raw[offset + 2]
    end = offset + HEAD + 2 * (count + count % 2) + _extra(flags)
    if version not in (1, 2) or flags not in (0, 1, 2, 3, CHAINED) or end > stop:
        return None
    i = 0
    while i < count:
        place = offset + HEAD + 2 * i
        taken = slots_of(raw[place] | raw[place + 1] << 8, version)
        if not taken or i + taken > count:
            return None
        if raw[place + 1] & 15 == _EPILOG:
            version = 3
        i += taken
    chained = int.from_bytes(raw[end - _FUNCTION : end - 8], "little") if flags == CHAINED else None
    return end, chained


class _Unwind(NamedTuple):
    """Unwind information being read."""

    plan: Plan
    region: Region
    stop: int  # it ends by here
    version: int = 0
    flags: int = 0
    codes: int = 0

    @property
    def tail(self) -> int:
        """Offset of what follows the codes."""
        return self.region.start + HEAD + 2 * (self.codes + self.codes % 2)


@opener(KIND)
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    stop = min(region.start + after(plan.ledger, region), mapping(plan.sections).stop(region.start))
    room = stop - region.start - HEAD
    flags = [0]
    if room >= 4:
        flags += [1, 2, 3]
    if room >= _FUNCTION and contents(plan).functions:
        flags.append(CHAINED)
    heads = exactly(1, *(version | flag << 3 for version in (1, 2) for flag in flags))
    unwind = _Unwind(plan, region, stop)
    return IntStep(
        region.start,
        1,
        heads,
        lambda: f"{region.path}.VersionAndFlags",
        "version 1 or 2, and flags whose data fit",
        lambda value, data: _prolog(unwind._replace(version=value & 7, flags=value >> 3)),
    )


def _prolog(unwind: _Unwind) -> Step:
    start = unwind.region.start
    most = min((unwind.stop - start - HEAD - _extra(unwind.flags)) // 4 * 2, 255)
    count = interval(1, 0, most)

    def frame(value: int, data: bytearray) -> Step:
        read = unwind._replace(codes=value)
        return IntStep(
            start + 3,
            1,
            _ANY[1],
            lambda: f"{unwind.region.path}.Frame",
            "any register and offset",
            lambda value, data: _code(read, 0, data),
        )

    return IntStep(
        start + 1,
        1,
        _ANY[1],
        lambda: f"{unwind.region.path}.SizeOfProlog",
        "any",
        lambda value, data: IntStep(
            start + 2,
            1,
            count,
            lambda: f"{unwind.region.path}.CountOfCodes",
            f"at most {most}: the codes fit",
            frame,
        ),
    )


def _code(unwind: _Unwind, i: int, data: bytearray) -> Step:
    if i == unwind.codes:
        place = unwind.region.start + HEAD + 2 * i
        if place == unwind.tail:
            return _tail(unwind, data)
        return FreeStep(
            place,
            unwind.tail,
            None,
            lambda: f"{unwind.region.path}.pad",
            "",
            lambda data: _tail(unwind, data),
        )
    place = unwind.region.start + HEAD + 2 * i

    def following(value: int, data: bytearray) -> Step:
        taken = slots_of(value, unwind.version)
        later = unwind._replace(version=3) if value >> 8 & 15 == _EPILOG else unwind
        if taken == 1:
            return _code(later, i + 1, data)
        return FreeStep(
            place + 2,
            place + 2 * taken,
            None,
            ("{}.code[{}].operand", unwind.region.path, i),
            "",
            lambda data: _code(later, i + taken, data),
        )

    return IntStep(
        place,
        2,
        _CODES[unwind.version, min(unwind.codes - i, 3)],
        ("{}.code[{}]", unwind.region.path, i),
        "an operation whose slots fit",
        following,
    )


def _tail(unwind: _Unwind, data: bytearray) -> Step:
    plan, start = unwind.plan, unwind.tail
    if not unwind.flags:
        return proceed(plan, start, data)
    if unwind.flags & CHAINED:
        known = contents(plan).functions

        def rest(value: int, data: bytearray) -> Step:
            # The whole record is the exception directory's.
            table = plan.offset_of(plan.directories[_EXCEPTIONS][0])
            assert table is not None
            place = table + _FUNCTION * bisect_left(known, value)
            same = int.from_bytes(data[place + 4 : place + _FUNCTION], "little")
            return IntStep(
                start + 4,
                8,
                exactly(8, same),
                lambda: f"{unwind.region.path}.chained",
                "the same as in the exception directory",
                lambda value, data: proceed(plan, start + _FUNCTION, data),
            )

        return IntStep(
            start,
            4,
            IntSet(4, Finite(known)),
            lambda: f"{unwind.region.path}.chained",
            "a function of the exception directory",
            rest,
        )
    return IntStep(
        start,
        4,
        interval(4, 0, plan.image_size - 1),
        lambda: f"{unwind.region.path}.handler",
        "an address in the image",
        lambda value, data: proceed(plan, start + 4, data),
    )
