"""Masks of displacements, byte by byte, against the list of all places where a branch may go."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen.formats.code.machine import machine
from bytegen.formats.core.branches import BARRED, NOWHERE, ByteBranches, Range, branches
from bytegen.formats.core.steps import StreamStep
from bytegen.formats.core.written import Written

FAR = {32: (0x1000, 0x40_0000, 0xFFF0_0000), 64: (0x1000, 0x40_0000, 0x7FFF_FFF0_0000)}


def some_ranges(rng: random.Random, bits: int) -> tuple[Range, ...]:
    """One to four parts of a file, mapped near each other, or at both ends of the address space."""
    edges = sorted(rng.sample(range(0, 2400, 8), 2 * rng.randint(1, 4)))
    places = [rng.choice(FAR[bits]) + 0x1000 * rng.randrange(64) for _ in edges[::2]]
    return tuple(
        Range(start, stop, place) for start, stop, place in zip(edges[::2], edges[1::2], places, strict=True)
    )


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from([32, 64]), st.sampled_from([1, 2, 4]), st.booleans())
def test_masks_of_displacements_are_the_bytes_of_all_that_may_be_reached(
    seed: int, bits: int, size: int, nowhere: bool
) -> None:
    rng = random.Random(seed)
    ranges = some_ranges(rng, bits)
    own = rng.choice(ranges)
    used = machine("x86_64")
    targets = branches(used, ranges, bits, nowhere)
    assert isinstance(targets, ByteBranches)
    step = StreamStep(own.start, own.stop, own.shift, used, targets, "code", lambda data: step)
    field = rng.randrange(own.start, own.stop)
    end = field + size
    behind = [x for r in ranges for x in range(r.start, min(r.stop, field))]
    starts = {x for x in behind if rng.random() < rng.choice((0.01, 0.3))}

    wrap, half, top = 1 << bits, 1 << 8 * size - 1, 1 << 8 * size

    def reached(address: int) -> list[int]:
        far = (address - end - own.shift + wrap // 2) % wrap - wrap // 2
        return [far % top] if -half <= far < half else []

    ahead = [(x, r.shift) for r in ranges for x in range(max(r.start, end), r.stop)]
    landing = [*ahead, *((x, r.shift) for r in ranges for x in starts if r.start <= x < r.stop)]
    good = {x for offset, shift in landing for x in reached(offset + shift)}
    if nowhere and size == 4:
        good.update(reached(0))

    k = rng.randrange(size)
    prefix = rng.choice(sorted(good)) if good and rng.random() < 0.8 else rng.randrange(top)
    prefix &= (1 << 8 * k) - 1
    data = Written(bytes(field) + prefix.to_bytes(4, "little")[:k])
    for start in sorted(starts):
        data.start(start)
    left = list(used.displacement_left)
    state = next(s for s in range(used.plain, used.accepted) if left[s] == size - k)

    expected = np.zeros(257, dtype=bool)
    expected[[x >> 8 * k & 255 for x in good if x & (1 << 8 * k) - 1 == prefix]] = True
    np.testing.assert_array_equal(targets.mask(step, state, field - 1, field, data), expected)
    for x in {rng.randrange(top), *rng.sample(sorted(good), min(3, len(good)))}:
        landed = targets.land(step, end, x - (top if x >= half else 0), data)
        assert (landed != BARRED) == (x in good or (nowhere and landed == NOWHERE))


def test_addresses_that_do_not_fit_are_refused() -> None:
    for name in ("x86_64", "aarch64"):
        with pytest.raises(ValueError, match="addresses below"):
            branches(machine(name), (Range(0, 8, 1 << 62),), 64)
