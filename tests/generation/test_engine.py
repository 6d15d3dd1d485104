"""The engine: sequences join, leave and are cancelled; drafts change the time and nothing else."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_bytes import check_frequencies, stopped
from hypothesis import given, settings
from hypothesis import strategies as st

import bytegen
from bytegen import cpu, formats, tokenizer
from bytegen.config import PRESETS
from bytegen.decoding import Engine, Lookup, NGrams, Sampling, Sequence, drafts
from bytegen.errors import UserError
from bytegen.model import ByteLM

FORMAT = "elf64-x86_64"
TAG = tokenizer.format_tag(FORMAT)


@pytest.fixture(scope="module")
def lm() -> ByteLM:
    """Random weights, with windows and buffers so small that rings wrap within a file.

    By the C decoder, which gives equal bits whatever the batch; without one in float64, where rounding moves no draw.
    """
    torch.manual_seed(1)
    made = ByteLM(dataclasses.replace(PRESETS["nano"], window=24, pattern="LLG")).eval()
    return made if cpu.available(made) else made.double()


def sequence(
    index: int, seed: int, *, prompt: str = "a file", max_bytes: int = 220, temperature: float = 1.0
) -> Sequence:
    constraint = formats.constraint(FORMAT, max_bytes=max_bytes, static=True)
    head = tokenizer.encode_prompt(prompt, TAG)
    return Sequence(index, head, constraint, Sampling(temperature=temperature), seed)


def written(lm: ByteLM, sequences: list[Sequence], **options: object) -> dict[int, Sequence]:
    settled: dict = {"max_length": 400, "chunk": 16, **options}
    return {s.index: s for s in Engine(lm, **settled).run(sequences)}


@pytest.fixture(scope="module")
def files(lm: ByteLM) -> list[bytes]:
    """What the model writes, for a table that guesses well."""
    found = written(lm, [sequence(i, i) for i in range(6)], drafts=False)
    return [bytes(found[i].constraint.data) for i in range(6)]


@settings(max_examples=12, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    batch_size=st.integers(1, 3),
    chunk=st.sampled_from([3, 8, 16]),
    temperature=st.sampled_from([0.0, 0.5, 1.0]),
    table=st.sampled_from(["none", "good", "wrong"]),
)
def test_drafts_change_no_byte(
    lm: ByteLM,
    files: list[bytes],
    seeds: list[int],
    batch_size: int,
    chunk: int,
    temperature: float,
    table: str,
) -> None:
    def sequences() -> list[Sequence]:
        return [sequence(i, seed, temperature=temperature) for i, seed in enumerate(seeds)]

    good = NGrams.learn(files, least=1)
    tables = {"none": None, "good": good, "wrong": NGrams(good.contexts, good.following ^ 1)}
    plain = written(lm, sequences(), drafts=False)
    engine = Engine(lm, max_length=400, chunk=chunk, batch_size=batch_size, table=tables[table])
    for s in engine.run(sequences()):
        alone = plain[s.index]
        assert bytes(s.constraint.data) == bytes(alone.constraint.data)
        assert (s.sampled, s.forced) == (alone.sampled, alone.forced)
        assert s.logprob == pytest.approx(alone.logprob, abs=1e-9)
        assert s.removed == pytest.approx(alone.removed, abs=1e-9)
    assert not engine.busy


def test_good_guesses_save_steps(lm: ByteLM, files: list[bytes]) -> None:
    table = NGrams.learn(files, least=1)
    steps = {}
    for name, options in {"with": {"table": table}, "without": {"drafts": False}}.items():
        engine = Engine(lm, max_length=400, **options)
        list(engine.run([sequence(0, 3)]))
        steps[name] = engine.timing.steps
        if name == "with":
            assert 0 < engine.timing.accepted <= engine.timing.drafted
    assert steps["with"] * 2 < steps["without"]


def test_torch_too_writes_the_same_file_with_drafts(lm: ByteLM, files: list[bytes]) -> None:
    exact = copy.deepcopy(lm).double()
    found = []
    for options in ({"drafts": False}, {"table": NGrams.learn(files, least=1)}):
        engine = Engine(exact, max_length=400, chunk=8, batch_size=2, backend="torch", **options)
        found.append(
            {s.index: bytes(s.constraint.data) for s in engine.run(sequence(i, i) for i in range(2))}
        )
    assert found[0] == found[1]


@torch.no_grad()
def test_draws_after_a_draft_have_the_masked_distribution(lm: ByteLM) -> None:
    """The second choice of a file, after a first that was guessed: 800 seeds against the model's own probabilities."""
    first = sequence(0, 0)
    c = first.constraint
    head = [*first.prompt_ids, *c.forced()]
    c.advance_many(c.forced())

    def masked(ids: list[int], mask: np.ndarray) -> np.ndarray:
        logits = lm(torch.tensor([ids]))[0, -1, : tokenizer.N_CHOICES]
        return torch.softmax(logits.masked_fill(~torch.from_numpy(mask.copy()), float("-inf")), 0).numpy()

    p = masked(head, c.mask())
    guess = int(p.argmax())
    start = bytes(c.data)
    c.advance(guess)
    run = c.forced()
    c.advance_many(run)
    q = masked([*head, guess, *run], c.mask())
    # A table that always guesses that first byte, what is forced after it, and then the likeliest.
    text = start + bytes((guess,)) + run + bytes((int(q[:256].argmax()),))
    table = NGrams.learn([text] * 2)
    seen: Counter[int] = Counter()
    for s in Engine(lm, max_length=400, batch_size=64, table=table).run(
        stopped(sequence(i, i), len(start) + len(run) + 2) for i in range(800)
    ):
        data = bytes(s.constraint.data)
        if data.startswith(text[:-1]) and len(data) > len(text) - 1:
            seen[data[len(text) - 1]] += 1
    total = sum(seen.values())
    assert total > 200
    check_frequencies(seen, q, least=10)


