"""Drafts by multi-token prediction heads: the same files, fewer steps, and guesses that keep to the constraint."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from drawn_bytes import check_frequencies, stopped
from hypothesis import given, settings
from hypothesis import strategies as st

import bytegen
from bytegen import cpu, formats, tokenizer
from bytegen.config import PRESETS
from bytegen.decoding import Engine, NGrams, Sampling, Sequence, Timing
from bytegen.decoding.drafts import Lookup
from bytegen.decoding.guesses import LEAST_LOG_CHANCE, MOST_LEAD, REST, SOURCES, SURE, Guesses, Trust, sources
from bytegen.decoding.runners import Expected
from bytegen.errors import UserError
from bytegen.model import ByteLM

FORMAT = "elf64-x86_64"
TAG = tokenizer.format_tag(FORMAT)
K = 4


@pytest.fixture(scope="module")
def lm() -> ByteLM:
    """Random weights and heads, with windows and buffers so small that rings wrap within a file.

    By the C decoder, which gives equal bits whatever the batch; without one in float64, where rounding moves no draw.
    """
    torch.manual_seed(1)
    made = ByteLM(dataclasses.replace(PRESETS["nano"], window=24, pattern="LLG", mtp_heads=K)).eval()
    with torch.no_grad():
        for p in made.mtp.parameters():
            p.normal_(std=0.3)
    return made if cpu.available(made) else made.double()


def sequence(index: int, seed: int, *, temperature: float = 1.0, max_bytes: int = 220) -> Sequence:
    constraint = formats.constraint(FORMAT, max_bytes=max_bytes, static=True)
    head = tokenizer.encode_prompt("a file", TAG)
    return Sequence(index, head, constraint, Sampling(temperature=temperature), seed)


def heads_of(logs: np.ndarray) -> Expected:
    """What heads of these log probabilities [K, 257] say."""
    return Expected(logs.argmax(1).tolist(), logs.max(1).tolist(), logs)


class Told:
    """A runner whose heads know the file of each row: what it writes is asked of the real one."""

    def __init__(self, engine: Engine, files: dict[int, bytes], wrong_at: int | None = None) -> None:
        self._real, self._engine, self._files, self._wrong_at = engine._runner, engine, files, wrong_at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def ahead(self, places: list[tuple[int, int]]) -> list[Expected]:
        told = np.full((len(places), K, 257), math.log(1e-6), np.float32)
        for i, (index, offset) in enumerate(places):
            row = self._engine._rows[index]
            # Where the byte that was just drawn stands: behind the bytes that were read up to the place.
            file = self._files[row.sequence.index]
            read = self._engine._runner.positions[index] + offset + 1 - len(row.sequence.prompt_ids)
            for k in range(1, K + 1):
                byte = file[read + k] if read + k < len(file) else tokenizer.END_OF_FILE
                told[i, k - 1, (byte + 1) % 256 if k == self._wrong_at else byte] = 0.0
        return [heads_of(logs) for logs in told]

    @property
    def positions(self) -> list[int]:
        cache = self._real._cache
        found = cache.positions
        return found if isinstance(found, list) else found.tolist()


def engine_told(lm: ByteLM, files: dict[int, bytes], wrong_at: int | None = None, **options: Any) -> Engine:
    engine = Engine(lm, max_length=400, drafts=("heads",), **options)
    engine._runner = Told(engine, files, wrong_at)
    return engine


@settings(max_examples=15, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=4), batch_size=st.integers(1, 3),
    chunk=st.sampled_from([3, 8, 16]), temperature=st.sampled_from([0.0, 0.5, 1.0]),
    named=st.sets(st.sampled_from(SOURCES)), told=st.sampled_from(["not", "right", "wrong"]),
    eager=st.booleans(),
)  # fmt: skip
def test_heads_change_no_byte(
    lm: ByteLM, seeds: list[int], batch_size: int, chunk: int, temperature: float, named: set[str], told: str,
    eager: bool,
) -> None:  # fmt: skip
    def sequences() -> list[Sequence]:
        return [sequence(i, seed, temperature=temperature) for i, seed in enumerate(seeds)]

    plain = {s.index: s for s in Engine(lm, max_length=400, chunk=16, drafts=False).run(sequences())}
    files = {i: bytes(s.constraint.data) for i, s in plain.items()}
    options: dict[str, Any] = {"chunk": chunk, "batch_size": batch_size}
    if told == "not":
        table = NGrams.learn(list(files.values()), least=1)
        engine = Engine(lm, max_length=400, drafts=named, table=table, **options)
    else:
        engine = engine_told(lm, files, 2 if told == "wrong" else None, **options)
    engine._runner.eager = eager
    for s in engine.run(sequences()):
        alone = plain[s.index]
        assert bytes(s.constraint.data) == files[s.index]
        assert (s.sampled, s.forced) == (alone.sampled, alone.forced)
        assert s.logprob == pytest.approx(alone.logprob, abs=1e-9)
        assert s.removed == pytest.approx(alone.removed, abs=1e-9)
    timing = engine.timing
    assert sum(timing.accepted_from.values()) == timing.accepted <= timing.drafted
    assert told != "not" or set(timing.accepted_from) <= named


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_heads_that_know_the_file_are_never_wrong_and_draft_as_many_bytes_as_there_are_heads(
    lm: ByteLM, backend: str
) -> None:
    """So the k-th head's guess stands k places behind the byte that was drawn, forced runs or not."""
    exact = copy.deepcopy(lm).double() if backend == "torch" else lm
    plain = Engine(exact, max_length=400, drafts=False, backend=backend)
    files = {s.index: bytes(s.constraint.data) for s in plain.run(sequence(i, i) for i in range(2))}
    engine = engine_told(exact, files, backend=backend, batch_size=2)
    for s in engine.run(sequence(i, i) for i in range(2)):
        assert bytes(s.constraint.data) == files[s.index]
    timing = engine.timing
    assert timing.accepted == timing.drafted > 0
    # A turn brings the byte drawn, what is forced behind it, and the draft: together 1 + K, but for the first turn,
    # the end, and bytes that the constraint forces beyond.
    assert timing.turns <= math.ceil(max(map(len, files.values())) / (1 + K)) * 2 + 2
    # The second head wrong: nothing behind its guess is kept.
    engine = engine_told(exact, files, wrong_at=2, backend=backend, batch_size=2)
    for s in engine.run(sequence(i, i) for i in range(2)):
        assert bytes(s.constraint.data) == files[s.index]
    assert engine.timing.accepted < engine.timing.drafted


