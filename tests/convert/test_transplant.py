"""The byte transplant: each byte takes the rows of its token, and the layers do with it what they did."""

import functools
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import configs, random_model, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import bytegen
from bytegen.convert import convert
from bytegen.convert.transplant import byte_characters, find_rows
from bytegen.errors import UserError
from bytegen.shards import Shards
from bytegen.tokenizer import BEGIN, END_OF_FILE, END_OF_PROMPT, VOCAB_SIZE

N_TOKENS = 300


def byte_level(seed: int = 0, merges: bool = True) -> Tokenizer:
    """A byte-level BPE made by the tokenizers library: bytes at random ids of 300, a few merges among them."""
    ids = random.Random(seed).sample(range(N_TOKENS), N_TOKENS)
    vocabulary = {c: ids[i] for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    pairs = [("a", "b"), ("ab", "c"), ("Ġ", "t")] if merges else []
    vocabulary |= {a + b: ids[256 + i] for i, (a, b) in enumerate(pairs)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def small(**changes: Any) -> dict[str, Any]:
    return {
        "model_type": "qwen3", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "vocab_size": N_TOKENS + 4,
        "max_position_embeddings": 64, "eos_token_id": 301, "bos_token_id": 303, **changes,
    }  # fmt: skip


@functools.cache
def tokenizer_and_rows(seed: int) -> tuple[Tokenizer, tuple[int, ...]]:
    tokenizer = byte_level(seed, merges=False)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder + "/tokenizer.json")
        return tokenizer, find_rows(Path(folder), {}, N_TOKENS).of_bytes


@settings(deadline=None)
@given(st.text(max_size=40), st.integers(0, 3))
def test_the_row_of_a_byte_is_that_of_its_token(text: str, seed: int) -> None:
    """Without merges the tokenizers library spells a text byte by byte."""
    tokenizer, rows = tokenizer_and_rows(seed)
    assert tokenizer.encode(text).ids == [rows[b] for b in text.encode()]


def test_the_characters_of_bytes_are_those_of_gpt2() -> None:
    """Bytes that no UTF-8 text has are among them."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    assert byte_characters() == [bytes_to_unicode()[b] for b in range(256)]


@pytest.mark.parametrize("model_type", ["qwen2", "llama", "cwm"])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_byte_model_gives_bytes_the_logits_of_their_tokens(model_type: str, data: st.DataObject) -> None:
    values = {**data.draw(configs(model_type)), "vocab_size": N_TOKENS}
    text = data.draw(st.binary(min_size=1, max_size=20))
    model = random_model(values)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        source = save(model, Path(folder, "hf"))
        byte_level(1).save(str(source / "tokenizer.json"))
        config = convert(source, Path(folder, "ours"))
        ids = torch.tensor(find_rows(source, {}, N_TOKENS).of_bytes)
        logits = bytegen.load(Path(folder, "ours"))(torch.tensor([list(text)]))
        expected = model(input_ids=ids[list(text)][None]).logits
    assert config.vocab_size == VOCAB_SIZE
    torch.testing.assert_close(logits[..., :256], expected[..., ids], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("files", ["tokenizer.json", "vocab.json"])
@pytest.mark.parametrize("tied", [True, False])
def test_rows_are_copied_and_special_ids_get_ends_and_means(files: str, tied: bool, tmp_path: Path) -> None:
    model = random_model(small(tie_word_embeddings=tied)).to(torch.bfloat16)
    source = save(model, tmp_path / "hf")
    tokenizer = byte_level()
    if files == "tokenizer.json":
        tokenizer.save(str(source / files))
    else:
        (source / files).write_text(json.dumps(tokenizer.get_vocab()))
    convert(source, tmp_path / "ours")
    shards = Shards(tmp_path / "ours")
    matrices = {"embed.weight": model.model.embed_tokens.weight}
    if not tied:
        matrices["head.weight"] = model.lm_head.weight
    assert ("head.weight" in shards.shapes) is not tied
    for name, theirs in matrices.items():
        ours = shards.read(name)
        of_bytes = torch.stack([theirs[tokenizer.token_to_id(c)] for c in byte_characters()])
        assert ours.shape == (VOCAB_SIZE, 8)
        assert torch.equal(ours[:256], of_bytes)
        assert torch.equal(ours[END_OF_FILE], theirs[301])
        assert torch.equal(ours[BEGIN], theirs[303])
        mean = of_bytes.double().mean(0)
        for special in (END_OF_PROMPT, VOCAB_SIZE - 1):
            torch.testing.assert_close(ours[special].double(), mean, rtol=2**-8, atol=1e-4)


def test_without_end_tokens_the_mean_stands_in(tmp_path: Path) -> None:
    source = save(random_model(small(eos_token_id=None, bos_token_id=None)), tmp_path / "hf")
    byte_level().save(str(source / "tokenizer.json"))
    convert(source, tmp_path / "ours")
    ours = Shards(tmp_path / "ours").read("embed.weight")
    assert torch.equal(ours[END_OF_FILE], ours[END_OF_PROMPT])


def test_a_list_of_ends_gives_its_first_and_the_generation_config_fills_in(tmp_path: Path) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    assert find_rows(tmp_path, {"eos_token_id": [7, 8]}, N_TOKENS).of_specials == {END_OF_FILE: 7}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 9, "bos_token_id": 10}')
    assert find_rows(tmp_path, {"eos_token_id": None}, N_TOKENS).of_specials == {END_OF_FILE: 9, BEGIN: 10}


def sentencepiece() -> Tokenizer:
    pieces = {"<unk>": 0, **{f"<0x{b:02X}>": b + 1 for b in range(256)}, "a": 257}
    tokenizer = Tokenizer(models.BPE(vocab=pieces, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.ByteFallback()
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer",
    [
        sentencepiece(),
        Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0)),
        Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")),
    ],
    ids=["byte-fallback", "unigram", "wordpiece"],
)
def test_a_tokenizer_that_is_not_byte_level_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    source = save(random_model(small()), tmp_path / "hf")
    tokenizer.save(str(source / "tokenizer.json"))
    with pytest.raises(UserError, match=r"tokenizer\.json is no byte-level BPE.*--keep-vocabulary"):
        convert(source, tmp_path / "ours")
    convert(source, tmp_path / "kept", keep_vocabulary=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf", "kept"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Ā": None, "a": None}, "no token for the bytes 0x00, 0x61;"),
        ({"a": N_TOKENS}, f"the id {N_TOKENS}; the embedding has ids 0 to {N_TOKENS - 1}"),
        ({"a": -1}, "the id -1"),
        ({"a": "b"}, "the id 'b'"),
        ({"a": 5, "b": 5}, "one id for two bytes"),
    ],
)
def test_vocabularies_with_faults_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    vocabulary = {**byte_level().get_vocab(), **change}
    kept = {token: i for token, i in vocabulary.items() if i is not None}
    (tmp_path / "vocab.json").write_text(json.dumps(kept))
    with pytest.raises(UserError, match=message):
        find_rows(tmp_path, {}, N_TOKENS)


def test_without_a_tokenizer_s_files_the_message_says_which_are_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither tokenizer\.json nor vocab\.json"):
        find_rows(tmp_path, {}, N_TOKENS)
