"""Level `code`: streams of instructions, against capstone, brute force, and themselves."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from code_streams import BITS, executable
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bytegen import formats
from bytegen.formats import END, Constraint, FormatError
from bytegen.formats.core import drive
from bytegen.formats.core.spans import only_byte
from bytegen.formats.oracles.instructions import Listing

NAMES = st.sampled_from(["x86_64", "i386"])
SEEDS = st.integers(0, 1 << 30)
# Bytes that begin branches, returns and zeros, which filler is made of.
LIVELY = (0xE8, 0xE9, 0xEB, 0x74, 0x0F, 0xE2, 0xC3, 0x00, 0xF0, 0x66)


def parts_of(name: str, rng: random.Random, sizes: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Executable parts at ascending offsets and addresses, of any alignment on x86."""
    base = 0x400000 if BITS[name] == 64 else rng.choice([0x8048000, 0xFFF00000])
    parts, at = [], rng.randrange(0, 90)
    for size in sizes:
        parts.append((at, at + size, base + at))
        at += size + rng.randrange(0, 200)
        base += rng.choice([0, 0x1000, 0x20000])
    return parts


def walk(c: Constraint, rng: random.Random, steps: int, lively: float) -> list[int]:
    chosen = []
    for _ in range(steps):
        if c.done:
            break
        allowed = c.mask().nonzero()[0].tolist()
        assert allowed, c.refusal()
        liked = [byte for byte in allowed if byte in LIVELY]
        pick = rng.choice(liked) if liked and rng.random() < lively else rng.choice(allowed)
        c.advance(pick)
        chosen.append(pick)
    return chosen


def same(a: Constraint, b: Constraint) -> None:
    assert a.data == b.data
    assert a.done == b.done
    assert a.field() == b.field()
    assert (a.mask() == b.mask()).all()
    assert (a.instruction_starts() == b.instruction_starts()).all()


def judge(name: str, c: Constraint, parts: list[tuple[int, int, int]], *, nowhere: bool = False) -> Listing:
    starts = set(c.instruction_starts().tolist())
    found = Listing(name, c.data, parts, starts)
    assert found.undecoded == []
    shifts = {start: address - start for start, _, address in parts}
    assert len(found.starts) == len(starts)
    assert all(any(at + shift in found.starts for shift in shifts.values()) for at in starts)
    lands = found.starts | found.skipped | ({0} if nowhere else set())
    wrong = [(hex(at), hex(goes)) for at, goes in found.branches if goes not in lands]
    assert wrong == []
    return found


@settings(max_examples=60, deadline=None)
@given(NAMES, SEEDS, st.lists(st.integers(1, 900), min_size=1, max_size=3), st.sampled_from([0.0, 0.5, 0.9]))
def test_capstone_reads_every_stream_and_its_branches_land_on_starts(
    name: str, seed: int, sizes: list[int], lively: float
) -> None:
    rng = random.Random(seed)
    parts = parts_of(name, rng, tuple(sizes))
    c = executable(name, parts, nowhere=True)
    walk(c, rng, 1 << 20, lively)
    assert c.done
    judge(name, c, parts, nowhere=True)


@pytest.mark.parametrize("pick", drive.PICKS)
def test_a_long_stream_of_every_sampler(pick: drive.Pick) -> None:
    parts = [(40, 9_000, 0x401040)]
    c = executable("x86_64", parts)
    drive.draw(c, random.Random(pick), pick)
    found = judge("x86_64", c, parts)
    if pick == "uniform":
        assert len(found.branches) > 100


@settings(max_examples=40, deadline=None)
@given(NAMES, SEEDS, st.integers(0, 600), st.data())
def test_rollback_equals_replay(name: str, seed: int, steps: int, data: st.DataObject) -> None:
    rng = random.Random(seed)
    parts = parts_of(name, rng, (200, 300))
    c, fresh = executable(name, parts), executable(name, parts)
    chosen = walk(c, rng, steps, 0.6)
    kept = len(chosen) - data.draw(st.integers(0, len(chosen)))
    c.rollback(len(chosen) - kept)
    for byte in chosen[:kept]:
        fresh.advance(byte)
    same(c, fresh)
    for byte in chosen[kept:]:
        assert c.mask()[byte]
        c.advance(byte)
        fresh.advance(byte)
        same(c, fresh)


