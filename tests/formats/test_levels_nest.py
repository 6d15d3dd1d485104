"""Levels include the one before: what is drawn at one replays at the one below, where other things are reserved."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bytegen import formats

LEVELS = ("parse", "load", "code")


def _refused(format: str, seeds: range) -> list[str]:
    found = []
    for below, level in pairwise(LEVELS):
        for seed in seeds:
            size = (3_000, 12_000, 40_000)[seed % 3]
            data = formats.sample(format, seed, size, level)
            refusal = formats.replay(formats.constraint(format, max_bytes=143_360, level=below), data)
            if refusal is not None:
                found.append(f"seed {seed}, drawn at {level}, at {below}: {refusal}")
    return found


@pytest.mark.parametrize("format", formats.available())
def test_files_drawn_at_a_level_replay_at_the_one_below(format: str) -> None:
    assert _refused(format, range(84, 108)) == []


@pytest.mark.parametrize(("format", "seed"), [("pe32plus-x86_64", 110), ("elf32-i386", 21_488)])
def test_what_is_kept_in_reserve_lies_where_level_code_may_keep_it(format: str, seed: int) -> None:
    # Level `load` once kept it by the room where code lies, and so in the way of a name.
    assert _refused(format, range(seed, seed + 1)) == []


@pytest.mark.full
@pytest.mark.parametrize("format", formats.available())
def test_many_files_drawn_at_a_level_replay_at_the_one_below(format: str) -> None:
    assert _refused(format, range(300)) == []
