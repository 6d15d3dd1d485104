"""Every program: its prompts, its parameters, its split."""

import random
import re
from collections import Counter

import pytest

from bytegen.errors import UserError
from bytegen.train.corpus.program import KINDS, Program, all_programs, program_named, programs_of, split_of

PROGRAMS = all_programs()
each_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)


def draws(program: Program, count: int, seed: int = 0) -> list[tuple[str, ...]]:
    rng = random.Random(f"{seed} {program.name}")
    return [program.draw(rng) for _ in range(count)]


def test_ten_kinds_of_several_programs() -> None:
    counts = Counter(program.kind for program in PROGRAMS)
    assert len(KINDS) == 10
    assert set(counts) == set(KINDS)
    assert min(counts.values()) >= 4


@each_program
def test_every_phrasing_names_every_parameter(program: Program) -> None:
    count = len(draws(program, 1)[0])
    assert len(program.phrasings) >= 8
    assert len(set(program.phrasings)) == len(program.phrasings)
    for phrasing in program.phrasings:
        assert sorted(set(re.findall(r"\{(.*?)\}", phrasing))) == [str(n) for n in range(count)], phrasing
        assert not phrasing.endswith(".")


@each_program
def test_parameters_stand_literally_in_prompt_and_block(program: Program) -> None:
    for params in draws(program, 50):
        block = program.parameter_block(params)
        assert block.rstrip(b"\0").split(b"\0") == [text.encode() for text in params]
        for prompt in program.prompts(params):
            assert all(text in prompt for text in params)


@each_program
def test_ten_thousand_draws_fit_and_differ(program: Program) -> None:
    seen = set()
    for params in draws(program, 10_000):
        assert len(program.parameter_block(params)) == program.block
        seen.add(params)
    assert len(seen) >= 200


@each_program
def test_a_block_too_small_is_refused(program: Program) -> None:
    with pytest.raises(UserError, match=f"{program.name}.*block has {program.block}"):
        program.parameter_block(("x" * program.block,))


@pytest.mark.parametrize("text", ["", "caf\xe9", "a\nb", "a\0b"])
def test_a_text_that_is_not_printable_ascii_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="printable ASCII"):
        PROGRAMS[0].parameter_block((text,))


def test_no_two_programs_share_a_phrasing() -> None:
    shapes: dict[str, str] = {}
    for program in PROGRAMS:
        for phrasing in program.phrasings:
            shape = re.sub(r"\"?\{\d+\}\"?", "{}", phrasing)
            assert shapes.setdefault(shape, program.name) == program.name, phrasing


def test_a_prompt_means_one_behaviour() -> None:
    meaning: dict[str, tuple[str, tuple[str, ...]]] = {}
    for program in PROGRAMS:
        for params in draws(program, 2_000):
            for prompt in program.prompts(params):
                known = meaning.setdefault(prompt, (program.name, params))
                assert known == (program.name, params), prompt


@each_program
def test_oracle_and_draws_are_deterministic(program: Program) -> None:
    first, second = draws(program, 20), draws(program, 20)
    assert first == second
    for params in first:
        inputs = [program.stdins(random.Random(1), params, 3) for _ in range(2)]
        assert inputs[0] == inputs[1]
        assert (len(inputs[0]) == 3) == (program.inputs is not None)
        for stdin in inputs[0]:
            assert program.oracle(params, stdin) == program.oracle(params, stdin)


def test_split_holds_out_about_a_twentieth_of_every_program() -> None:
    for program in PROGRAMS:
        behaviours = set(draws(program, 4_000))
        held = sum(split_of(program.name, params) == "heldout" for params in behaviours)
        share = held / len(behaviours)
        spread = 5 * (0.05 * 0.95 / len(behaviours)) ** 0.5
        assert abs(share - 0.05) <= spread, (program.name, share)


def test_split_is_fixed_for_ever() -> None:
    """Corpora made at different times must agree, so these are literal."""
    assert split_of("count_up", ("3", "9")) == "train"
    assert [n for n in range(100) if split_of("count_up", ("0", str(n))) == "heldout"] == [2, 38, 47]


def test_programs_are_found_by_name_and_kind() -> None:
    assert program_named("count_up").kind == "sequences"
    assert {program.kind for program in programs_of(["games", "text"])} == {"games", "text"}
    with pytest.raises(UserError, match=r"there are: .*count_up"):
        program_named("count_sideways")
    with pytest.raises(UserError, match=r"unknown kind 'game'; there are: text, .*games"):
        programs_of(["game"])
