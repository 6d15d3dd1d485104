"""The joint rules of PT_LOAD against brute force, on files and memories small enough to try everything."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen.formats.elf.held import Beside, Later, _windows
from bytegen.formats.elf.load import Duties
from bytegen.formats.elf.plan import Held

PAGE, ROOF = 4, 24
Load = tuple[int, int, int, int]  # offset, vaddr, filesz, memsz


class Small(NamedTuple):
    """What is owed, in a world of small numbers."""

    limit: int
    entry: int | None
    table: tuple[int, int] | None
    held: tuple[Held, ...]
    low: int


def _page(x: int) -> int:
    return x // PAGE * PAGE


@cache
def _segments(world: Small) -> list[Load]:
    """Every segment that the kernel's rules allow by themselves."""
    return [
        (o, v, f, m)
        for o in range(world.limit + 1)
        for v in range(world.low, ROOF + 1)
        for f in range(world.limit - o + 1)
        if f == 0 or (v - o) % PAGE == 0
        for m in range(f, min(f + 2, ROOF - v) + 1)
    ]


def _after(world: Small, segment: Load) -> Small:
    o, v, f, m = segment
    entry, table = world.entry, world.table
    if entry is not None and v <= entry < v + f:
        entry = None
    if table is not None and o <= table[0] and o + f >= table[1]:
        table = None
    held = tuple(
        item for item in world.held if item.shift != v - o or not v <= item.address <= item.end <= v + f
    )
    return Small(world.limit, entry, table, held, max(world.low, _page(v + m + PAGE - 1)))


@cache
def _possible(world: Small, slots: int) -> bool:
    if world.entry is None and world.table is None and not world.held:
        return True
    return slots > 0 and any(_possible(_after(world, s), slots - 1) for s in _segments(world))


def _engine(world: Small) -> Duties:
    return Duties(
        world.entry, world.table, world.held, world.low, ROOF, world.limit, PAGE, 2, ((0, world.limit),)
    )


@st.composite
def worlds(draw: st.DrawFn) -> Small:
    """Worlds with the table at an open address, or with up to two things held at addresses."""
    limit, low = draw(st.integers(3, 6)), PAGE * draw(st.integers(0, 2))
    entry = draw(st.one_of(st.none(), st.integers(0, 15)))
    start, size = draw(st.integers(0, 3)), draw(st.integers(1, 3))
    table = (min(start, limit - size), min(start, limit - size) + size)
    items = []
    for _ in range(draw(st.integers(0, 2))):
        first = draw(st.integers(0, limit - 1))
        last = draw(st.integers(first + 1, limit))
        shift = PAGE * draw(st.integers(-1, 5))
        if low <= _page(first + shift) and last + shift <= ROOF:
            items.append(Held(first + shift, last + shift, shift))
    held = tuple(sorted(set(items)))
    return Small(limit, entry, None if held or draw(st.booleans()) else table, held, low)


@settings(max_examples=60, deadline=None)
@given(worlds(), st.integers(0, 2))
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
            for v in range(ROOF + 1):
                if not addresses.contains(v):
                    continue
                sizes = role.sizes(o, v)
                assert sizes is not None, "an address without a size is a dead end"
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
@given(worlds(), st.integers(1, 3))
def test_possible_means_that_some_segments_exist(world: Small, slots: int) -> None:
    if _engine(world).possible(slots):
        assert _possible(world, slots)


@settings(max_examples=80, deadline=None)
@given(worlds(), st.integers(1, 3))
def test_what_a_seat_takes_can_be_held_beside_the_rest(world: Small, slots: int) -> None:
    """Every offset, address and size that a seat gives leaves segments that hold it and all else."""
    duties = _engine(world)
    if not duties.possible(slots):
        return
    seats: list[Beside | Later] = (
        [Beside(duties, slots)] if world.table is not None else list(_windows(duties, slots))
    )
    for seat in seats:
        for least in (1, 2):
            bounds = seat.offsets(least)
            for offset in range(bounds[0], bounds[1] + 1) if bounds is not None else ():
                addresses = seat.addresses(offset, least)
                assert any(piece.bounds() is not None for piece in addresses), "an offset without an address"
                for address in range(ROOF + 1):
                    if not any(piece.contains(address) for piece in addresses):
                        continue
                    most = seat.most(offset, address)
                    assert most >= least, "an address without a size"
                    assert offset + most <= world.limit
                    for size in {least, most}:
                        shift = address - offset
                        items = {*world.held, Held(address, address + size, shift)}
                        if world.table is not None:
                            items.add(Held(world.table[0] + shift, world.table[1] + shift, shift))
                        after = world._replace(table=None, held=tuple(sorted(items)))
                        assert _possible(after, slots), (seat, offset, address, size)
                        assert _engine(after).possible(slots)


@pytest.mark.parametrize(("limit", "slots"), list(product((4, 5, 6), (1, 2))))
def test_with_the_entry_owed_nothing_possible_is_refused(limit: int, slots: int) -> None:
    for entry, low, size in product(range(12), (0, 4), (1, 2)):
        world = Small(limit, entry, (0, size), (), low)
        assert _engine(world).possible(slots) == _possible(world, slots), world
        allowed = set()
        for role in _engine(world).roles(slots - 1):
            for o, v, f, m in _segments(world):
                memory = role.memory(o, v, f)
                if memory is not None and memory.contains(m):
                    allowed.add((o, v, f, m))
        real = {s for s in _segments(world) if _possible(_after(world, s), slots - 1)}
        assert allowed == real, world


@settings(max_examples=40, deadline=None)
@given(worlds(), st.integers(1, 3))
def test_with_things_held_nothing_possible_is_refused(world: Small, slots: int) -> None:
    if world.held and not _engine(world).possible(slots):
        assert not _possible(world, slots), world
