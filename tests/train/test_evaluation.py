"""The funnel: held-out tasks, verdicts by running the files, estimates and intervals."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytegen import formats
from bytegen.generation import Output
from bytegen.train.corpus import compile as corpus_compile
from bytegen.train.corpus.program import KINDS, split_of
from bytegen.train.evaluation import Task, Verdict, draw_tasks, judge, pass_at_k, wilson


def output_of(data: bytes) -> Output:
    return Output(prompt="", data=data, format="elf64-x86_64", level="load", seed=0, logprob=0.0, removed=(),
                  sampled=0, forced=0, turns=0, fields=())  # fmt: skip


def right_file(task: Task) -> bytes:
    return corpus_compile.assemble(corpus_compile.template(task.program), task.program, task.params)


def test_tasks_are_heldout_and_of_every_kind() -> None:
    tasks = draw_tasks(3, seed=1)
    assert [t.program.kind for t in tasks] == [kind for kind in KINDS for _ in range(3)]
    assert all(split_of(t.program.name, t.params) == "heldout" for t in tasks)
    assert all(text in t.prompt for t in tasks for text in t.params)
    assert tasks == draw_tasks(3, seed=1)


def test_the_right_file_passes_and_others_stop_at_their_stage() -> None:
    tasks = draw_tasks(1, seed=2)
    files = [right_file(t) for t in tasks]
    for task, data in zip(tasks, files, strict=True):
        assert judge(task, output_of(data)) == Verdict(True, True, True, True)
    for (task, _), (_, other) in itertools.islice(
        itertools.permutations(list(zip(tasks, files, strict=True)), 2), 12
    ):
        assert not judge(task, output_of(other)).behaves
    task, data = tasks[0], files[0]
    assert judge(task, output_of(data[:70])) == Verdict(False, False, False, False)
    looping = bytearray(data)
    looping[0x78:0x7A] = b"\xeb\xfe"  # jmp to itself, at the entry point
    assert judge(task, output_of(bytes(looping))) == Verdict(True, True, False, False)


def test_a_file_that_is_well_formed_but_does_not_load_stops_there() -> None:
    task = draw_tasks(1, seed=3)[0]
    for seed in itertools.count():
        data = formats.sample("elf64-x86_64", seed, 400, level="parse")
        if not formats.kernel_accepts(data).accepted:
            break
    assert judge(task, output_of(data)) == Verdict(True, False, False, False)


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(n: int, data: st.DataObject) -> None:
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    passes = [i < correct for i in range(n)]
    subsets = list(itertools.combinations(passes, k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


def test_intervals_hold_the_share_and_shrink_with_more_trials() -> None:
    for share in (0.0, 0.3, 1.0):
        wide, narrow = wilson(share, 20), wilson(share, 2000)
        assert wide[0] <= share <= wide[1]
        assert narrow[1] - narrow[0] < wide[1] - wide[0]


def test_sleeping_too_little_is_not_the_behaviour() -> None:
    task = next(t for t in draw_tasks(1, seed=4) if t.program.kind == "animations")
    wrong = replace(task, params=(*task.params[:-1], str(int(task.params[-1]) + 1)))
    assert not judge(wrong, output_of(right_file(task))).behaves
