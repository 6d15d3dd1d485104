"""Bytes are ids; the round trip is exact; prompts are UTF-8."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytegen import formats, tokenizer
from bytegen.errors import UserError


@given(st.binary(max_size=600))
def test_bytes_round_trip(data: bytes) -> None:
    ids = tokenizer.encode_bytes(data)
    assert ids == list(data)
    assert tokenizer.decode_bytes([tokenizer.BEGIN, *ids, tokenizer.END_OF_FILE]) == data


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip))
def test_prompts_round_trip_as_utf8(prompt: str) -> None:
    ids = tokenizer.encode_prompt(prompt, tokenizer.format_tag("elf64-x86_64"))
    assert tokenizer.decode_prompt(ids) == prompt
    assert ids[1:-2] == list(prompt.encode())


def test_special_ids_are_distinct_and_inside_the_vocabulary() -> None:
    ids = [
        tokenizer.END_OF_FILE,
        tokenizer.BEGIN,
        tokenizer.END_OF_PROMPT,
        tokenizer.PADDING,
        tokenizer.PARAMETERS,
    ]
    ids += [*tokenizer.TRACE_MARKS.values(), *tokenizer.FORMAT_TAGS.values()]
    assert len(set(ids)) == len(ids)
    assert min(ids) == 256
    assert max(ids) < tokenizer.VOCAB_SIZE
    assert tokenizer.VOCAB_SIZE % 64 == 0


def test_every_format_there_is_has_a_tag() -> None:
    assert set(formats.available()) <= set(tokenizer.FORMAT_TAGS)


@pytest.mark.parametrize("prompt", ["", "   ", "\n"])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(UserError, match="empty"):
        tokenizer.encode_prompt(prompt, tokenizer.format_tag("elf64-x86_64"))


def test_an_unknown_format_lists_the_tags() -> None:
    with pytest.raises(UserError, match="elf64-x86_64"):
        tokenizer.format_tag("a.out")
