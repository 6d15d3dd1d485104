"""The best of many: votes, examples and judges against rules written down here; files written and judged together."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_programs import BASE, CODE, EXIT, R, W, X, code, program

import bytegen
from bytegen.best import PROBES, Best, Tally, choose, trials
from bytegen.best.candidates import agrees
from bytegen.config import PRESETS
from bytegen.errors import UserError
from bytegen.generation import Output
from bytegen.model import ByteLM
from bytegen.sandbox import run


def prints(text: bytes, exit_code: int = 0, padding: bytes = b"") -> bytes:
    """A program that writes a text, whatever it could read."""
    head = 5 + 5 + 5 + 5 + 2 + 5 + len(EXIT)
    body = code("b801000000 bf01000000 be", CODE + head, "ba", len(text), "0f05 bf", exit_code) + EXIT
    assert len(body) == head
    return program(body + text + padding)


def echo() -> bytes:
    """A program that writes what it reads."""
    buffer = BASE + 0x800
    read = code("31c0 31ff be", buffer, "ba00010000 0f05")
    write = code("89c2 b801000000 bf01000000 be", buffer, "0f05 31ff")
    return program(read + write + EXIT, R | W | X, memsz=0x1000)


ECHO, LOOP, CRASH = echo(), program(code("ebfe")), program(code("0f0b"))
A, A_AGAIN, B, A_FAILS = prints(b"a\n"), prints(b"a\n", padding=b"\0"), prints(b"b\n"), prints(b"a\n", 3)
TEXT = b"not a program"
DOES: dict[bytes, Callable[[bytes], tuple[bytes, int] | None]] = {
    ECHO: lambda stdin: (stdin, 0),
    A: lambda _: (b"a\n", 0),
    A_AGAIN: lambda _: (b"a\n", 0),
    B: lambda _: (b"b\n", 0),
    A_FAILS: lambda _: (b"a\n", 3),
    LOOP: lambda _: None,
    CRASH: lambda _: None,
    TEXT: lambda _: None,
}
"""What each program prints and its exit code; None where it does not end by itself."""

INPUTS = (b"", b"a\n")


def output(data: bytes, logprob: float = 0.0, seed: int = 0, format: str = "elf64-x86_64") -> Output:
    return Output(prompt="", data=data, format=format, level="load", seed=seed, logprob=logprob, removed=(),
                  sampled=0, forced=0, turns=0, fields=())  # fmt: skip


@pytest.fixture(autouse=True)
def _soon_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that loop are stopped at once."""
    monkeypatch.setattr(trials, "MAX_INSTRUCTIONS", 2000)


files = st.lists(
    st.tuples(st.sampled_from(list(DOES)), st.sampled_from([-3.0, -2.0, -1.5, 0.0])), min_size=1, max_size=12
)
worth = settings(max_examples=40, deadline=None)


def behaviour(data: bytes, stdins: tuple[bytes, ...]) -> tuple[tuple[bytes, int], ...] | None:
    seen = [DOES[data](stdin) for stdin in stdins]
    return None if None in seen else tuple(x for x in seen if x is not None)


def test_the_programs_of_this_file_do_what_it_says_of_them() -> None:
    for data, does in DOES.items():
        for stdin in INPUTS:
            if data == TEXT:
                continue
            seen = run(data, stdin=stdin, max_instructions=2000)
            assert does(stdin) == ((seen.stdout, seen.exit_code) if seen.ok else None)


@worth
@given(files)
def test_with_nothing_given_the_most_usual_behaviour_wins_and_the_likeliest_file_of_it(
    found: list[tuple[bytes, float]],
) -> None:
    best = choose([output(data, logprob) for data, logprob in found], inputs=INPUTS)
    votes = Counter(b for data, _ in found if (b := behaviour(data, INPUTS)) is not None)
    for candidate, (data, _) in zip(best.candidates, found, strict=True):
        does = behaviour(data, INPUTS)
        assert candidate.votes == (0 if does is None else votes[does])
        assert candidate.passes == candidate.trial.exits == (does is not None)
        assert candidate.trial.loads == (data != TEXT)
        assert bool(candidate.trial.refusal) == (data == TEXT)
    assert best.pass_rate == sum(votes.values()) / len(found)
    assert sorted(best.votes.values()) == sorted(votes.values())
    assert best.passed == bool(votes)
    if votes:
        most = max(votes.values())
        rivals = [(data, p) for data, p in found if votes.get(behaviour(data, INPUTS)) == most]  # type: ignore[arg-type]
        assert best.best.votes == most
        assert best.winner.logprob == max(p for _, p in rivals)
        assert best.winner.data in {data for data, _ in rivals}


@worth
@given(files, st.sampled_from([(), ((b"a\n", b"a"),), ((b"", b"b\n"), (b"x", b"x"))]), st.integers(0, 99))
def test_the_order_of_the_files_does_not_choose_the_winner(
    found: list[tuple[bytes, float]], examples: tuple[tuple[bytes, bytes], ...], seed: int
) -> None:
    outputs = [output(data, logprob) for data, logprob in found]
    shuffled = random.Random(seed).sample(outputs, len(outputs))
    one, other = (choose(x, inputs=INPUTS, examples=examples) for x in (outputs, shuffled))
    assert one.winner.data == other.winner.data
    assert one.winner.logprob == other.winner.logprob
    assert one.pass_rate == other.pass_rate


