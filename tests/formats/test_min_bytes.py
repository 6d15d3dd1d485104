"""A least length: the end is refused before it and nothing else changes, for every format and level."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen import formats
from bytegen.formats import END, FormatError

CASES = [(name, level) for name in formats.available() for level in formats.levels(name)]
FORMAT = "elf64-x86_64"


@settings(max_examples=25, deadline=None)
@given(
    case=st.sampled_from(CASES), seed=st.integers(0, 1 << 30), room=st.integers(0, 4000), share=st.floats(0, 1)
)  # fmt: skip
def test_masks_are_those_without_it_but_for_the_end(
    case: tuple[str, str], seed: int, room: int, share: float
) -> None:
    name, level = case
    limit = formats.least_bytes(name, level) + room
    least = round(share * limit)
    held = formats.constraint(name, max_bytes=limit, level=level, min_bytes=least)
    free = formats.constraint(name, max_bytes=limit, level=level)
    assert held.min_bytes == least
    rng = random.Random(seed)
    while not held.done:
        mask, other = held.mask(), free.mask()
        assert (mask[:END] == other[:END]).all()
        assert mask[END] == (other[END] and held.position >= least)
        allowed = mask.nonzero()[0].tolist()
        assert allowed, held.refusal()
        # The end wherever it may come, so that no length is reached by luck; else now and then the extremes.
        choice = END if mask[END] else rng.choice([allowed[0], allowed[-1], *rng.choices(allowed, k=6)])
        held.advance(choice)
        free.advance(choice)
    assert least <= held.position <= limit
    assert formats.replay(formats.constraint(name, max_bytes=limit, level=level), held.data) is None


@pytest.mark.parametrize(("name", "level"), CASES)
def test_files_held_to_a_length_pass_the_judges(name: str, level: str) -> None:
    for seed, pick in enumerate(("uniform", "lively", "lowest", "highest")):
        size = formats.least_bytes(name, level) + 800 * seed
        data = formats.sample(name, seed, size, level, pick, min_bytes=size)
        assert len(data) == size
        report = formats.validate(data, format=name, level=level)
        assert report.ok, f"seed {seed}, {pick}: {report}"


@pytest.mark.parametrize("name", [FORMAT, "pe32plus-x86_64"])
def test_140_kb_exactly(name: str) -> None:
    data = formats.sample(name, 7, 143_360, "load", "lively", min_bytes=143_360)
    assert len(data) == 143_360
    assert formats.validate(data, format=name, level="load").ok


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 30), least=st.integers(0, 2000), back=st.integers(0, 2200))
def test_forks_and_rollbacks_keep_it(seed: int, least: int, back: int) -> None:
    c = formats.constraint(FORMAT, max_bytes=2100, min_bytes=least)
    formats.core.drive.draw(c, random.Random(seed))
    c.rollback(min(back, c.position + 1))
    twin = c.fork()
    for one in (c, twin):
        assert one.min_bytes == least
        while not one.done:
            if one.position < least:
                assert not one.mask()[END]
            one.advance(int(one.mask().nonzero()[0][-1]))
        assert one.position >= least
    assert c.data == twin.data


def test_the_refused_end_says_how_long_the_file_must_be() -> None:
    c = formats.constraint(FORMAT, max_bytes=3000, min_bytes=2500)
    formats.core.drive.draw(c, random.Random(0), "lowest")
    c.rollback(c.position + 1 - 2400)
    with pytest.raises(FormatError, match="at least 2500 and at most 3000 bytes"):
        c.advance(END)


@pytest.mark.parametrize("least", [-1, 2001])
def test_a_least_length_beyond_the_limit_is_refused(least: int) -> None:
    with pytest.raises(
        FormatError, match=f"min_bytes is {least}; it may be from 0 to max_bytes, which is 2000"
    ):
        formats.constraint(FORMAT, max_bytes=2000, min_bytes=least)
