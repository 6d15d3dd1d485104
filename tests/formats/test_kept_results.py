"""What is kept, or found for many values at once, is what working it out afresh gives."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
from code_streams import executable
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen.formats.code.machine import machine
from bytegen.formats.core.branches import BARRED, WordBranches, branches
from bytegen.formats.core.intset import IntSet
from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.core.pieces import Finite, Ranges, Span
from bytegen.formats.core.stream import RELATIVE
from bytegen.formats.core.written import Written
from bytegen.formats.elf.dynamic.addresses import AddressMap, Other
from bytegen.formats.elf.dynamic.symbols import RECORDS, Symbols
from bytegen.formats.elf.held import Later, Read
from bytegen.formats.elf.plan import Segment
from bytegen.formats.elf.target import X86_64
from bytegen.formats.pe.directories.memory import View
from bytegen.formats.pe.plan import Section

SEEDS = st.integers(0, 1 << 30)


def pe_view(sections: tuple[Section, ...], barred: tuple[int, int], free: int) -> View:
    directories = [(0, 0)] * 16
    directories[12] = barred
    plan = SimpleNamespace(sections=sections, base=0, directories=directories)
    return View(plan, free, free, bytearray(free))  # type: ignore[arg-type]


@settings(max_examples=80, deadline=None)
@given(SEEDS)
def test_gaps_of_a_growing_ledger(seed: int) -> None:
    rng = random.Random(seed)
    sections = tuple(Section(b"", 0x1000 * (i + 1), 300, 400 * (i + 1), 300, 0) for i in range(4))
    view = pe_view(sections, (0x2000 + 20, 60) if rng.random() < 0.5 else (0, 0), rng.randrange(900))
    ledger = Ledger(rng.randrange(1200, 2200))
    for _ in range(30):
        taken = [(region.start, region.end) for region in ledger.regions]
        start = rng.randrange(2000)
        end = min([start + rng.randrange(40), ledger.limit, *(a for a, _ in taken if a >= start)])
        if rng.random() < 0.2 and ledger.regions:  # a promise grows, shrinks or goes
            old = rng.choice(ledger.regions)
            room = min([ledger.limit, *(a for a, _ in taken if a > old.start)])
            new = old._replace(end=rng.randint(old.start, room))
            if rng.random() < 0.5:
                ledger = ledger.grown(old.start, new.end)
                continue
            kept = tuple(new if region is old else region for region in ledger.regions)
            ledger = Ledger(
                ledger.limit, kept if rng.random() < 0.8 else tuple(r for r in kept if r is not new)
            )
        elif end >= start and not any(a <= start < b for a, b in taken):
            ledger = ledger.add(Region(start, end, "x", ""))
        if rng.random() < 0.7:
            assert view.gaps(ledger) == view._gaps(ledger, False).pairs()
            places = {x for low, high in view.places(ledger, 3).tolist() for x in range(low, high + 1)}
            spans = view.spans(ledger, 3)
            assert {x for x in range(0x5000) if any(span.contains(x) for span in spans)} == places


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 70_000), st.integers(-3, 900)), max_size=6), st.sampled_from([1, 4, 256]),
       st.integers(0, 255), st.integers(0, 2), st.integers(0, 0xFFFF))  # fmt: skip
def test_ranges_are_their_spans(
    parts: list[tuple[int, int]], mod: int, rem: int, k: int, prefix: int
) -> None:
    prefix &= (1 << 8 * k) - 1
    given_ = [(low, low + size) for low, size in parts]
    ranges = Ranges(np.array(given_, np.int64).reshape(-1, 2), mod, rem)
    spans = IntSet(4, Finite(()), *(Span(low, high, mod, rem) for low, high in given_ if low <= high))
    assert (IntSet(4, ranges).mask(k, prefix) == spans.mask(k, prefix)).all()
    assert ranges.has(k, prefix) == spans.has(k, prefix)
    assert ranges.contains(prefix) == spans.contains(prefix)
    assert ranges.bounds() == spans.bounds()


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 3000), st.sampled_from([1, 2, 3, 16, 100, 256]), st.integers(0, 99),
       st.integers(0, 2), st.integers(0, 0xFFFF))  # fmt: skip
def test_the_mask_of_one_span_is_what_it_marks(
    low: int, size: int, mod: int, rem: int, k: int, prefix: int
) -> None:
    span, prefix = Span(low, low + size, mod, rem), prefix & (1 << 8 * k) - 1
    assert (IntSet(4, span).mask(k, prefix) == IntSet(4, Finite(()), span).mask(k, prefix)).all()


@settings(max_examples=80, deadline=None)
@given(SEEDS)
def test_seats_hold_what_their_offsets_say(seed: int) -> None:
    rng = random.Random(seed)
    low = rng.randrange(0, 5000)
    shift = rng.randrange(-2000, 4000)
    seat = rng.choice([
        Read(Segment(rng.randrange(500), 0x1000, rng.randrange(900), 900, 4)),
        Later(low, low + rng.randrange(9000), shift, shift + rng.choice([0, 0, 4096, 9000]), 4096, 3000),
    ])  # fmt: skip
    offsets = np.array([rng.randrange(3000) for _ in range(60)], np.int64)
    sizes = np.array([rng.randrange(600) for _ in range(60)], np.int64)
    for offset, size, held in zip(offsets.tolist(), sizes.tolist(), seat.hold(offsets, sizes), strict=True):
        found = seat.offsets(size)
        assert held == (found is not None and found[0] <= offset <= found[1])


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_symbols_exist_where_a_table_has_them(seed: int) -> None:
    rng = random.Random(seed)
    size = RECORDS[64].itemsize
    raw = bytearray(rng.choice((0, 0, 0, 1, 18)) for _ in range(size * 12 + rng.randrange(9)))
    for _ in range(rng.randrange(4)):
        start = rng.randrange(0, len(raw) - size, 8)
        raw[start : start + size] = bytes(size)
    loads = (Segment(0, 0x1000, len(raw) // 2, len(raw) // 2, 4),
             Segment(len(raw) // 2, 0x5000, len(raw) // 2, len(raw) // 2, 4))  # fmt: skip
    symbols = Symbols(bytes(raw), AddressMap(loads, len(raw)), X86_64, None)
    for count in range(1, 5):
        for names in (1, 2, 300, 0x1212, 1 << 32):
            tables = [symbols.tables(low, high, count, names) for low, high, _ in symbols.map.ranges()]
            assert symbols.exist(count, names) == any(map(len, tables))


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_addresses_ahead_that_no_other_segment_speaks_of(seed: int) -> None:
    rng = random.Random(seed)
    loads = tuple(
        Segment(i * 100, 0x1000 * i + i * 100, rng.randrange(120), 200, rng.choice((4, 6))) for i in range(3)
    )
    others = []
    for _ in range(rng.randrange(4)):
        address = rng.randrange(0x2200)
        others.append(
            Other(0, address, 8, address + rng.randrange(1, 90), max(0, address - rng.randrange(30)))
        )
    map_ = AddressMap(loads, 40, tuple(others))
    ledger = Ledger(260, (Region(60, 70, "x", ""), Region(90, 90, "x", ""), Region(130, 150, "x", "")))
    plan = SimpleNamespace(ledger=ledger)
    least, align = rng.randrange(1, 20), rng.choice((1, 4, 8))
    for plain in (False, True):
        found = IntSet(8, *map_.set_ahead(plan, 40, least, align, plain))  # type: ignore[arg-type]
        good = set()
        for low, high in ledger.gaps(40):
            for load in loads:
                end = load.offset + load.filesz - plain  # LIEF reads no hash table up to the end
                first, last = max(low, load.offset), min(high, end) - least
                for offset in range(first, last + 1):
                    x = offset + load.shift
                    if offset % align == 0 and not (plain and any(o.low <= x < o.stop for o in others)):
                        good.add(x)
        assert {x for x in range(0x2400) if found.contains(x)} == good


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_last_bytes_of_words_are_judged_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    c = executable("aarch64", [(0, 2000, 0x10000)])
    while c.position < 400:
        choices = c.mask()[:256].nonzero()[0].tolist()
        lively = [byte for byte in choices if byte in (0x14, 0x17, 0x36, 0x54, 0x94, 0xB4)]
        c.advance(rng.choice(lively or choices))
        if c.position % 4 == 3:
            targets, step, data = c._stream.targets, c._stream, c._data
            low = int.from_bytes(c.data[-3:], "little")
            used = step.machine
            assert isinstance(targets, WordBranches)
            for byte in range(256):
                after = used.table[c._state << 8 | byte]
                good = after > 0
                if good and used.traits[after] & RELATIVE:
                    good = targets.land(step, c._begin, low | byte << 24, data) != BARRED
                assert c.mask()[byte] == good


@pytest.mark.parametrize("opcode", [b"\x74", b"\xe8", b"\x0f\x84"])
def test_masks_of_branches_are_whole_at_the_end_of_a_block_of_the_bitmap(opcode: bytes) -> None:
    for nops in range(4088, 4100):
        c = executable("x86_64", [(0, 9000, 0x1000)])
        code = bytes([0x90]) * nops + opcode
        assert c.advance_many(code) == len(code)
        for _ in range(3):
            assert c.mask().shape == (257,)
            assert c.bitmask().shape == (9,)
            c.advance(int(c.mask()[:256].nonzero()[0][-1]))


def test_branches_far_behind_and_few() -> None:
    used = machine("x86_64")
    data = Written(bytes(300_000))
    starts = sorted(random.Random(3).sample(range(299_990), 90_000))
    for start in starts:
        data.start(start)
    step = executable("x86_64", [(0, 400_000, 0x1000)])._step
    targets = branches(used, ((0, 400_000, 0x1000),), 64)  # type: ignore[arg-type]
    among, state = (
        set(starts),
        next(s for s in range(used.plain, used.accepted) if used.displacement_left[s] == 4),
    )
    states = {4: state}
    for left in (3, 2, 1):
        states[left] = used.table[states[left + 1] << 8]
    end, field = len(data) + 4, len(data)
    rng = random.Random(4)
    for _ in range(60):
        target = rng.choice(starts) if rng.random() < 0.7 else rng.randrange(end, 400_000)
        raw = (target - end).to_bytes(4, "little", signed=True)
        for k in range(1, 4):
            mask = targets.mask(step, states[4 - k], field - 1, field, _with(data, raw[:k]))  # type: ignore[arg-type]
            assert mask[raw[k]]
            other = rng.randrange(256)
            last = int.from_bytes(raw[:3] + bytes([other]), "little", signed=True) + end
            if k == 3:
                assert mask[other] == (last in among or end <= last < 400_000)


def _with(data: Written, more: bytes) -> Written:
    twin = data.twin()
    twin += more
    return twin
