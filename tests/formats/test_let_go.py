"""Steps that were let go of: whoever rolls back that far, or lists the fields, finds what was there."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen import formats
from bytegen.formats import Constraint
from bytegen.formats.core.spans import chain

_SIZE = 12_000
_KINDS = (
    ("elf64-x86_64", "load", 3),
    ("elf32-i386", "code", 2),
    ("elf64-aarch64", "code", 5),
    ("pe32plus-x86_64", "load", 1),
    ("pe32-i386", "code", 4),
)


@cache
def _file(format: str, level: str, seed: int) -> bytes:
    """The one with most fields of some files drawn at random."""
    drawn = [formats.sample(format, 100 * seed + i, _SIZE, level) for i in range(12)]
    return max(drawn, key=lambda data: len(_read(format, level, data, len(data)).fields()))


def _read(format: str, level: str, data: bytes, position: int) -> Constraint:
    c = formats.constraint(format, max_bytes=_SIZE, level=level)
    assert c.advance_many(data[:position]) == position
    return c


_MOVES = st.lists(
    st.tuples(st.sampled_from(("on", "on one by one", "back", "back a little", "fork")), st.floats(0, 1)),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(_KINDS), _MOVES, st.integers(0, 3))
def test_whatever_way_leads_there_a_place_is_the_same(
    kind: tuple[str, str, int], moves: list[tuple[str, float]], other: int
) -> None:
    """Cursors that share their steps go on, back and apart; each stands as one that has read the file to there."""
    format, level, _ = kind
    data = _file(*kind)
    cursors = [formats.constraint(format, max_bytes=_SIZE, level=level)]
    for number, (move, share) in enumerate(moves):
        c = cursors[(number * other) % len(cursors)]
        to = c.position + int(share * (len(data) - c.position))
        if move == "on":
            c.advance_many(data[c.position : to])
        elif move == "on one by one":
            for byte in data[c.position : min(to, c.position + 3_000)]:
                c.advance(byte)
        elif move == "fork":
            cursors.append(c.fork())
        else:
            c.rollback(int(share * min(c.position, c.position if move == "back" else 400)))
    for c in cursors:
        fresh = _read(format, level, data, c.position)
        assert c.data == fresh.data
        assert (c.mask() == fresh.mask()).all()
        assert c.field() == fresh.field()
        assert c.free() == fresh.free()
        assert (c.instruction_starts() == fresh.instruction_starts()).all()


@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}")
def test_fields_and_forced_bytes_are_those_met_on_the_way(kind: tuple[str, str, int]) -> None:
    format, level, _ = kind
    data = _file(*kind)
    c = formats.constraint(format, max_bytes=_SIZE, level=level)
    paths, forced = [], np.zeros(len(data) + 1, dtype=bool)
    for i, byte in enumerate(data):
        paths.append(c.field())
        mask = c.mask()
        forced[i] = mask.sum() == 1 and not mask[formats.END]
        c.advance(byte)
    mask = c.mask()
    forced[-1] = mask.sum() == 1 and bool(mask[formats.END])
    found = c.fields()
    assert [span.start for span in found] == [0, *(span.end for span in found[:-1])]
    assert found[-1].end == len(data)
    assert all(paths[i] == span.path for span in found for i in range(span.start, span.end))
    assert (c.forced_flags() == forced).all()
    steps, missing = chain(c._step)
    assert missing
    assert len(steps) < 200 + len(found) / 32
    c.advance(formats.END)
    assert c.fields() == found