@torch.no_grad()
def test_what_heads_are_asked_after_is_the_hidden_state_that_the_last_byte_was_drawn_from(lm: ByteLM) -> None:
    exact = copy.deepcopy(lm).double()
    for made, backend in ((lm, "auto"), (exact, "torch")):
        engine = Engine(made, max_length=400, backend=backend, drafts=("heads",), chunk=16)
        s = sequence(0, 3)
        engine.submit(s)
        for _ in range(12):
            engine.turn()
            row = engine._rows[0]
            assert row is not None
            # All ids up to the byte that was drawn last, which is the first that is pending.
            ids = [*s.prompt_ids, *s.constraint.data]
            ids = ids[: len(ids) - len(s.pending)]
            if row.expected.best:
                hidden = exact.hidden(torch.tensor([ids]))[0, -1]
                judge = torch.log_softmax(exact.mtp_logits(hidden)[:, : tokenizer.N_CHOICES], -1).numpy()
                best, log, logs = row.expected
                np.testing.assert_allclose(logs, judge, atol=0.02 if made is lm else 1e-5)
                assert best == logs.argmax(1).tolist()
                assert log == logs.max(1).tolist()


@torch.no_grad()
def test_draws_after_a_guess_of_the_heads_have_the_masked_distribution(lm: ByteLM) -> None:
    """The choice behind a first that was guessed: 3,000 seeds against the model's own probabilities."""
    count, temperature = 3000, 0.12
    first = sequence(0, 0)
    c = first.constraint
    start = c.forced()
    c.advance_many(start)
    head = [*first.prompt_ids, *start]

    def masked(ids: list[int], mask: np.ndarray) -> np.ndarray:
        logits = lm(torch.tensor([ids]))[0, -1, : tokenizer.N_CHOICES] / temperature
        return torch.softmax(logits.masked_fill(~torch.from_numpy(mask.copy()), float("-inf")), 0).numpy()

    # Three bytes that the model finds likely, which heads are told to expect; the choice behind them is looked at.
    text = bytearray(start)
    for _ in range(3):
        byte = int(masked([*head, *text[len(start) :]], c.mask())[:256].argmax())
        c.advance(byte)
        run = c.forced()
        c.advance_many(run)
        text += bytes((byte,)) + run
    q = masked([*head, *text[len(start) :]], c.mask())
    seen: Counter[int] = Counter()
    engine = engine_told(lm, dict.fromkeys(range(count), bytes(text) + bytes(8)), batch_size=64)
    asked = (sequence(i, i, temperature=temperature) for i in range(count))
    for s in engine.run(stopped(s, len(text) + 1) for s in asked):
        data = bytes(s.constraint.data)
        if data.startswith(text) and len(data) > len(text):
            seen[data[len(text)]] += 1
    total = sum(seen.values())
    assert engine.timing.accepted >= 2 * total > 300
    check_frequencies(seen, q, least=8)


