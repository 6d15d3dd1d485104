"""ELF under length limits: what one limit allows, every greater one allows; and what is owed keeps its place."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from steered import steered
from test_elf_headers import DYNAMIC, LOAD, NOTE, PAGE, PHDR, Row, head, refusal

from bytegen import formats
from bytegen.formats.elf.dynamic.addresses import AddressMap
from bytegen.formats.elf.dynamic.relocations import Relocations
from bytegen.formats.elf.dynamic.versions import index_run, longest_indices
from bytegen.formats.elf.entry import spread
from bytegen.formats.elf.held import Read
from bytegen.formats.elf.plan import Segment
from bytegen.formats.elf.target import I386

FORMATS = ("elf64-x86_64", "elf32-i386", "elf64-aarch64")
GREATER = (1, 1000, 143_360)


def _headers(c: formats.Constraint, rng: random.Random) -> bytes:
    """The headers of a file, drawn among the least, the greatest and any byte allowed."""
    extremes = rng.choice((0.0, 0.3, 0.8))
    while not c.done and (c.position <= 64 or c.field().startswith(("ehdr", "phdr"))):
        allowed = c.mask().nonzero()[0]
        place = rng.choice((0, -1)) if rng.random() < extremes else rng.randrange(len(allowed))
        c.advance(int(allowed[place]))
    return c.data


@pytest.mark.parametrize("level", ["parse", "load", "code"])
@pytest.mark.parametrize("format", FORMATS)
def test_headers_drawn_under_one_limit_stand_under_every_greater_one(format: str, level: str) -> None:
    for seed in range(8):
        rng = random.Random(f"{format} {level} {seed}")
        limit = rng.choice((420, 700, 2_500, 5_000))
        drawn = _headers(formats.constraint(format, max_bytes=limit, level=level), rng)
        for more in GREATER:
            c = formats.constraint(format, max_bytes=limit + more, level=level)
            assert c.advance_many(drawn) == len(drawn), f"seed {seed}, {limit} + {more}: {c.refusal()}"


@given(st.lists(st.tuples(st.integers(0, 9999), st.integers(-2, 300)), max_size=5), st.integers(0, 400))
def test_places_found_are_found_where_the_last_run_goes_on(runs: list[tuple[int, int]], more: int) -> None:
    runs = [(20_000 * i + first, count) for i, (first, count) in enumerate(runs)]
    every = [first + 16 * k for first, count in runs for k in range(count)]
    found = spread(runs, 16)
    assert found == [every[i] for i in (0, 1, 16, 256) if i < len(every)]
    if runs and runs[-1][1] >= 0:
        assert set(found) <= set(spread([*runs[:-1], (runs[-1][0], runs[-1][1] + more)], 16))
    assert set(found) <= set(spread([*runs, (200_000, more)], 16))


@pytest.mark.parametrize("format", FORMATS)
def test_the_dynamic_section_may_come_last_wherever_its_segment_ends(format: str) -> None:
    rows: list[Row] = [
        {"type": LOAD, "offset": 0, "vaddr": 0, "filesz": 0x900, "align": PAGE},
        {"type": LOAD, "flags": 6, "offset": 0x5E00, "vaddr": 0x6E00, "filesz": 0x300, "align": PAGE},
        {"type": DYNAMIC, "flags": 6, "offset": 0x5F00, "vaddr": 0x6F00, "filesz": 0x100, "align": 8},
    ]
    assert refusal(format, head(format, 3, 0, rows), "load") is None


@pytest.mark.parametrize("format", FORMATS)
def test_the_entry_may_share_a_segment_with_notes_where_the_table_could_hold_it_too(format: str) -> None:
    start, size = (64, 4 * 56) if format.startswith("elf64") else (52, 4 * 32)
    rows: list[Row] = [
        {"type": PHDR, "offset": start, "vaddr": start, "filesz": size, "align": 8},
        {"type": NOTE, "offset": 0x218, "vaddr": 0x11218, "filesz": 0x28, "align": 4},
        {"type": LOAD, "flags": 6, "offset": 0, "vaddr": 0, "filesz": 0x188, "align": PAGE},
        {"type": LOAD, "flags": 7, "offset": 0, "vaddr": 0x11000, "filesz": 0x26F, "align": PAGE},
    ]
    data = head(format, 3, 0x1117A, rows)
    for limit in (0x26F, 143_360):
        c = formats.constraint(format, max_bytes=limit, level="load")
        assert c.advance_many(data) == len(data), f"{limit}: {c.refusal()}"


@pytest.mark.parametrize("format", FORMATS)
def test_zeros_may_not_wipe_out_the_program_headers(format: str) -> None:
    """glibc reads them in the first segment whose pages show them."""
    rows: list[Row] = [
        {"type": LOAD, "flags": 6, "offset": 0, "vaddr": 0, "filesz": 0x80, "memsz": 0x90, "align": PAGE},
        {"type": LOAD, "flags": 6, "offset": 0, "vaddr": 0x2000, "filesz": 0x900, "align": PAGE},
        {"type": DYNAMIC, "flags": 6, "offset": 0x400, "vaddr": 0x2400, "filesz": 0x100, "align": 8},
    ]
    found = refusal(format, head(format, 3, 0, rows), "load")
    assert found is not None
    assert found.field == "phdr[0].p_memsz"
    rows[0]["memsz"] = 0x80
    assert refusal(format, head(format, 3, 0, rows), "load") is None


@pytest.mark.parametrize("seed", range(6))
def test_room_for_relocations_that_are_owed_is_kept_when_others_are_named(seed: int) -> None:
    rows: list[Row] = [
        {"type": LOAD, "flags": 6, "offset": 0, "vaddr": 0, "filesz": 0x700, "align": PAGE},
        {"type": DYNAMIC, "flags": 6, "offset": 0x200, "vaddr": 0x200, "filesz": 0x100, "align": 4},
    ]
    data = head("elf32-i386", 3, 0, rows).ljust(0x100, b"\xff")
    data += bytes(9)  # a relocation of type 0, and a string table
    data = data.ljust(0x200, b"\xff") + struct.pack("<4I", 2, 40 * 8, 17, 0x100)  # DT_PLTRELSZ, DT_REL
    c = formats.constraint("elf32-i386", max_bytes=0x700, level="load")
    assert c.advance_many(data) == len(data), c.refusal()
    steered(c, random.Random(seed), {"dynamic[2].d_tag": 23})
    paths = {field.path.rpartition(".")[2] for field in c.fields()}
    assert {"REL", "JMPREL", "PLTRELSZ"} <= paths


def test_segments_that_share_bytes_have_runs_of_relocations_of_their_own() -> None:
    short = Segment(0, 0x1000, 16, 16, 6)
    long = Segment(0, 0x3000, 64, 64, 6)
    raw = bytes(64)
    table = Relocations(raw, AddressMap((short, long), 64), I386, True)
    assert [len(table.run(0, high).symbols) for high in (16, 64, 16)] == [2, 8, 2]


@given(st.binary(max_size=40), st.integers(0, 5), st.integers(0, 3))
@settings(deadline=None)
def test_the_longest_version_indices_are_the_longest_run(raw: bytes, low: int, highest: int) -> None:
    raw = bytes(byte & 3 if i % 2 == 0 else byte & 0x80 for i, byte in enumerate(raw))
    low = min(low, len(raw))
    runs = [index_run(raw, x, len(raw), 99, highest) for x in range(low + low % 2, len(raw), 2)]
    assert longest_indices(raw, low, len(raw), highest) == max(runs, default=0)


@pytest.mark.parametrize("address", [0, 0x1000])
def test_a_dynamic_section_does_not_lie_at_address_0(address: int) -> None:
    """The dynamic loader takes address 0 for none (glibc elf/dl-load.c)."""
    seat = Read(Segment(0x2000, address, 0x100, 0x100, 6), 1)
    first = 0x2001 if address == 0 else 0x2000
    assert seat.offsets(8) == (first, 0x20F8)
    offsets = np.arange(0x1FFF, 0x2102)
    held = offsets[seat.hold(offsets, np.full_like(offsets, 8))]
    assert (held[0], held[-1]) == (first, 0x20F8)
    assert (seat.most(0x2000, address) > 0) == bool(address)
    assert all(piece.bounds()[0] > 0 for piece in seat.addresses(first, 8))  # type: ignore[index]


@pytest.mark.parametrize("format", FORMATS)
def test_files_replay_under_their_own_length(format: str) -> None:
    """What a header says of places stays inside the file, even where it takes no bytes (SHT_NOBITS)."""
    for seed in range(12):
        data = formats.sample(format, seed, 12_000, "load", "lively")
        c = formats.constraint(format, max_bytes=len(data), level="load")
        assert formats.replay(c, data) is None, (format, seed)
