"""What plans share with those before them: sequences that grow, ledgers of promises."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen.formats.core.grown import Grown
from bytegen.formats.core.ledger import Ledger, Region


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers()), max_size=60))
def test_a_sequence_is_what_it_was_whatever_grows_from_it(steps: list[tuple[int, int]]) -> None:
    made: list[tuple[Grown[int], list[int]]] = [(Grown(), [])]
    for parent, item in steps:
        sequence, items = made[parent % len(made)]
        made.append((sequence.with_item(item), [*items, item]))
    for sequence, items in made:
        assert list(sequence) == items
        assert len(sequence) == len(items)
        assert [sequence[i] for i in range(-len(items), len(items))] == items + items
        assert sequence[1:] == items[1:]
        with pytest.raises(IndexError):
            sequence[len(items)]


def _gaps(regions: list[Region], limit: int, position: int) -> list[tuple[int, int]]:
    taken = {x for region in regions for x in range(region.start, region.end)}
    free = [x for x in range(position, limit) if x not in taken]
    runs = itertools.groupby(enumerate(free), key=lambda pair: pair[1] - pair[0])
    found = []
    for _, run in runs:
        places = [x for _, x in run]
        found.append((places[0], places[-1] + 1))
    return found


_LIMIT = 1200
_CHANGES = st.lists(
    st.tuples(
        st.sampled_from(("add", "add", "add", "drop", "grow")), st.integers(0, _LIMIT - 1), st.integers(1, 6)
    ),
    max_size=300,
)


@settings(deadline=None)
@given(_CHANGES, st.integers(0, _LIMIT), st.integers(0, 20))
def test_a_ledger_is_a_sorted_list_of_its_promises(
    changes: list[tuple[str, int, int]], position: int, back: int
) -> None:
    """Against a plain list, with the ledgers before it unchanged."""
    ledger, regions = Ledger(_LIMIT), list[Region]()
    states = [(ledger, regions)]
    for what, start, size in changes:
        following = next((r for r in regions if r.start >= start), None)
        if what == "add":
            end = min(start + size, _LIMIT)
            if any(r.start < end and start < r.end for r in regions):
                continue
            region = Region(start, end, f"kind {size}", "")
            ledger, regions = ledger.add(region), sorted([*regions, region])
            assert ledger.more is not None
            assert ledger.more[1] is region
        elif following is not None and what == "drop":
            ledger = ledger.dropped(following)
            regions = [r for r in regions if r is not following]
        elif following is not None:
            stop = next((r.start for r in regions if r.start > following.start), _LIMIT)
            end = min(following.end + size, stop)
            ledger = ledger.grown(following.start, end)
            longer = ledger.at(following.start, following.kind)
            assert longer == following._replace(end=end)
            regions = [longer if r is following else r for r in regions]
        states.append((ledger, regions))
    for ledger, regions in (states[-1], states[max(0, len(states) - 1 - back)]):
        assert list(ledger.regions) == regions
        assert list(ledger.starting(position)) == [r for r in regions if r.start >= position]
        assert ledger.after(position) == next((r for r in regions if r.start >= position), None)
        assert ledger.before(position) == next((r for r in regions[::-1] if r.start < position), None)
        assert ledger.gaps(position) == _gaps(regions, _LIMIT, position)
        rooms = dict(_gaps(regions, _LIMIT, position))
        for start in {position, *rooms, *(r.start for r in regions), _LIMIT - 1}:
            here = next((high - start for low, high in rooms.items() if low <= start < high), 0)
            assert ledger.room(start, position) == here
        assert ledger.end() == (regions[-1].end if regions else 0)
        kept = ledger.where(lambda region: region.start % 2 == 0)
        assert list(kept.regions) == [r for r in regions if r.start % 2 == 0]
        assert ledger.where(lambda region: True) is ledger
        for region in regions[:: max(1, len(regions) // 8)]:
            assert ledger.at(region.start, region.kind) == region
            assert ledger.at(region.start, "another") is None


_CHAIN = """
from bytegen.formats.core.intset import exactly
from bytegen.formats.core.steps import FreeStep, IntStep
last = None
for i in range(1_000_000):
    made = IntStep(i, 1, exactly(1, 0), "", "", None) if i % 2 else FreeStep(i, i + 1, None, "", "", None)
    made.parent, last = last, made
del made, last
print("freed")
"""


def test_a_file_of_a_million_steps_is_let_go() -> None:
    """A process that dies of it is another one."""
    done = subprocess.run([sys.executable, "-c", _CHAIN], capture_output=True, text=True, check=False)
    assert done.stdout == "freed\n", (done.returncode, done.stderr[-500:])
