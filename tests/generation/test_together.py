"""Batches in groups: the same files in any number of threads, errors come to the caller, and no thread stays behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen import cpu, formats, tokenizer
from bytegen.decoding import Sampling, Sequence, Timing, decode
from bytegen.decoding.runners import groups

FORMAT = "elf64-x86_64"


@pytest.fixture(scope="module")
def lm() -> cpu.LightLM:
    found = cpu.LightLM.load()
    if found is None:
        pytest.skip("the C decoder was not compiled when bytegen was installed")
    return found


def sequences(count: int, told: list[int] | None = None) -> Iterator[Sequence]:
    """Prompts of several programs, made one by one; `told` hears of each."""
    start = formats.constraint(FORMAT, max_bytes=300, static=True)
    for i in range(count):
        if told is not None:
            told.append(i)
        head = tokenizer.encode_prompt(f"count from {i} to 9", tokenizer.format_tag(FORMAT))
        yield Sequence(i, head, start.fork(), Sampling(temperature=1.0), seed=i)


def files(lm: cpu.LightLM, count: int, threads: int, **options: Any) -> tuple[dict[int, bytes], Timing]:
    timing = Timing()
    with mock.patch("bytegen.cpu.threads", return_value=threads):
        found = decode(
            lm, sequences(count), lambda s: (s.index, bytes(s.constraint.data)), timing=timing, max_length=400,
            table=lm.draft_table, **options,
        )  # fmt: skip
        return dict(found), timing


@settings(max_examples=3, deadline=None)
@given(
    count=st.integers(1, 9),
    threads=st.integers(2, 3),
    batch_size=st.sampled_from([8, 12]),
    drafts=st.booleans(),
)
def test_groups_change_no_byte(
    lm: cpu.LightLM, count: int, threads: int, batch_size: int, drafts: bool
) -> None:
    together, timing = files(lm, count, threads, batch_size=batch_size, drafts=drafts)
    assert timing.groups == min(threads, batch_size // 4)
    alone, timing = files(lm, count, 1, batch_size=2)
    assert timing.groups == 1
    assert together == alone
    assert set(together) == set(range(count))


def test_caches_are_those_of_all_groups(lm: cpu.LightLM) -> None:
    """Two groups of equal sequences hold twice what one of them does alone."""
    both, one = (files(lm, count, threads, batch_size=8)[1] for count, threads in ((8, 2), (4, 1)))
    assert (both.groups, one.groups) == (2, 1)
    assert both.cache_bytes == pytest.approx(2 * one.cache_bytes, rel=0.3)
    timing = Timing()
    for group, size in ((1, 5), (2, 7), (1, 3)):
        timing.note_caches(group, size)
    assert timing.cache_bytes == 12


def test_bytes_are_told_by_one_thread_at_a_time(lm: cpu.LightLM) -> None:
    told: dict[int, bytes] = {}
    inside, most, who = [0], [0], set[int]()

    def on_bytes(row: Sequence, new: bytes) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        told[row.index] = told.get(row.index, b"") + new
        who.add(threading.get_ident())
        inside[0] -= 1

    found, _ = files(lm, 8, 2, batch_size=8, on_bytes=on_bytes)
    assert told == found
    assert most == [1]
    assert len(who) == 2


def test_an_error_in_a_thread_is_the_callers_and_ends_the_others(lm: cpu.LightLM) -> None:
    def finish(sequence: Sequence) -> int:
        if sequence.index == 1:
            raise ArithmeticError("of mine")
        return sequence.index

    before = threading.active_count()
    with (
        mock.patch("bytegen.cpu.threads", return_value=2),
        pytest.raises(ArithmeticError, match="of mine"),
    ):
        list(decode(lm, sequences(12), finish, batch_size=8, max_length=400))
    assert threading.active_count() == before


def test_whoever_stops_listening_stops_the_threads(lm: cpu.LightLM) -> None:
    made: list[int] = []
    before = threading.active_count()
    with mock.patch("bytegen.cpu.threads", return_value=2):
        found = decode(lm, sequences(100, made), lambda s: s.index, batch_size=8, max_length=400)
        next(found)
        found.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert len(made) < 100


def test_small_batches_stay_together(lm: cpu.LightLM) -> None:
    with mock.patch("bytegen.cpu.threads", return_value=2):
        assert [groups(lm, "auto", size) for size in (1, 4, 7, 8, 100)] == [1, 1, 1, 2, 2]
