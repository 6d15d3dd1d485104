"""Packed masks: one bit a symbol, for one constraint and for a batch."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen import formats
from bytegen.formats import Constraint, FormatError, fill_bitmasks

FORMAT = "elf64-x86_64"


def unpacked(words: np.ndarray) -> list[bool]:
    """The bits of 32-bit words, in the order that xgrammar and llguidance give them."""
    return [bool(int(words[i // 32]) >> i % 32 & 1) for i in range(32 * len(words))]


def walked(seed: int, steps: int) -> Constraint:
    rng = random.Random(seed)
    c = formats.constraint(FORMAT, max_bytes=3000)
    for _ in range(steps):
        c.advance(rng.choice(c.mask().nonzero()[0].tolist()))
    return c


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 400)), min_size=1, max_size=5))
def test_bitmasks_are_the_masks(places: list[tuple[int, int]]) -> None:
    batch = [walked(seed, steps) for seed, steps in places]
    words = fill_bitmasks(batch)
    assert words.dtype == np.int32
    assert words.shape == (len(batch), 9)
    for row, c in zip(words, batch, strict=True):
        assert unpacked(row)[:257] == c.mask().tolist()
        assert not any(unpacked(row)[257:])
        assert (c.bitmask() == row).all()


def test_bitmasks_fill_a_given_array_and_clear_its_rest() -> None:
    batch = [walked(1, 30), walked(2, 200), formats.constraint(FORMAT)]
    out = np.full((4, 12), -1, np.int32)
    assert fill_bitmasks(batch, out) is out
    assert (out[:3, :9] == fill_bitmasks(batch)).all()
    assert not out[:3, 9:].any()
    assert (out[3] == -1).all()


def test_a_bitmask_follows_its_constraint() -> None:
    c = formats.constraint(FORMAT)
    seen = set()
    for byte in b"\x7fELF\x02\x01\x01":
        assert unpacked(c.bitmask())[:257] == c.mask().tolist()
        seen.add(c.bitmask().tobytes())
        c.advance(byte)
    assert len(seen) == 6  # 01 is forced twice


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((2, 8), np.int32),
        np.zeros((1, 9), np.int32),
        np.zeros((2, 9), np.int64),
        np.zeros(18, np.int32),
    ],
)
def test_arrays_that_do_not_fit_are_refused(out: np.ndarray) -> None:
    batch = [formats.constraint(FORMAT), formats.constraint(FORMAT)]
    with pytest.raises(FormatError, match=r"bitmasks take int32\[2, 9\] or more, got"):
        fill_bitmasks(batch, out)


def test_no_constraints() -> None:
    assert fill_bitmasks([]).shape == (0, 9)
