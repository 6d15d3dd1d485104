"""What is found in many bytes at once is what is found byte by byte, and what is kept from before is what is new."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.elf.dynamic.addresses import AddressMap
from bytegen.formats.elf.dynamic.relocations import run_starts
from bytegen.formats.elf.plan import Segment
from bytegen.formats.pe.directories import arm64_unwind
from bytegen.formats.pe.directories.delay_tables import written_names
from bytegen.formats.pe.directories.memory import Mapping, View
from bytegen.formats.pe.directories.thunks import written_name
from bytegen.formats.pe.plan import Section

_LIMIT = 600


@st.composite
def _views(draw: st.DrawFn, letters: st.SearchStrategy[int]) -> View:
    """Two sections, of which some bytes are written, and address tables that nothing lies in."""
    raw = bytes(draw(st.lists(letters, max_size=400)))
    first, second = draw(st.integers(0, 9)), draw(st.integers(210, 215))
    sections = (
        Section(b"a", 0x1000 + draw(st.integers(0, 8)), draw(st.integers(0, 200)), first, 200, 0),
        Section(b"b", 0x2000, draw(st.integers(1, 380)), second, 300, 0),
    )
    low = draw(st.integers(0, 400))
    view: View = object.__new__(View)
    view.map = Mapping(sections)
    view.raw, view.here, view.free, view.stop = raw, len(raw), len(raw), draw(st.integers(300, 900))
    view.barred = draw(st.sampled_from(((0, 0), (low, low + 40))))
    view._memo = {}
    return view


def _mapped(view: View) -> list[int]:
    return [x for start, _, size in view.map.spans for x in range(start, start + size)]


@settings(deadline=None)
@given(_views(st.sampled_from((0, 0, 0, 1, 0x20, 0x10, 0x40, 0xFF))))
def test_unwind_records_of_arm64(view: View) -> None:
    found = sorted(int(x) for piece in arm64_unwind.records(view) for x in piece.members())
    assert found == [x for x in _mapped(view) if arm64_unwind.is_written(view, x)]


@settings(deadline=None)
@given(_views(st.sampled_from((0, 0, *b"abcXYZ_"))))
def test_names_of_functions(view: View) -> None:
    assert written_names(view).tolist() == [x for x in _mapped(view) if written_name(view, x) is not None]


_PROMISES = st.lists(st.tuples(st.integers(0, _LIMIT), st.integers(1, 30)), max_size=25)


@settings(deadline=None)
@given(_views(st.just(0)), _PROMISES, st.integers(1, 40), st.integers(0, 60))
def test_room_between_promises(view: View, promises: list[tuple[int, int]], least: int, need: int) -> None:
    """Against every address, after each promise, with the gaps kept from the ledger before and without."""
    ledger = Ledger(_LIMIT)
    for start, size in [(-1, 0), *promises]:
        if start >= 0 and all(r.end <= start or start + size <= r.start for r in ledger.regions):
            ledger = ledger.add(Region(start, start + size, "some", ""))
        kept, view._memo["gaps"] = view.gaps(ledger), None
        assert kept == view.gaps(ledger)
    ahead = {x: view.ahead(ledger, x) for x in _mapped(view)}
    places = {x for low, high in view.places(ledger, least).tolist() for x in range(low, high + 1)}
    assert places == {x for x, room in ahead.items() if room >= least}
    gaps = [(low + view.map.address(low) - low, high - low) for low, high in view.gaps(ledger)]
    expected = set()
    for number, (address, size) in enumerate(gaps):
        others = max((other for i, (_, other) in enumerate(gaps) if i != number), default=0)
        for x in range(address, address + size - least + 1):
            if max(others, x - address, address + size - x - least) >= need:
                expected.add(x)
    assert {x for x in ahead if view.fits(ledger, x, least, need)} == expected
    found = {x for piece in view.spans(ledger, least, need) for x in range(0x3000) if piece.contains(x)}
    assert found == expected


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=80), st.integers(1, 6))
def test_runs_of_good_records(good: list[bool], count: int) -> None:
    bad = np.append(np.flatnonzero(~np.array(good, dtype=bool)), len(good))
    expected = [i for i in range(len(good) - count + 1) if all(good[i : i + count])]
    assert run_starts(bad, count).tolist() == expected


_TOP = 1 << 64
_SEGMENTS = st.lists(
    st.tuples(st.one_of(st.integers(0, 200), st.integers(_TOP - 200, _TOP - 50)), st.integers(0, 50)),
    max_size=6,
)


@settings(deadline=None)
@given(_SEGMENTS, st.integers(1, 20))
def test_addresses_in_memory(segments: list[tuple[int, int]], size: int) -> None:
    map = AddressMap(tuple(Segment(0, address, 0, memory, 4) for address, memory in segments), 0)
    asked = [*range(300), *range(_TOP - 260, _TOP)]
    found = map.in_memory(np.array(asked, np.uint64), size)
    expected = [any(a <= x and x + size <= a + memory for a, memory in segments) for x in asked]
    assert found.tolist() == expected
