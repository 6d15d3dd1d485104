"""capstone as a judge of level `code`: it takes what the masks draw, and sees what is wrong."""

from __future__ import annotations

import pytest

from bytegen import formats
from bytegen.formats.oracles.instructions import Listing, instructions_judge

FORMATS = ("elf64-x86_64", "elf32-i386", "elf64-aarch64")


@pytest.mark.parametrize("format", FORMATS)
def test_what_the_masks_draw_decodes(format: str) -> None:
    for seed in range(4):
        data = formats.sample(format, seed, 6000, "code", ("uniform", "lively")[seed % 2])  # type: ignore[arg-type]
        assert instructions_judge(data, format) == []


def test_a_listing_tells_starts_branches_and_what_does_not_decode() -> None:
    code = bytes.fromhex("eb0190c3f0ff0006")  # jmp +1; nop; ret; lock inc; no instruction
    found = Listing("x86_64", code, [(0, len(code), 0x1000)], set())
    assert found.starts == {0x1000, 0x1002, 0x1003, 0x1004}
    assert found.branches == [(0x1000, 0x1003)]
    assert found.skipped == {0x1005}
    assert found.undecoded == [0x1007]


def test_a_prefix_67_does_not_shorten_a_near_branch_for_i386() -> None:
    for code in ("67e90b910000", "2e67e80b910300", "670f840b910000"):
        raw = bytes.fromhex(code)
        found = Listing("i386", raw, [(0, len(raw), 0x10000000)], set())
        distance = int.from_bytes(raw[-4:], "little")
        assert found.branches == [(0x10000000, 0x10000000 + len(raw) + distance)]
    short = Listing("i386", bytes.fromhex("67e3fd"), [(0, 3, 0x1000)], set())
    assert short.branches == [(0x1000, 0x1000)]


def test_rules_and_judge_agree_on_an_entry_that_moves() -> None:
    format = "elf64-x86_64"
    data = bytearray(formats.sample(format, 1, 4000, "code", "lively"))
    c = formats.constraint(format, max_bytes=len(data), level="code")
    assert c.advance_many(bytes(data)) == len(data)
    assert c.code_spans()
    starts = c.instruction_starts().tolist()
    assert all(any(low <= at < high for low, high in c.code_spans()) for at in starts)
    entry = int.from_bytes(data[24:32], "little")
    data[24:32] = (entry + 1).to_bytes(8, "little")
    moved = formats.constraint(format, max_bytes=len(data), level="code")
    refused = moved.advance_many(bytes(data)) < len(data)
    assert refused or instructions_judge(bytes(data), format) == []