@settings(max_examples=30, deadline=None)
@given(NAMES, SEEDS, st.integers(0, 500))
def test_forks_go_their_own_ways(name: str, seed: int, steps: int) -> None:
    rng = random.Random(seed)
    parts = parts_of(name, rng, (300, 200))
    c = executable(name, parts)
    walk(c, rng, steps, 0.6)
    twin, mark = c.fork(), c.fork()
    forward = walk(twin, rng, 200, 0.6)
    same(c, mark)
    twin.rollback(len(forward))
    same(c, twin)
    c.rollback(c.position // 2)
    walk(c, rng, 300, 0.6)
    walk(mark, rng, 1 << 20, 0.6)
    judge(name, mark, parts)


@settings(max_examples=30, deadline=None)
@given(NAMES, SEEDS, st.integers(1, 400))
def test_bulk_advance_equals_single_advances(name: str, seed: int, size: int) -> None:
    rng = random.Random(seed)
    parts = parts_of(name, rng, (size, 150))
    c = executable(name, parts)
    walk(c, rng, 1 << 20, 0.6)
    data = bytearray(c.data)
    if data and rng.random() < 0.7:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    slow, taken = executable(name, parts), 0
    for byte in data:
        if not slow.mask()[byte]:
            break
        slow.advance(byte)
        taken += 1
    fast = executable(name, parts)
    assert fast.advance_many(bytes(data)) == taken
    same(fast, slow)
    pieces, at = executable(name, parts), 0
    while at < taken:
        step = rng.randrange(1, 12)
        assert pieces.advance_many(bytes(data[at : min(at + step, taken)])) == min(step, taken - at)
        at += step
    same(pieces, slow)


BRANCHES = {"x86_64": (b"\xe9", b"\xe8", b"\x0f\x84"), "i386": (b"\xe9", b"\xe8", b"\x0f\x84")}


@settings(max_examples=60, deadline=None)
@given(NAMES, SEEDS, st.booleans(), st.booleans(), st.data())
def test_the_masks_of_a_displacement_are_exact(
    name: str, seed: int, short: bool, nowhere: bool, data: st.DataObject
) -> None:
    rng = random.Random(seed)
    parts = parts_of(name, rng, data.draw(st.sampled_from([(400,), (90, 200), (3000,), (1200, 300, 50)])))
    c = executable(name, parts, nowhere=nowhere)
    walk(c, rng, data.draw(st.integers(0, parts[-1][1] - 20)), 0.5)
    opcode = b"\x74" if short else data.draw(st.sampled_from(BRANCHES[name]))
    while not c.done and not _take_whole(c, opcode, parts):
        walk(c, rng, 1, 0.0)
    assume(not c.done)
    size, end = (1, c.position + 1) if short else (4, c.position + 4)
    shift = next(address - start for start, stop, address in parts if start <= c.position < stop)
    good = _displacements(name, c, parts, size, end + shift, end, nowhere and not short)
    for k in range(size):
        prefix = int.from_bytes(c.data[c.position - k :], "little") if k else 0
        here = good[(good & ((1 << 8 * k) - 1)) == prefix]
        expected = np.zeros(257, dtype=bool)
        expected[(here >> 8 * k) & 255] = True
        assert (c.mask() == expected).all()
        c.advance(int(rng.choice(expected.nonzero()[0].tolist())))


def _take_whole(c: Constraint, opcode: bytes, parts: list[tuple[int, int, int]]) -> bool:
    """Write the opcode if an instruction begins here and has room for it."""
    twin, at = c.fork(), c.position
    if not any(start <= at < stop for start, stop, _ in parts) or twin.advance_many(opcode) < len(opcode):
        return False
    starts = set(twin.instruction_starts().tolist())
    # A place inside an instruction is no start; one where filler may stand may turn into one.
    if at not in starts or any(at < other < at + len(opcode) for other in starts):
        return False
    c.advance_many(opcode)
    return True


def _displacements(
    name: str,
    c: Constraint,
    parts: list[tuple[int, int, int]],
    size: int,
    address: int,
    end: int,
    nowhere: bool,
) -> np.ndarray:
    """Every displacement that leads somewhere, modulo 256**size, by trying every place."""
    starts = set(c.instruction_starts().tolist())
    starts |= {at + 1 for at in starts if c.data[at] == 0xF0}
    targets = [
        place + at - start
        for start, stop, place in parts
        for at in range(start, stop)
        if at >= end or at in starts
    ] + ([0] if nowhere else [])
    found = []
    for target in targets:
        distance = target - address
        if BITS[name] == 32:
            distance = (distance + (1 << 31)) % (1 << 32) - (1 << 31)
        if -(1 << 8 * size - 1) <= distance < 1 << 8 * size - 1:
            found.append(distance % (1 << 8 * size))
    return np.array(found, np.int64)


@settings(max_examples=40, deadline=None)
@given(NAMES, SEEDS, st.lists(st.integers(0, 400), min_size=1, max_size=40))
def test_starts_that_are_owed_are_kept(name: str, seed: int, places: list[int]) -> None:
    rng = random.Random(seed)
    parts = parts_of(name, rng, (200, 201))
    spots = [at + address - start for start, stop, address in parts for at in range(start, stop)]
    wanted = tuple(spots[place] for place in places)
    c = executable(name, parts, wanted=wanted)
    walk(c, rng, 1 << 20, 0.7)
    found = judge(name, c, parts)
    assert set(wanted) <= found.starts | found.skipped


def after(code: bytes, *, name: str = "x86_64", start: int = 0, room: int = 64) -> Constraint:
    c = executable(name, [(start, start + room, 0x400000 + start)])
    c.advance_many(bytes(start))
    taken = c.advance_many(code)
    assert taken == len(code), c.refusal()
    return c


def test_the_last_instruction_ends_where_the_region_does() -> None:
    c = after(b"\x90" * 60)
    assert not c.mask()[0xB8]  # mov eax, imm32 takes five bytes
    c.advance_many(b"\x90\x90\x48")
    assert c.position == 63
    assert c.mask()[:END].any()
    assert c.mask()[0x90]
    assert not c.mask()[0x89]
    c.advance(0x90)
    assert c.mask()[END]


def test_zeros_fill_up_to_an_aligned_address_after_what_does_not_go_on() -> None:
    for ends in (b"\xc3", b"\xeb\xfe", b"\x0f\x0b", b"\xe8\xfb\xff\xff\xff"):
        for pad in range(4):
            code = b"\x90" * pad + ends
            fill = -len(code) % 4
            c = after(code + bytes(fill) + b"\x55\xc3")
            assert c.instruction_starts()[-2:].tolist() == [len(code) + fill, len(code) + fill + 1]
    # Not after an instruction that goes on: there a zero is an addition's opcode.
    c = after(b"\x90\x00")
    assert not c.mask()[END]
    assert c.advance_many(b"\xc3\x90") == 2
    assert c.instruction_starts().tolist() == [0, 1, 3]
    # No branch goes to filler, nor does filler cover a place that is owed.
    c = after(b"\xc3\x00\x00\x00\x90")
    assert c.advance_many(b"\xeb\xfb") == 1
    c = after(b"\x74\x02\xc3")
    assert c.mask()[0]
    c.advance(0)
    assert not c.mask()[END]
    assert only_byte(c.mask()) is None
    c = after(b"\xc3" * 61)
    assert c.advance_many(b"\0\0\0") == 3
    assert c.mask()[END]


def test_a_branch_may_skip_a_lock_prefix() -> None:
    cmpxchg = b"\xf0\x0f\xb1\x0f"
    c = after(b"\x74\x01" + cmpxchg)
    assert c.instruction_starts().tolist() == [0, 2]
    assert c.advance_many(b"\xeb\xfb") == 2  # to the instruction behind the prefix, at 3
    # Behind any other byte, what is owed is the next instruction.
    c = after(b"\x74\x01")
    c.advance(0x90)
    assert c.advance_many(b"\xc3") == 1
    assert after(b"\x74\x01").advance_many(b"\x48\x89\xc0") == 0


def test_calls_of_undefined_weak_functions() -> None:
    c = executable("x86_64", [(0, 64, 0x400000)], nowhere=True)
    call = b"\xe8" + (-0x400005 & 0xFFFFFFFF).to_bytes(4, "little")
    assert c.advance_many(call) == 5
    assert executable("x86_64", [(0, 64, 0x400000)]).advance_many(call) < 5


@pytest.mark.parametrize(
    "code", [b"\xf4\x90", b"\x0f\x01\xd0", b"\xec", b"\xfa", b"\x0f\x30", b"\x0f\x22\xc0"]
)
def test_privileged_instructions_are_an_option(code: bytes) -> None:
    user = executable("x86_64", [(0, 64, 0x400000)])
    system = executable("x86_64", [(0, 64, 0x400000)], privileged=True)
    taken = user.advance_many(code + b"\x90" * 20)
    assert system.advance_many(code + b"\x90" * 20) == len(code) + 20
    if code[0] not in (0xF4,) and code != b"\x0f\x01\xd0":
        assert taken < len(code)
    assert user.fork().advance_many(b"\x0f\x05" if not taken else b"") in (0, 2)


def test_refusals_name_the_place_and_the_rule() -> None:
    c = after(b"\xeb")
    with pytest.raises(
        FormatError, match=r"byte 0x7f is refused: offset 0x1: code\[0\]: valid instructions up to"
    ):
        c.advance(0x7F)
    with pytest.raises(FormatError, match="the end of the file is refused"):
        c.advance(END)
    assert c.position == 1


def test_fields_and_forced_bytes_of_a_stream() -> None:
    c = after(b"\xe9\xfb\xff\xff\xff" + b"\x90" * 59)
    c.advance(END)
    spans = c.fields()
    assert [(span.start, span.end, span.path) for span in spans] == [(0, 64, "code[0]")]
    flags = c.forced_flags()
    assert flags[4]  # three bytes of the displacement leave the last one no choice
    assert spans[0].forced == int(flags[:64].sum())
    assert not flags[5:63].any()


def system_programs(count: int) -> list[Path]:
    places = [path for path in sorted(Path("/usr/bin").glob("*")) if not path.is_symlink() and path.is_file()]
    found = []
    for path in random.Random(7).sample(places, len(places)):
        if path.stat().st_size > 150_000:
            continue
        head = path.read_bytes()[:20]
        if head[:6] == b"\x7fELF\x02\x01" and head[18:20] == b"\x3e\0":
            found.append(path)
        if len(found) == count:
            break
    return found


def test_code_of_system_programs_replays() -> None:
    programs = system_programs(12)
    if not programs:
        pytest.skip("no x86-64 programs in /usr/bin")
    from elftools.elf.elffile import ELFFile

    for path in programs:
        with path.open("rb") as file:
            parts = [
                (p["p_offset"], p["p_offset"] + p["p_filesz"], p["p_vaddr"])
                for p in ELFFile(file).iter_segments()
                if p["p_type"] == "PT_LOAD" and p["p_flags"] & 1
            ]
        raw = path.read_bytes()[: parts[-1][1]]
        c = executable("x86_64", parts, nowhere=True)
        assert formats.replay(c, raw) is None, path
        judge("x86_64", c, parts, nowhere=True)


@pytest.mark.parametrize("level", ["O0", "O2", "Os"])
def test_jump_tables_and_every_optimisation_level(tmp_path: Path, level: str) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    from elftools.elf.elffile import ELFFile

    cases = "".join(f"case {i}: return x * {i * 7 + 1};" for i in range(20))
    source = tmp_path / "a.c"
    source.write_text(
        f"int f(int x) {{ switch (x) {{ {cases} }} return 0; }} int main(int c, char **v) {{ return f(c); }}"
    )
    out = tmp_path / "a.out"
    subprocess.run(["gcc", f"-{level}", str(source), "-o", str(out)], check=True, timeout=60)
    with out.open("rb") as file:
        parts = [
            (p["p_offset"], p["p_offset"] + p["p_filesz"], p["p_vaddr"])
            for p in ELFFile(file).iter_segments()
            if p["p_type"] == "PT_LOAD" and p["p_flags"] & 1
        ]
    c = executable("x86_64", parts, nowhere=True)
    assert formats.replay(c, out.read_bytes()[: parts[-1][1]]) is None


def test_lists_of_constructors_end_a_region() -> None:
    code = b"\x90" * 14 + b"\x66\x90"
    ones, zero, start = b"\xff" * 8, bytes(8), (0x400003).to_bytes(8, "little")
    data = code + ones + start + zero + ones + zero
    parts = [(0, len(data), 0x400000)]
    c = executable("x86_64", parts, lists=True)
    assert c.advance_many(data) == len(data)
    assert c.mask()[END]
    assert [field.path for field in c.fields()][:2] == ["code[0]", "code[0].list"]
    for back in range(1, len(data)):
        twin = c.fork()
        twin.rollback(back)
        for byte in data[len(data) - back :]:
            assert twin.mask()[byte]
            twin.advance(byte)
        same(twin, c)
    inside = code + ones + (0x40000F).to_bytes(8, "little")  # of the last instruction
    assert executable("x86_64", parts, lists=True).advance_many(inside) < len(inside)
    assert executable("x86_64", parts).advance_many(data) == len(code) + 1