@worth
@given(
    files,
    st.lists(st.tuples(st.sampled_from([b"", b"a\n", b"x"]), st.sampled_from([b"a", b"b\n", b"x\n", b""])),
             min_size=1, max_size=3),
)  # fmt: skip
def test_with_examples_the_file_that_passes_most_of_them_wins(
    found: list[tuple[bytes, float]], examples: list[tuple[bytes, bytes]]
) -> None:
    def passed(data: bytes) -> int:
        seen = [DOES[data](stdin) for stdin, _ in examples]
        return sum(
            s is not None and s[0].rstrip() == want.rstrip()
            for s, (_, want) in zip(seen, examples, strict=True)
        )

    best = choose([output(data, p) for data, p in found], inputs=INPUTS, examples=examples)
    most = max(passed(data) for data, _ in found)
    assert passed(best.winner.data) == most
    assert best.passed == (most == len(examples))
    assert best.pass_rate == sum(passed(data) == len(examples) for data, _ in found) / len(found)
    stdins = (*(stdin for stdin, _ in examples), *INPUTS)
    votes = Counter(behaviour(data, stdins) for data, _ in found)
    rivals = [
        0 if (b := behaviour(data, stdins)) is None else votes[b] for data, _ in found if passed(data) == most
    ]
    assert best.best.votes == max(rivals)


@worth
@given(st.lists(st.tuples(st.sampled_from(list(DOES)), st.integers(-3, 3)), min_size=1, max_size=8))
def test_with_a_judge_the_greatest_score_wins_and_equal_files_are_asked_about_once(
    found: list[tuple[bytes, int]],
) -> None:
    scores = dict(reversed(found))
    asked: list[bytes] = []

    def judge(one: Output) -> int:
        asked.append(one.data)
        return scores[one.data]

    best = choose([output(data) for data, _ in found], judge=judge, inputs=INPUTS, workers=1)
    assert scores[best.winner.data] == max(scores.values())
    assert [c.passes for c in best.candidates] == [scores[data] > 0 for data, _ in found]
    assert sorted(asked) == sorted(scores)
    assert best.distinct == len(scores)


@given(st.binary(max_size=4), st.binary(max_size=4), st.sampled_from([b"", b"\n", b"\r\n", b"\n\n"]))
def test_line_breaks_at_the_end_do_not_count(stdout: bytes, wanted: bytes, tail: bytes) -> None:
    assert agrees(stdout + tail, stdout)
    assert agrees(stdout, wanted + tail) == agrees(wanted, stdout)
    assert not agrees(b"a" + stdout, b"b" + wanted)


@pytest.fixture(scope="module")
def lm() -> ByteLM:
    torch.manual_seed(0)
    return ByteLM(PRESETS["nano"]).eval()


def test_files_are_written_judged_and_counted_as_they_come(lm: ByteLM) -> None:
    told: list[Tally] = []
    options = {"max_bytes": 160, "seed": 4, "temperature": 1.0}
    best = bytegen.best_of(lm, "a", samples=9, on_tally=told.append, batch_size=3, **options)
    outputs = bytegen.generate_many(lm, ["a"], samples=9, **options)
    assert [c.output.data for c in best.candidates] == [o.data for o in outputs]
    assert [c.output.seed for c in best.candidates] == list(range(4, 13))
    assert (told[-1].written, told[-1].judged) == (9, 9)
    assert told[-1].pass_rate == best.pass_rate
    assert told[-1].alike == max(best.votes.values(), default=0)
    assert all(a.written <= b.written and a.judged <= b.judged for a, b in itertools.pairwise(told))
    assert any(t.judged < t.written for t in told)
    again = choose(outputs)
    assert again.ranking == best.ranking
    assert again.stdins == best.stdins == PROBES


def test_the_packaged_model_finds_the_program_among_its_guesses() -> None:
    found: Best = bytegen.best_of(bytegen.load(), "count from 3 to 9", samples=4, max_bytes=400, temperature=0.8,
                                  examples=[(b"", b"3\n4\n5\n6\n7\n8\n9")])  # fmt: skip
    assert found.passed
    assert found.winner.run().stdout == b"3\n4\n5\n6\n7\n8\n9\n"
    assert found.best.well_formed


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"samples": 1}, "2 samples"),
        ({"temperature": 0.0}, "temperature 0"),
        ({"temperature": -1.0}, "temperature"),
        ({"format": "pe32-i386"}, "elf64-x86_64"),
        ({"examples": [(b"", b"")], "judge": len}, "leave the other out"),
        ({"inputs": ()}, "nothing to judge by"),
        ({"workers": 0}, "workers=0"),
        ({"samples": 2, "max_bytes": 10}, "least|120"),
    ],
)
def test_what_cannot_be_done_is_one_line(lm: ByteLM, options: dict, word: str) -> None:
    with pytest.raises((UserError, bytegen.formats.FormatError), match=word) as refused:
        bytegen.best_of(lm, "a", **options)
    assert "\n" not in str(refused.value)


def test_a_judge_that_fails_is_named_with_the_seed_it_failed_on() -> None:
    def broken(one: Output) -> float:
        raise RuntimeError("no stdout\nat all")

    with pytest.raises(UserError, match=r"RuntimeError on the file of seed 7: no stdout$") as refused:
        choose([output(A, seed=7)], judge=broken)
    assert isinstance(refused.value.__cause__, RuntimeError)
    for nonsense in (float("nan"), None, "good"):
        with pytest.raises(UserError, match="must give a number"):
            choose([output(A)], judge=lambda _, give=nonsense: give)  # type: ignore[misc]
    with pytest.raises(UserError, match="no files"):
        choose([])


def test_files_that_cannot_be_run_are_for_a_judge_alone() -> None:
    windows = output(b"MZ", format="pe32-i386")
    with pytest.raises(UserError, match="judge of your own"):
        choose([windows])
    best = choose([windows, output(b"MZ2", format="pe32-i386")], judge=lambda o: len(o.data) > 2)
    assert best.winner.data == b"MZ2"
    assert best.pass_rate == 0.5
    assert not best.votes
