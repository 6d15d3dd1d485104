"""The byte-level driver: rollback, fork, forced runs, the end, errors; on random and on real-looking files."""

from __future__ import annotations

import random

import numpy as np
import pytest
from handmade import minimal_elf
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen import formats
from bytegen.formats import END, Constraint, FormatError

FORMAT = "elf64-x86_64"
MEMORY = st.integers(max(formats.least_bytes(FORMAT, level) for level in formats.levels(FORMAT)), 6000)
LEVELS = st.sampled_from(formats.levels(FORMAT))


def walk(c: Constraint, rng: random.Random, steps: int, greed: float) -> list[int]:
    """Random advances: with chance ``greed`` an extreme choice, else any; what was chosen."""
    chosen = []
    for _ in range(steps):
        if c.done:
            break
        allowed = c.mask().nonzero()[0]
        assert len(allowed), c.refusal()
        if rng.random() < greed:
            pick = int(allowed[rng.choice([0, -1])])
        else:
            pick = int(allowed[rng.randrange(len(allowed))])
        c.advance(pick)
        chosen.append(pick)
    return chosen


def same(a: Constraint, b: Constraint) -> None:
    assert a.position == b.position
    assert a.done == b.done
    assert a.data == b.data
    assert a.field() == b.field()
    assert (a.mask() == b.mask()).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30), MEMORY, LEVELS, st.sampled_from([0.0, 0.3, 0.9]))
def test_no_walk_meets_an_empty_mask_and_every_walk_ends_within_the_limit(
    seed: int, limit: int, level: str, greed: float
) -> None:
    c = formats.constraint(FORMAT, max_bytes=limit, level=level)
    walk(c, random.Random(seed), 10 * limit, greed)
    assert c.done
    assert formats.least_bytes(FORMAT, level) <= c.position <= limit


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30), MEMORY, st.integers(0, 1500), st.data())
def test_rollback_equals_replay(seed: int, limit: int, steps: int, data: st.DataObject) -> None:
    c = formats.constraint(FORMAT, max_bytes=limit)
    chosen = walk(c, random.Random(seed), steps, 0.2)
    back = data.draw(st.integers(0, len(chosen)))
    c.rollback(back)
    fresh = formats.constraint(FORMAT, max_bytes=limit)
    for byte in chosen[: len(chosen) - back]:
        fresh.advance(byte)
    same(c, fresh)
    for byte in chosen[len(chosen) - back :]:
        assert c.mask()[byte]
        c.advance(byte)
        fresh.advance(byte)
    same(c, fresh)
    assert c.fields() == fresh.fields()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 30), MEMORY, st.integers(0, 1500))
def test_forks_go_their_own_ways(seed: int, limit: int, steps: int) -> None:
    rng = random.Random(seed)
    c = formats.constraint(FORMAT, max_bytes=limit)
    walk(c, rng, steps, 0.2)
    mark, twin = c.fork(), c.fork()
    same(c, twin)
    forward = walk(twin, rng, 300, 0.2)
    same(c, mark)
    twin.rollback(len(forward))
    same(c, twin)
    # A fork keeps its place even when the original goes back and writes other bytes.
    c.rollback(c.position // 2)
    walk(c, rng, 400, 0.5)
    walk(mark, rng, 10 * limit, 0.2)
    assert mark.done
    assert formats.replay(formats.constraint(FORMAT, max_bytes=limit), mark.data) is None


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 30), MEMORY)
def test_bulk_advance_equals_single_advances(seed: int, limit: int) -> None:
    c = formats.constraint(FORMAT, max_bytes=limit)
    walk(c, random.Random(seed), 10 * limit, 0.3)
    data = bytearray(c.data)
    rng = random.Random(seed)
    if rng.random() < 0.7:
        data[rng.randrange(min(len(data), 400))] ^= 1 << rng.randrange(8)
    slow = formats.constraint(FORMAT, max_bytes=limit)
    taken = 0
    for byte in data:
        if not slow.mask()[byte]:
            break
        slow.advance(byte)
        taken += 1
    fast = formats.constraint(FORMAT, max_bytes=limit)
    assert fast.advance_many(bytes(data)) == taken
    same(fast, slow)
    pieces = formats.constraint(FORMAT, max_bytes=limit)
    at = 0
    while at < taken:
        step = rng.randrange(1, 40)
        assert pieces.advance_many(bytes(data[at : min(at + step, taken)])) == min(step, taken - at)
        at += step
    same(pieces, slow)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 30), MEMORY, st.integers(0, 700))
