"""The load configuration: a record whose Size says how many of its fields there are.

Tables are given by an address (not a relative one) and a count; both are 0, or the table lies in a section's
bytes. What LIEF would follow further than that is 0. The directory's own size is not looked at by loaders: for
i386 it is often 64, as Windows XP wanted.

Source: Microsoft's PE format specification and winnt.h (IMAGE_LOAD_CONFIG_DIRECTORY); LIEF's check_layout.
"""

from __future__ import annotations

from typing import NamedTuple

from bytegen.formats.core.intset import IntSet, anything, exactly, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Bits, Piece, Span
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.pe.constants import MEM_WRITE
from bytegen.formats.pe.directories.fields import fields
from bytegen.formats.pe.directories.groups import place
from bytegen.formats.pe.directories.memory import View, after, mapping
from bytegen.formats.pe.plan import Plan, opener, proceed
from bytegen.formats.pe.sets import When
from bytegen.formats.pe.target import Target

FREE, ADDRESS, TABLE, COUNT, FLAGS, ZERO = "free", "address", "table", "count", "flags", "zero"
VOLATILE, COOKIE = "volatile", "cookie"
_VOLATILE_SIZE = 24
_OLD_SIZE = 64
_MOST_STRIDE = 5  # an entry of a guard table: an address, and a byte of flags where GuardFlags says so
_GUARD_FLAGS = IntSet(4, Bits(0x1FFFFFFF))  # LIEF knows no longer entries

# (name, bytes: 0 for an address's size, kind)
FIELDS = (
    ("TimeDateStamp", 4, FREE),
    ("MajorVersion", 2, FREE),
    ("MinorVersion", 2, FREE),
    ("GlobalFlagsClear", 4, FREE),
    ("GlobalFlagsSet", 4, FREE),
    ("CriticalSectionDefaultTimeout", 4, FREE),
    ("DeCommitFreeBlockThreshold", 0, FREE),
    ("DeCommitTotalFreeThreshold", 0, FREE),
    ("LockPrefixTable", 0, ADDRESS),
    ("MaximumAllocationSize", 0, FREE),
    ("VirtualMemoryThreshold", 0, FREE),
    ("ProcessAffinityMask", 0, FREE),  # before ProcessHeapFlags in 64-bit files, after it in others
    ("ProcessHeapFlags", 4, FREE),
    ("CSDVersion", 2, FREE),
    ("DependentLoadFlags", 2, FREE),
    ("EditList", 0, ADDRESS),
    ("SecurityCookie", 0, COOKIE),
    ("SEHandlerTable", 0, TABLE),
    ("SEHandlerCount", 0, COUNT),
    ("GuardCFCheckFunctionPointer", 0, ADDRESS),
    ("GuardCFDispatchFunctionPointer", 0, ADDRESS),
    ("GuardCFFunctionTable", 0, TABLE),
    ("GuardCFFunctionCount", 0, COUNT),
    ("GuardFlags", 4, FLAGS),
    ("CodeIntegrity", 12, FREE),
    ("GuardAddressTakenIatEntryTable", 0, TABLE),
    ("GuardAddressTakenIatEntryCount", 0, COUNT),
    ("GuardLongJumpTargetTable", 0, TABLE),
    ("GuardLongJumpTargetCount", 0, COUNT),
    ("DynamicValueRelocTable", 0, ZERO),
    ("CHPEMetadataPointer", 0, ZERO),
    ("GuardRFFailureRoutine", 0, ADDRESS),
    ("GuardRFFailureRoutineFunctionPointer", 0, ADDRESS),
    ("DynamicValueRelocTableOffset", 4, ZERO),
    ("DynamicValueRelocTableSection", 2, ZERO),
    ("Reserved2", 2, FREE),
    ("GuardRFVerifyStackPointerFunctionPointer", 0, ADDRESS),
    ("HotPatchTableOffset", 4, ZERO),
    ("Reserved3", 4, FREE),
    ("EnclaveConfigurationPointer", 0, ZERO),
    ("VolatileMetadataPointer", 0, VOLATILE),
    ("GuardEHContinuationTable", 0, TABLE),
    ("GuardEHContinuationCount", 0, COUNT),
    ("GuardXFGCheckFunctionPointer", 0, ADDRESS),
    ("GuardXFGDispatchFunctionPointer", 0, ADDRESS),
    ("GuardXFGTableDispatchFunctionPointer", 0, ADDRESS),
    ("CastGuardOsDeterminedFailureMode", 0, ADDRESS),
    ("GuardMemcpyFunctionPointer", 0, ADDRESS),
    ("UmaFunctionPointers", 0, ADDRESS),
)


def layout(plus: bool) -> list[tuple[str, int, str]]:
    """The fields after Size: name, bytes, kind."""
    word = 8 if plus else 4
    listed = [(name, size or word, kind) for name, size, kind in FIELDS]
    if not plus:
        i = next(i for i, field in enumerate(listed) if field[0] == "ProcessAffinityMask")
        listed[i], listed[i + 1] = listed[i + 1], listed[i]
    return listed


# pefile takes a record that ends with one of these to have the offset of dynamic relocations, and the section.
_INSIDE = ("GuardRFFailureRoutine", "GuardRFFailureRoutineFunctionPointer", "DynamicValueRelocTableOffset")


def _ends(plus: bool) -> tuple[int, ...]:
    """The sizes that end with a field, from SecurityCookie on, but not between a table and its count."""
    listed, end, found = layout(plus), 4, []
    names = [name for name, _, _ in listed]
    first = names.index("SecurityCookie")
    for i, (name, size, kind) in enumerate(listed):
        end += size
        if i >= first and kind != TABLE and name not in _INSIDE:
            found.append(end)
    return tuple(found)