# Who guesses what


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.data())
def test_heads_guess_the_likeliest_byte_that_the_mask_allows_while_the_draft_is_likely(
    k: int, data: st.DataObject
) -> None:
    draw = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    expected = np.log(draw.dirichlet(np.full(257, 0.01), size=k) + 1e-9).astype(np.float32)
    guesses = Guesses(None, heads_of(expected), Trust())
    chance = 1.0
    for at in range(k + 1):
        mask = draw.random(257) < data.draw(st.sampled_from([0.02, 0.5, 1.0]))
        mask[draw.integers(256)] = True
        found = guesses.guess(mask)
        if at == k:
            assert found is None
            break
        p = np.exp(expected[at].astype(np.float64))
        best = max((i for i in range(257) if mask[i]), key=lambda i: p[i])
        chance *= p[best] / (1.0 if mask[int(p.argmax())] else p[mask].sum())
        if abs(math.log(chance) - LEAST_LOG_CHANCE) < 1e-3:
            break
        if best == tokenizer.END_OF_FILE or math.log(chance) < LEAST_LOG_CHANCE:
            assert found is None
            break
        assert found == (best, "heads")
        guesses.take(bytes((best,)))


def certain(*choices: int) -> Expected:
    """Heads that are sure of these choices."""
    expected = np.full((len(choices), 257), -20.0, np.float32)
    expected[np.arange(len(choices)), choices] = 0.0
    return heads_of(expected)


ANY = np.ones(257, bool)


def guessed(guesses: Guesses, count: int) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    while len(found) < count and (one := guesses.guess(ANY)) is not None:
        found.append(one)
        guesses.take(bytes(one[:1]))
    return found


def test_who_was_right_at_the_first_byte_leads() -> None:
    text = bytes(range(40))
    lookup = Lookup(text + text[:8])  # n-grams expect 8, 9, 10 ...
    trust = Trust()
    by_heads = [(7, "heads"), (7, "heads")]
    assert guessed(Guesses(lookup.copying(), certain(7, 7), trust), 9) == by_heads
    for _ in range(MOST_LEAD + 1):
        guesses = Guesses(lookup.copying(), certain(7, 7), trust)
        guesses.guess(ANY)
        assert guesses.first == (7, 8)
        trust.judge_first(8, *guesses.first)
    by_copies = [(8 + i, "file") for i in range(8)]
    assert guessed(Guesses(lookup.copying(), certain(7, 7), trust), 9) == by_copies
    trust.judge_first(7, 7, 8)
    assert guessed(Guesses(lookup.copying(), certain(7, 7), trust), 9) == by_heads
    # Both right, or both wrong: nothing changes.
    for byte in (7, 9):
        trust.judge_first(byte, 7, 7)
        assert guessed(Guesses(lookup.copying(), certain(7, 7), trust), 9) == by_heads


def test_n_grams_that_are_always_right_go_on_behind_the_heads() -> None:
    text = bytes(range(100))
    lookup = Lookup(text + text[:8])
    trust = Trust()
    for _ in range(SURE):
        assert len(guessed(Guesses(lookup.copying(), certain(8, 9), trust), 99)) == 2
        trust.judge_first(8, 8, 8)
    found = guessed(Guesses(lookup.copying(), certain(8, 9), trust), 12)
    assert found == [(8, "heads"), (9, "heads"), *((i, "file") for i in range(10, 20))]
    trust.judge_first(8, 8, 200)
    assert len(guessed(Guesses(lookup.copying(), certain(8, 9), trust), 99)) == 2


