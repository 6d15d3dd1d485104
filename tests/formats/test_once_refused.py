"""Files drawn at random that met a dead end once, or were refused under a greater length limit: a rule mended each.

What a seed draws changes with the rules, so these are kept beside tests that steer, not in their stead.
"""

from __future__ import annotations

from typing import Any

import pytest

from bytegen import formats


@pytest.mark.parametrize(
    ("format", "seed", "max_bytes", "level", "pick"),
    [
        (
            "elf32-i386",
            11_232,
            143_360,
            "parse",
            "lively",
        ),  # room of another segment that shows the same bytes
        ("elf64-x86_64", 10_772, 143_360, "code", "uniform"),  # sixteen gaps, most of them the same one
        ("pe32-i386", 1_005, 143_360, "load", "uniform"),  # names in reserve in narrow gaps
        ("pe32plus-x86_64", 5_027, 143_360, "load", "uniform"),
        ("pe32plus-aarch64", 5_062, 30_000, "load", "uniform"),
    ],
)
def test_files_end_and_replay_under_a_greater_limit(
    format: str, seed: int, max_bytes: int, level: str, pick: Any
) -> None:
    data = formats.sample(format, seed, max_bytes, level, pick)
    for limit in (max_bytes, 2 * max_bytes):
        assert formats.replay(formats.constraint(format, max_bytes=limit, level=level), data) is None