SIZES = {plus: _ends(plus) for plus in (False, True)}
_FIELDS = {plus: layout(plus) for plus in (False, True)}


def least(target: Target) -> int:
    """The smallest Size of the directory."""
    return SIZES[True][0] if target.plus else _OLD_SIZE


class _Config(NamedTuple):
    """A configuration being read: it ends at ``stop``; ``table`` is the address of the last table read."""

    plan: Plan
    view: View
    region: Region
    stop: int
    table: int = 0


@opener("load_config")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    room = min(after(plan.ledger, region), mapping(plan.sections).stop(region.start) - region.start)
    sizes = [size for size in SIZES[plan.target.plus] if size <= room]
    return IntStep(
        region.start,
        4,
        exactly(4, *sizes),
        "load_config.Size",
        "a size that a version of Windows knows, and that fits",
        lambda value, data: _field(
            _Config(plan, View(plan, region.start, region.start + value, data), region, region.start + value),
            0,
            region.start + 4,
            data,
        ),
    )


def _field(config: _Config, i: int, start: int, data: bytearray) -> Step:
    plan = config.plan
    listed = _FIELDS[plan.target.plus]
    if i == len(listed) or start + listed[i][1] > config.stop:
        return _rest(config, start, data)
    name, size, kind = listed[i]
    stop = start + size
    if kind == FREE:
        return FreeStep(
            start, stop, None, f"load_config.{name}", "", lambda data: _field(config, i + 1, stop, data)
        )
    choices, rule = _choices(config, size, kind, start)

    def following(value: int, data: bytearray) -> Step:
        read = config
        if kind == TABLE:
            read = config._replace(table=value)
        elif kind == VOLATILE and value:
            offset = config.view.map.offset(value - plan.base)
            assert offset is not None
            region = Region(offset, offset + _VOLATILE_SIZE, VOLATILE, "volatile")
            read = config._replace(plan=place(plan, region))
        return _field(read, i + 1, stop, data)

    return IntStep(start, size, choices, f"load_config.{name}", rule, following)


def _choices(config: _Config, size: int, kind: str, start: int) -> tuple[IntSet, str]:
    plan = config.plan
    base = plan.base
    if kind == ZERO:
        return exactly(size, 0), "0"
    if kind == FLAGS:
        return _GUARD_FLAGS, "entries of at most 5 bytes"
    pieces: list[Piece] = [Span(0, 0)]
    if kind == VOLATILE:
        view, ledger = config.view, plan.ledger
        pieces.append(
            When(
                lambda x: x > base and view.ahead(ledger, x - base) >= _VOLATILE_SIZE,
                lambda: view.spans(ledger, _VOLATILE_SIZE, shift=base),
            )
        )
        return IntSet(size, *pieces), "0, or where the volatile metadata fits"
    if base + plan.image_size >= 1 << 8 * plan.target.word:
        return exactly(size, 0), "0: the image ends where addresses do"
    if kind == COOKIE and plan.strict:
        # Loaders change it.
        held = [s for s in plan.sections if s.flags & MEM_WRITE and s.size >= size]
        pieces += [Span(base + s.address, base + s.address + s.size - size) for s in held]
        return IntSet(size, *pieces), "0, or an address in a section that can be written to"
    if kind in (ADDRESS, COOKIE):
        pieces += [Span(base + s.address, base + s.address + s.size - 1) for s in plan.sections]
        return IntSet(size, *pieces), "0, or an address in a section"
    spans = mapping(plan.sections).spans
    if kind == TABLE:
        if start + 2 * size <= config.stop:
            tables = (Span(base + a, base + a + length - _MOST_STRIDE) for a, _, length in spans)
            pieces += [span for span in tables if span.lo <= span.hi]
        return IntSet(size, *pieces), "0, or the address of a table in a section's bytes"
    if not config.table:
        return exactly(size, 0), "0: there is no table"
    most = next(a + n - (config.table - base) for a, _, n in spans if a <= config.table - base < a + n)
    most //= _MOST_STRIDE
    return interval(size, 1, most), f"1 to {most}: the table lies in its section"


def _rest(config: _Config, start: int, data: bytearray) -> Step:
    """What is left of the record, and of the directory."""
    end = max(config.stop, config.region.end)
    if start == end:
        return proceed(config.plan, end, data)
    return FreeStep(start, end, None, "load_config.rest", "", lambda data: proceed(config.plan, end, data))


@opener(VOLATILE)
def _open_volatile(plan: Plan, region: Region, data: bytearray) -> Step:
    head = [("Size", 4, exactly(4, _VOLATILE_SIZE), "24"), ("Version", 4, anything(4), "any")]
    tables = ("VolatileAccessTable", "VolatileInfoRangeTable")
    spans = mapping(plan.sections).spans

    def table(i: int, data: bytearray) -> Step:
        start = region.start + 8 + 8 * i
        if i == len(tables):
            return proceed(plan, start, data)

        def size(address: int, data: bytearray) -> Step:
            most = max((a + n - address for a, _, n in spans if a <= address <= a + n), default=0)
            return IntStep(
                start + 4, 4, IntSet(4, Span(0, most, 4)), f"volatile.{tables[i]}Size",
                f"a multiple of 4, at most {most}: in its section", lambda value, data: table(i + 1, data),
            )  # fmt: skip

        return IntStep(
            start, 4, IntSet(4, Span(0, 0), *(Span(a, a + n) for a, _, n in spans)), f"volatile.{tables[i]}",
            "0, or an address in a section's bytes", size,
        )  # fmt: skip

    return fields(region.start, "volatile", head, lambda values, data: table(0, data), data)


__all__ = ["SIZES", "least"]
