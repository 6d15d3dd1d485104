"""Generation under a constraint: every file loads, whatever the weights; seeds, batches, limits."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bytegen
from bytegen import formats
from bytegen.config import PRESETS
from bytegen.decoding import Sampling, Timing
from bytegen.errors import UserError
from bytegen.generation import generate_many
from bytegen.model import ByteLM


@pytest.fixture(scope="module")
def random_lm() -> ByteLM:
    """A model that knows nothing: what it writes is right by the constraint alone."""
    torch.manual_seed(0)
    return ByteLM(PRESETS["nano"]).eval()


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    max_bytes=st.sampled_from([200, 600]),
)
def test_a_model_that_knows_nothing_writes_files_that_load(
    random_lm: ByteLM, seed: int, temperature: float, max_bytes: int
) -> None:
    out = bytegen.generate(random_lm, "anything", max_bytes=max_bytes, seed=seed, temperature=temperature)
    assert len(out.data) <= max_bytes
    assert out.report.ok, str(out.report)
    assert formats.kernel_accepts(out.data).accepted
    assert out.sampled + out.forced >= len(out.data)


def test_the_same_seed_gives_the_same_file_alone_and_in_a_batch(random_lm: ByteLM) -> None:
    prompts = ["one", "a longer prompt than the first", "three"]
    together = generate_many(
        random_lm, prompts, samples=3, seed=7, max_bytes=300, batch_size=4, temperature=1.0
    )
    assert [o.prompt for o in together] == [p for p in prompts for _ in range(3)]
    assert [o.seed for o in together] == [7, 8, 9] * 3
    for output in together:
        alone = bytegen.generate(random_lm, output.prompt, seed=output.seed, max_bytes=300, temperature=1.0)
        assert alone.data == output.data
    assert len({o.data for o in together}) == len(together)


def test_the_masked_log_probability_is_that_of_a_forward_over_the_whole_file(random_lm: ByteLM) -> None:
    """The cached, chunked, batched path scores what one plain forward scores."""
    from bytegen import tokenizer

    out = generate_many(random_lm, ["score me"] * 2, seed=3, max_bytes=260, temperature=1.0, batch_size=2)[1]
    head = tokenizer.encode_prompt("score me", tokenizer.format_tag(out.format))
    ids = [*head, *out.data, tokenizer.END_OF_FILE]
    with torch.no_grad():
        logits = random_lm(torch.tensor([ids[:-1]]))[0, len(head) - 1 :, : tokenizer.N_CHOICES].double()
    c = formats.constraint(out.format, max_bytes=260, level=out.level, static=True)
    total = 0.0
    for row, symbol in zip(logits, [*out.data, tokenizer.END_OF_FILE], strict=True):
        masked = row.masked_fill(~torch.from_numpy(c.mask().copy()), float("-inf"))
        total += float(torch.log_softmax(masked, 0)[symbol])
        c.advance(symbol)
    assert out.logprob == pytest.approx(total, abs=1e-3)


def test_fields_cover_the_file_and_forced_bytes_are_not_sampled(random_lm: ByteLM) -> None:
    out = bytegen.generate(random_lm, "fields", max_bytes=400, seed=1)
    assert [f.start for f in out.fields] == [0, *(f.end for f in out.fields[:-1])]
    assert out.fields[-1].end == len(out.data)
    assert out.fields[0].path.startswith("ehdr.")


def test_timing_adds_up_to_the_bytes_written(random_lm: ByteLM) -> None:
    timing = Timing()
    outputs = generate_many(random_lm, ["a", "b"], max_bytes=250, timing=timing, temperature=1.0)
    ends = sum(o.sampled + o.forced - len(o.data) for o in outputs)  # ends of files that were a choice
    assert timing.sampled + timing.forced == sum(len(o.data) for o in outputs) + ends
    assert timing.model > 0
    assert timing.constraint > 0


def test_bytes_are_streamed_in_order(random_lm: ByteLM) -> None:
    seen: dict[int, bytes] = {}

    def hear(row: object, new: bytes) -> None:
        seen[row.index] = seen.get(row.index, b"") + new  # type: ignore[attr-defined]

    outputs = generate_many(random_lm, ["x", "y"], max_bytes=300, on_bytes=hear, samples=2)
    assert [seen[i] for i in range(4)] == [o.data for o in outputs]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"format": "elf"}, "elf64-x86_64"),
        ({"level": "perfect"}, "load"),
        ({"max_bytes": 10}, "120|least"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top-p"),
        ({"min_p": 2.0}, "min-p"),
        ({"samples": 0}, "samples"),
    ],
)
def test_options_out_of_range_are_one_clear_line(random_lm: ByteLM, options: dict, word: str) -> None:
    with pytest.raises((UserError, formats.FormatError), match=word) as refused:
        generate_many(random_lm, ["a prompt"], **options)
    assert "\n" not in str(refused.value)


def test_a_prompt_longer_than_the_context_says_how_long_it_may_be() -> None:
    lm = ByteLM(dataclasses.replace(PRESETS["nano"], max_positions=1000))
    with pytest.raises(UserError, match="shorten the prompt to 597"):
        bytegen.generate(lm, "x" * 700, max_bytes=400)


def test_the_default_sampling_is_valid() -> None:
    assert Sampling().temperature >= 0