def test_where_steps_cost_and_bytes_do_not_n_grams_always_go_on_behind_the_heads() -> None:
    text = bytes(range(100))
    lookup = Lookup(text + text[:8])
    found = guessed(Guesses(lookup.copying(), certain(8, 9), Trust(eager=True)), 12)
    assert found == [(8, "heads"), (9, "heads"), *((i, "file") for i in range(10, 20))]
    assert guessed(Guesses(None, certain(8, 9), Trust(eager=True)), 12) == found[:2]


def test_bytes_that_are_known_when_the_draft_begins_are_heads_left_out() -> None:
    found = guessed(Guesses(None, certain(7, 6, 5, 4), Trust(), known=3), 9)
    assert found == [(5, "heads"), (4, "heads")]
    assert guessed(Guesses(None, certain(7, 6), Trust(), known=5), 9) == []


def test_heads_that_are_wrong_more_often_than_right_are_left_alone_and_asked_now_and_then() -> None:
    trust = Trust()
    asked = 0
    for _ in range(MOST_LEAD + 1):
        assert trust.asks_heads()
        trust.judge_first(1, 2, None)
    for turn in range(3 * REST + 3):
        assert guessed(Guesses(None, certain(7), trust), 9) == []
        if trust.asks_heads():
            asked += 1
            assert turn % (REST + 1) == REST
            trust.judge_first(1, 2, None)
    assert asked == 3
    trust.judge_first(1, 1, None)
    assert trust.asks_heads()
    assert guessed(Guesses(None, certain(7), trust), 9) == [(7, "heads")]


def test_heads_that_are_always_wrong_cost_little(lm: ByteLM) -> None:
    plain = Engine(lm, max_length=400, drafts=False)
    (alone,) = plain.run([sequence(0, 3)])
    file = bytes(alone.constraint.data)
    engine = engine_told(lm, {0: bytes(byte ^ 1 for byte in file)})
    (s,) = engine.run([sequence(0, 3)])
    assert bytes(s.constraint.data) == file
    assert engine.timing.drafted < 0.5 * engine.timing.turns


def test_heads_fill_in_where_n_grams_that_lead_know_nothing() -> None:
    trust = Trust()
    for _ in range(MOST_LEAD + 1):
        trust.judge_first(1, 2, 1)
    trust.judge_first(1, 1, 1)
    assert not trust.heads_lead
    lookup = Lookup(b"nothing comes twice")
    assert guessed(Guesses(lookup.copying(), certain(7, 6), trust), 9) == [(7, "heads"), (6, "heads")]


def test_without_heads_n_grams_guess_and_their_reach_follows_what_was_right() -> None:
    text = bytes(range(200))
    lookup = Lookup(text + text[:8])
    trust = Trust()
    assert len(guessed(Guesses(lookup.copying(), None, trust), 99)) == 8
    trust.judge_draft(8, 8, "")
    assert len(guessed(Guesses(lookup.copying(), None, trust), 99)) == 16
    trust.judge_draft(16, 5, "file")
    assert len(guessed(Guesses(lookup.copying(), None, trust), 99)) == 5
    trust.judge_draft(5, 0, "heads")  # not the n-grams' fault
    assert len(guessed(Guesses(lookup.copying(), None, trust), 99)) == 5
    trust.judge_draft(5, 0, "table")
    assert len(guessed(Guesses(lookup.copying(), None, trust), 99)) == 4


def test_sources_are_named_and_an_unknown_one_is_refused_in_one_line(lm: ByteLM) -> None:
    assert sources(True) == set(SOURCES)
    assert sources(False) == sources(()) == set()
    assert sources("heads") == {"heads"}
    with pytest.raises(UserError, match="'oracle'; there are: file, table, heads"):
        bytegen.generate(lm, "a file", drafts=("oracle",))


@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_accounts_of_generate_say_where_right_guesses_came_from(lm: ByteLM, batch_size: int) -> None:
    timing = Timing()
    options = {"max_bytes": 220, "temperature": 0.5}
    some = {"batch_size": batch_size, "drafts": ("heads", "file"), "timing": timing}
    made = bytegen.generate_many(lm, ["a file"] * 8, **options, **some)
    alone = bytegen.generate_many(lm, ["a file"] * 8, **options, drafts=False)
    assert [o.data for o in made] == [o.data for o in alone]
    assert timing.accepted == sum(timing.accepted_from.values())
    assert set(timing.accepted_from) <= {"heads", "file"}