def test_sequences_join_leave_and_are_cancelled(lm: ByteLM) -> None:
    alone = {i: bytes(written(lm, [sequence(i, i)])[i].constraint.data) for i in range(5)}
    engine = Engine(lm, max_length=400, batch_size=3)
    heard: dict[int, bytes] = {}

    def hear(s: Sequence, new: bytes) -> None:
        heard[s.index] = heard.get(s.index, b"") + new

    engine.on_bytes = hear
    waiting = [sequence(i, i) for i in range(5)]
    ended: list[Sequence] = []
    engine.submit(waiting[0])
    for _ in range(3):
        ended += engine.turn()
    engine.submit(waiting[1])
    engine.submit(waiting[2])
    ended += engine.turn()
    engine.cancel(waiting[1])  # in the middle of a file
    engine.submit(waiting[3])
    engine.submit(waiting[4])
    engine.cancel(waiting[4])  # before it began
    while engine.busy:
        ended += engine.turn()
    assert sorted(s.index for s in ended) == [0, 1, 2, 3, 4]
    for i in (0, 2, 3):
        assert bytes(waiting[i].constraint.data) == alone[i] == heard[i]
    assert waiting[1].cancelled
    assert alone[1].startswith(bytes(waiting[1].constraint.data))
    assert not waiting[4].constraint.data


def test_prompts_are_taken_when_there_is_a_place_for_them(lm: ByteLM) -> None:
    taken = 0

    def many() -> Iterator[Sequence]:
        nonlocal taken
        for i in range(9):
            taken += 1
            yield sequence(i, i, max_bytes=160)

    done = 0
    for _ in Engine(lm, max_length=400, batch_size=2).run(many()):
        done += 1
        assert taken <= done + 2
    assert done == 9


def test_a_stream_gives_the_file_as_it_is_written(lm: ByteLM) -> None:
    whole = bytegen.generate(lm, "a file", max_bytes=220, seed=5, temperature=1.0).data
    parts = list(bytegen.stream(lm, "a file", max_bytes=220, seed=5, temperature=1.0))
    assert b"".join(parts) == whole
    assert len(parts) > 3
    stopped = bytegen.stream(lm, "a file", max_bytes=220, seed=5, temperature=1.0)
    assert whole.startswith(next(stopped))
    stopped.close()


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 3))
def test_a_table_holds_the_most_frequent_byte_of_each_context(found: list[bytes], least: int) -> None:
    size = drafts.CONTEXT
    data = [b"abcdefgh" + x[:4] + b"abcdefgh" + x[4:] for x in found]
    counts: dict[bytes, Counter[int]] = {}
    for one in data:
        for i in range(size, len(one)):
            counts.setdefault(one[i - size : i], Counter())[one[i]] += 1
    table = NGrams.learn(data, least=least, share=0.5).table
    for context, after in counts.items():
        most = max(after.values())
        best = min(byte for byte, count in after.items() if count == most)
        kept = sum(after.values()) >= least and most >= 0.5 * sum(after.values())
        assert table.get(int.from_bytes(context, "little")) == (best if kept else None)


@given(st.binary(max_size=30), st.binary(min_size=1, max_size=12), st.integers(0, 40))
def test_a_text_that_came_before_is_guessed_again(prompt: bytes, piece: bytes, count: int) -> None:
    piece = piece + bytes(range(200, 200 + drafts.CONTEXT))
    lookup = Lookup(prompt)
    lookup.extend(piece + b"\xff" + piece)
    copying = lookup.copying()
    guesses = bytearray()
    while len(guesses) < count and (guess := copying.guess()) is not None:
        assert guess[1] == "file"
        guesses.append(guess[0])
        copying.take(guesses[-1:])
    assert len(guesses) == count
    assert count == 0 or guesses[0] == 0xFF
    assert guesses[: 1 + len(piece)] == (b"\xff" + piece)[:count]


def test_a_table_survives_the_disk_and_a_wrong_file_is_one_line(tmp_path: Path) -> None:
    table = NGrams.learn([b"0123456789" * 3])
    table.save(tmp_path / "drafts.safetensors")
    again = NGrams.load(tmp_path / "drafts.safetensors")
    assert again.table == table.table
    assert table.table
    (tmp_path / "bad").write_bytes(b"words")
    for path in (tmp_path / "bad", tmp_path / "missing"):
        with pytest.raises(UserError, match="no table of n-grams") as refused:
            NGrams.load(path)
        assert "\n" not in str(refused.value)


def test_the_packaged_model_brings_a_table() -> None:
    lm = bytegen.load()
    assert lm.draft_table is not None
    assert len(lm.draft_table) > 1000
