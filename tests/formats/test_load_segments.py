"""The joint rules of PT_LOAD against brute force, on files and memories small enough to try everything."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen.formats.elf.load import Duties

PAGE, ROOF = 4, 24


class Small(NamedTuple):
    """What is owed, in a world of small numbers."""

    limit: int
    entry: int | None
    table: tuple[int, int] | None
    address: int | None
    low: int


def _page(x: int) -> int:
    return x // PAGE * PAGE


@cache
def _segments(world: Small) -> list[tuple[int, int, int, int]]:
    """Every (offset, vaddr, filesz, memsz) that the kernel's rules allow by themselves."""
    return [
        (o, v, f, m)
        for o in range(world.limit + 1)
        for v in range(world.low, ROOF + 1)
        for f in range(world.limit - o + 1)
        if f == 0 or (v - o) % PAGE == 0
        for m in range(f, min(f + 2, ROOF - v) + 1)
    ]


def _after(world: Small, segment: tuple[int, int, int, int]) -> Small:
    o, v, f, m = segment
    entry = world.entry
    if entry is not None and v <= entry < v + f:
        entry = None
    table, address = world.table, world.address
    if table is not None and o <= table[0] and o + f >= table[1]:
        inside = address is None or (v <= address and v + f >= address + table[1] - table[0])
        if inside:
            table = address = None
    low = max(world.low, _page(v + m + PAGE - 1))
    return Small(world.limit, entry, table, address, low)


@cache
def _possible(world: Small, slots: int) -> bool:
    if world.entry is None and world.table is None:
        return True
    return slots > 0 and any(_possible(_after(world, s), slots - 1) for s in _segments(world))


def _engine(world: Small) -> Duties:
    return Duties(world.entry, world.table, world.address, world.low, ROOF, world.limit, PAGE, 2)


worlds = st.builds(
    lambda limit, entry, start, size, address, low: Small(
        limit,
        entry,
        None if start is None else (min(start, limit - size), min(start, limit - size) + size),
        None if start is None else address,
        low * PAGE,
    ),
    st.integers(3, 6),
    st.one_of(st.none(), st.integers(0, 15)),
    st.one_of(st.none(), st.integers(0, 3)),
    st.integers(1, 3),
    st.one_of(st.none(), st.integers(0, 15)),
    st.integers(0, 2),
)


@settings(max_examples=60, deadline=None)
@given(worlds, st.integers(0, 2))
def test_every_segment_that_the_roles_allow_leaves_what_is_owed_possible(world: Small, slots: int) -> None:
    roles = _engine(world).roles(slots)
    tried = 0
    for role in roles:
        offsets = role.offsets()
        assert offsets is not None
        for o in range(world.limit + 1):
            if not offsets.contains(o):
                continue
            addresses = role.addresses(o)
            assert addresses is not None, "an offset without an address is a dead end"
            assert addresses.bounds() is not None
            for v in range(ROOF + 1):
                if not addresses.contains(v):
                    continue
                sizes = role.sizes(o, v)
                assert sizes is not None, "an address without a size is a dead end"
                assert sizes.bounds() is not None
                for f in range(world.limit + 1):
                    if not sizes.contains(f):
                        continue
                    memory = role.memory(o, v, f)
                    assert memory is not None
                    assert memory.bounds() is not None
                    for m in range(ROOF + 1):
                        if memory.contains(m):
                            tried += 1
                            assert (o, v, f, m) in set(_segments(world))
                            after = _after(world, (o, v, f, m))
                            if not role.needs_x and world.entry is not None:
                                assert after.entry is not None
                            assert _possible(after, slots)
    assert bool(roles) == bool(tried)


@settings(max_examples=60, deadline=None)
@given(worlds, st.integers(1, 3))
def test_possible_means_that_some_segments_exist(world: Small, slots: int) -> None:
    if _engine(world).possible(slots):
        assert _possible(world, slots)


@pytest.mark.parametrize(("limit", "slots"), list(product((4, 5, 6), (1, 2))))
def test_with_the_entry_owed_nothing_possible_is_refused(limit: int, slots: int) -> None:
    for entry, low, size in product(range(12), (0, 4), (1, 2)):
        world = Small(limit, entry, (0, size), None, low)
        assert _engine(world).possible(slots) == _possible(world, slots), world
        allowed = set()
        for role in _engine(world).roles(slots - 1):
            for o, v, f, m in _segments(world):
                memory = role.memory(o, v, f)
                if memory is not None and memory.contains(m):
                    allowed.add((o, v, f, m))
        real = {s for s in _segments(world) if _possible(_after(world, s), slots - 1)}
        assert allowed == real, world
