"""Programs on parameters and inputs that no draw would give, in the sandbox against the oracle."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen.train.corpus.check import Observation, agrees, observe
from bytegen.train.corpus.compile import assemble, template
from bytegen.train.corpus.program import Params, Program, all_programs, program_named

few = settings(max_examples=25, deadline=None)
small = st.integers(0, 999)
TOOLS = [program for program in all_programs() if program.inputs]


def seen(program: Program, params: Params, stdin: bytes = b"") -> Observation:
    return observe(assemble(template(program), program, params), stdin)


def holds(program: Program, params: Params, stdin: bytes = b"") -> None:
    expected = program.oracle(params, stdin)
    shown = seen(program, params, stdin)
    assert agrees(shown, expected), (expected, shown)


@pytest.mark.parametrize("name", ["say", "greet", "spell", "backwards", "stairs"])
@few
@given(text=st.text(st.sampled_from(string.printable[:95]), min_size=1, max_size=15))
def test_any_printable_text(name: str, text: str) -> None:
    holds(program_named(name), (text,))


@pytest.mark.parametrize("name", ["add", "multiply", "sum_range", "gcd", "divide", "count_up", "squares"])
@few
@given(first=small, second=small)
def test_any_numbers(name: str, first: int, second: int) -> None:
    if name in ("gcd", "divide"):
        second = max(second, 1)
    if name in ("sum_range", "count_up", "squares"):
        second = min(999, first + second % 50)
    holds(program_named(name), (str(first), str(second)))


@pytest.mark.parametrize("program", [p for p in TOOLS if p.kind == "text-tools"], ids=lambda p: p.name)
@few
@given(data=st.data())
def test_text_tools_on_any_bytes(program: Program, data: st.DataObject) -> None:
    params = program.draw(data.draw(st.randoms(use_true_random=False)))
    alphabet = st.sampled_from(b"\n\n ab" + "".join(params).encode()) | st.integers(0, 255)
    holds(program, params, bytes(data.draw(st.lists(alphabet, max_size=80))))


@pytest.mark.parametrize(
    "program",
    [p for p in TOOLS if p.kind == "integer-tools" and p.name != "calculator"],
    ids=lambda p: p.name,
)
@few
@given(data=st.data())
def test_integer_tools_take_anything_between_numbers(program: Program, data: st.DataObject) -> None:
    params = program.draw(data.draw(st.randoms(use_true_random=False)))
    gap = st.text("\n ,;:/-+abcxyz~\x80", min_size=1, max_size=4).map(str.encode)
    parts = data.draw(st.lists(st.tuples(small.map(lambda n: str(n).encode()), gap), max_size=8))
    stdin = data.draw(gap | st.just(b"")) + b"".join(number + space for number, space in parts)
    holds(program, params, stdin)


@pytest.mark.parametrize("program", TOOLS, ids=lambda p: p.name)
@few
@given(data=st.data())
def test_no_input_makes_a_tool_fault(program: Program, data: st.DataObject) -> None:
    params = program.draw(data.draw(st.randoms(use_true_random=False)))
    letters = st.sampled_from(b"\n\n 0123abcrpsudlx+-*") | st.integers(0, 47) | st.integers(58, 255)
    stdin = b"".join(bytes([c]) for c in data.draw(st.lists(letters, max_size=40)))
    shown = seen(program, params, stdin)
    assert "SIG" not in shown.trouble, shown
