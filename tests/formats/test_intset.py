"""Integer sets against brute force: every mask of every prefix, for small fields whole, for large ones sampled."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen.formats.core.intset import IntSet, anything, exactly
from bytegen.formats.core.pieces import Bits, Finite, Piece, Span, Window

Test = Callable[[int], bool]


def spans(top: int) -> st.SearchStrategy[tuple[Piece, Test]]:
    def make(a: int, b: int, mod: int, rem: int) -> tuple[Piece, Test]:
        return Span(a, b, mod, rem), lambda x: a <= x <= b and x % mod == rem % mod

    mods = st.sampled_from([1, 2, 3, 4, 8, 16, 24, 56, 64, 256, 4096])
    return st.builds(make, st.integers(0, top), st.integers(0, top), mods, st.integers(0, 5000))


def windows(top: int) -> st.SearchStrategy[tuple[Piece, Test]]:
    def make(a: int, b: int, bits: int, first: int, size: int) -> tuple[Piece, Test]:
        period = 1 << bits
        first %= period
        last = min(first + size, period - 1)
        return Window(a, b, period, first, last), lambda x: a <= x <= b and first <= x % period <= last

    edges = st.integers(0, top)
    return st.builds(
        make, edges, edges, st.integers(1, 13), st.integers(0, 5000), st.integers(0, 5000)
    ).filter(
        lambda made: made[0].lo <= made[0].hi  # type: ignore[attr-defined]
    )


def finite(top: int) -> st.SearchStrategy[tuple[Piece, Test]]:
    def make(values: list[int]) -> tuple[Piece, Test]:
        members = frozenset(values)
        return Finite(values), lambda x: x in members

    return st.builds(make, st.lists(st.integers(0, top), max_size=12))


def bits(top: int) -> st.SearchStrategy[tuple[Piece, Test]]:
    def make(may: int, must: int) -> tuple[Piece, Test]:
        must &= may
        return Bits(may, must), lambda x: x & ~may == 0 and x & must == must

    return st.builds(make, st.integers(0, top), st.integers(0, top))


def pieces(top: int) -> st.SearchStrategy[tuple[Piece, Test]]:
    return st.one_of(spans(top), windows(top), finite(top), bits(top))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([1, 2]), st.data())
def test_masks_of_small_fields_are_the_projections_of_the_set(size: int, data: st.DataObject) -> None:
    top = (1 << 8 * size) - 1
    made = data.draw(st.lists(pieces(top), min_size=1, max_size=3))
    chosen = IntSet(size, *(piece for piece, _ in made))
    members = [x for x in range(top + 1) if any(test(x) for _, test in made)]
    assert bool(chosen) == bool(members)
    for x in [0, top, *members[:50], *random.Random(0).sample(range(top + 1), 50)]:
        assert chosen.contains(x) == (x in members), x
    expected = np.zeros(257, dtype=bool)
    expected[[x & 255 for x in members]] = True
    assert (chosen.mask(0, 0) == expected).all()
    if size == 2:
        for low in random.Random(1).sample(range(256), 12):
            expected = np.zeros(257, dtype=bool)
            expected[[x >> 8 for x in members if x & 255 == low]] = True
            assert (chosen.mask(1, low) == expected).all(), low
            assert chosen.has(1, low) == bool(expected.any())


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([4, 8]), st.randoms(use_true_random=False), st.data())
def test_a_walk_through_the_masks_reaches_members_and_every_member_is_reached(
    size: int, rng: random.Random, data: st.DataObject
) -> None:
    top = (1 << 8 * size) - 1
    made = data.draw(st.lists(pieces(top), min_size=1, max_size=3))
    chosen = IntSet(size, *(piece for piece, _ in made))
    bounds = chosen.bounds()
    if bounds is None:
        assert not chosen.mask(0, 0).any()
        return
    for pick in ("lowest", "highest", "any", "any"):
        value = 0
        for k in range(size):
            allowed = chosen.mask(k, value).nonzero()[0]
            assert len(allowed), (k, value)
            byte = {"lowest": allowed[0], "highest": allowed[-1]}.get(pick, rng.choice(list(allowed)))
            value |= int(byte) << 8 * k
        assert chosen.contains(value)
        assert any(test(value) for _, test in made)
    for value in bounds:
        assert any(test(value) for _, test in made)
        for k in range(size):
            low = value & ((1 << 8 * k) - 1)
            assert chosen.mask(k, low)[(value >> 8 * k) & 255]
            assert chosen.has(k, low)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_bytes_that_a_mask_refuses_have_no_member(data: st.DataObject) -> None:
    piece, test = data.draw(pieces((1 << 32) - 1))
    chosen = IntSet(4, piece)
    value = data.draw(st.integers(0, (1 << 32) - 1))
    reached = all(chosen.mask(k, value & ((1 << 8 * k) - 1))[(value >> 8 * k) & 255] for k in range(4))
    assert reached == test(value)


def test_large_finite_sets_agree_with_small_ones() -> None:
    rng = random.Random(3)
    values = sorted({rng.randrange(1 << 20) for _ in range(3000)})
    large, small = IntSet(4, Finite(np.array(values, np.uint64))), set(values)
    for x in [*values[:20], *range(50)]:
        assert large.contains(x) == (x in small)
    assert large.bounds() == (values[0], values[-1])
    for low in range(0, 256, 17):
        expected = {x >> 8 & 255 for x in values if x & 255 == low}
        assert set(large.mask(1, low).nonzero()[0].tolist()) == expected


def test_constant_sets_know_that_they_are() -> None:
    assert exactly(2, 7).only == 7
    assert exactly(2, 7, 8).only is None
    assert anything(8).full
    assert anything(3).mask(2, 0x1234)[:256].all()
    assert not anything(1).mask(0, 0)[256]


@pytest.mark.parametrize("period", [2, 16, 4096])
def test_windows_with_whole_periods_between_the_edges(period: int) -> None:
    window = Window(period // 2, 10 * period, period, period // 2, period - 1)
    members = [x for x in range(11 * period) if period // 2 <= x <= 10 * period and x % period >= period // 2]
    assert window.bounds() == (members[0], members[-1])
    assert [x for x in range(11 * period) if window.contains(x)] == members


def test_masks_made_in_threads_are_each_their_own() -> None:
    """Rows of masks are handed out many at a time; two takers of one row would see each other's bytes."""
    kept: list[tuple[int, np.ndarray]] = []
    before = sys.getswitchinterval()

    def make(first: int) -> None:
        for value in range(first, first + 3000):
            kept.append((value % 251, IntSet(1, Finite((value % 251, 255))).mask(0, 0)))

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=make, args=(7 * i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert len(kept) == 12_000
    assert all(mask.nonzero()[0].tolist() == [value, 255] for value, mask in kept)
