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


@pytest.mark.parametrize("name", [name for name in formats.available() if name.startswith("elf")])
def test_notes_before_a_dynamic_section_leave_it_where_level_parse_looks(name: str) -> None:
    """Small files: their program headers are most of what there is. One in 60 had been refused."""
    for seed in range(36, 60):
        data = formats.sample(name, seed, 2_000, "code", "lively")
        assert formats.replay(formats.constraint(name, max_bytes=2_000, level="parse"), data) is None, seed