def test_forced_is_the_longest_run_with_one_choice(seed: int, limit: int, steps: int) -> None:
    c = formats.constraint(FORMAT, max_bytes=limit)
    walk(c, random.Random(seed), steps, 0.2)
    before = c.fork()
    run = c.forced()
    same(c, before)
    for byte in run:
        assert c.mask().nonzero()[0].tolist() == [byte]
        c.advance(byte)
    allowed = c.mask().nonzero()[0].tolist()
    assert len(allowed) > 1 or allowed == [END]


def test_after_the_end_every_call_is_harmless() -> None:
    data = minimal_elf()
    c = formats.constraint(FORMAT)
    assert c.advance_many(data) == len(data)
    assert c.mask()[END]
    c.advance(END)
    for extra in (END, 0, 255, END):
        assert c.done
        assert c.mask().nonzero()[0].tolist() == [END]
        assert c.forced() == b""
        assert c.advance_many(b"abc") == 0
        c.advance(extra)
    assert c.data == data
    assert c.fork().done
    c.rollback(5)
    assert not c.done
    assert c.position == len(data)
    c.rollback(3)
    assert c.data == data[:-3]
    with pytest.raises(FormatError, match="cannot roll back"):
        c.rollback(len(data))


def test_a_refused_byte_names_offset_field_and_rule_and_changes_nothing() -> None:
    c = formats.constraint(FORMAT)
    c.advance_many(b"\x7fELF")
    before = c.fork()
    with pytest.raises(FormatError, match=r"byte 0x01 is refused: offset 0x4: ehdr.e_ident.class: 2: 64-bit"):
        c.advance(1)
    with pytest.raises(FormatError, match="the end of the file is refused"):
        c.advance(END)
    with pytest.raises(FormatError):
        c.advance(-1)
    same(c, before)


def test_masks_cannot_be_written_to() -> None:
    c = formats.constraint(FORMAT)
    for byte in minimal_elf():
        with pytest.raises(ValueError, match="read-only"):
            c.mask()[0] = True
        c.advance(byte)


def test_bad_requests_say_what_there_is() -> None:
    with pytest.raises(FormatError, match=r"unknown format .elf.; there are: .*elf64-x86_64"):
        formats.constraint("elf")
    with pytest.raises(FormatError, match="unknown level 'best' of elf64-x86_64; there are: parse, load"):
        formats.constraint(FORMAT, level="best")
    with pytest.raises(FormatError, match="smallest elf64-x86_64 file has 120 bytes"):
        formats.constraint(FORMAT, max_bytes=119)
    with pytest.raises(FormatError, match="unknown pick"):
        formats.sample(FORMAT, 0, pick="best")  # type: ignore[arg-type]
    assert FORMAT in formats.available()


def test_the_least_file_is_reached_and_no_smaller_one_exists() -> None:
    for level in formats.levels(FORMAT):
        least = formats.least_bytes(FORMAT, level)
        for pick in ("uniform", "lowest", "highest"):
            for seed in range(5):
                c = formats.constraint(FORMAT, max_bytes=least, level=level)
                walk(c, random.Random(seed), 10 * least, {"uniform": 0.0}.get(pick, 1.0))
                assert c.position == least


def test_fields_of_a_small_program() -> None:
    data = minimal_elf()
    c = formats.constraint(FORMAT)
    assert formats.replay(c, data) is None
    fields = {field.path: field for field in c.fields()}
    assert fields["ehdr.e_entry"].value == 0x400078
    assert fields["phdr[0].p_filesz"][:2] == (96, 104)
    assert fields["segment[0]"][:2] == (120, len(data))
    spans = c.fields()
    assert [span.start for span in spans] == [0, *(span.end for span in spans[:-1])]
    assert spans[-1].end == len(data)
    flags = formats.forced_bytes(FORMAT, data)
    assert flags.dtype == bool
    assert len(flags) == len(data) + 1
    assert flags[:7].all()
    assert not flags[24]
    assert not flags[-1]
    for span in spans:
        assert span.forced == int(np.sum(flags[span.start : span.end]))


def test_forced_bytes_of_a_file_that_does_not_replay() -> None:
    with pytest.raises(FormatError, match=r"offset 0x12: ehdr.e_machine"):
        formats.forced_bytes(FORMAT, minimal_elf().replace(b"\x3e", b"\xb7", 1))


def test_sampling_is_repeatable_and_sizes_are_mixed() -> None:
    sizes = []
    for seed in range(12):
        data = formats.sample(FORMAT, seed, 20_000)
        assert data == formats.sample(FORMAT, seed, 20_000)
        assert formats.replay(formats.constraint(FORMAT, max_bytes=20_000), data) is None
        sizes.append(len(data))
    assert min(sizes) < 1000 < max(sizes) <= 20_000
