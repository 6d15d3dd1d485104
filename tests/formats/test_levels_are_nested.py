"""What a level accepts, the levels below it accept too."""

from __future__ import annotations

import pytest

from bytegen import formats

PAIRS = [
    (name, level, below)
    for name in formats.available()
    for i, level in enumerate(formats.levels(name))
    for below in formats.levels(name)[:i]
    if name.startswith("pe") or (level, below) == ("code", "load")
]


@pytest.mark.parametrize(("name", "level", "below"), PAIRS)
def test_files_of_a_level_are_files_of_those_below(name: str, level: str, below: str) -> None:
    for seed in range(10):
        data = formats.sample(name, 40 + seed, 6_000, level, ("lively", "uniform")[seed % 2])
        constraint = formats.constraint(name, max_bytes=143_360, level=below)
        assert formats.replay(constraint, data) is None, f"seed {40 + seed}"
