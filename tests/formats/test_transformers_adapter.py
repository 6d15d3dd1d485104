"""The logits processor in transformers' own generate, with random tiny weights."""

from __future__ import annotations

import pytest
import torch
from handmade import minimal_elf

from bytegen import formats
from bytegen.formats import FormatError
from bytegen.formats.adapters import ConstraintLogitsProcessor

transformers = pytest.importorskip("transformers")

FORMAT, LIMIT = "elf64-x86_64", 160


def tiny(vocab: int, end: int) -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=vocab, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, eos_token_id=end, pad_token_id=end, bos_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize(
    ("options", "rows"),
    [({"do_sample": True, "num_return_sequences": 3}, 3), ({"num_beams": 3, "num_return_sequences": 2}, 2)],
)
@pytest.mark.parametrize("first", [0, 3])
def test_generate_writes_files_of_the_format(options: dict, rows: int, first: int) -> None:
    end = 256 + first
    processor = ConstraintLogitsProcessor(FORMAT, token_of_byte=first, end_token=end, max_bytes=LIMIT)
    prompt = torch.tensor([[first + 65, first + 66]])
    torch.manual_seed(1)
    with torch.no_grad():
        out = tiny(260 + first, end).generate(
            prompt,
            logits_processor=transformers.LogitsProcessorList([processor]),
            max_new_tokens=LIMIT + 1,
            **options,
        )
    assert len(out) == rows
    for row in out.tolist():
        tokens = row[2:]
        data = bytes(token - first for token in tokens[: tokens.index(end)])
        assert set(tokens[len(data) :]) == {end}
        assert formats.replay(formats.constraint(FORMAT, max_bytes=LIMIT), data) is None


def test_rows_may_trade_places_and_are_not_replayed() -> None:
    made = []

    def begin() -> formats.Constraint:
        made.append(1)
        return formats.constraint(FORMAT, max_bytes=LIMIT)

    processor = ConstraintLogitsProcessor(begin, end_token=256)
    data = minimal_elf()
    scores = torch.zeros(2, 257)
    for n in range(len(data)):
        rows = torch.tensor([[9, *data[:n]], [9, *data[:n]]])
        allowed = processor(rows.flip(0), scores)[0] == 0
        assert allowed[data[n]]
    assert len(made) == 1


def test_bad_token_maps_and_tokens_are_refused() -> None:
    with pytest.raises(FormatError, match="256 different"):
        ConstraintLogitsProcessor(FORMAT, end_token=5)
    with pytest.raises(FormatError, match="256 different"):
        ConstraintLogitsProcessor(FORMAT, token_of_byte=[1] * 256, end_token=0)
    with pytest.raises(FormatError, match="unknown format"):
        ConstraintLogitsProcessor("elf", end_token=256)
    processor = ConstraintLogitsProcessor(FORMAT, end_token=256, prompt_tokens=0)
    with pytest.raises(FormatError, match="the map goes up to 256"):
        processor(torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 100))
    with pytest.raises(FormatError, match="token 300 stands for no byte"):
        processor(torch.tensor([[300]]), torch.zeros(1, 320))
    with pytest.raises(FormatError, match="is refused"):
        processor(torch.tensor([[1]]), torch.zeros(1, 320))
