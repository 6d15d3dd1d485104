"""The way back: what has a counterpart in transformers gives the same logits there."""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import judged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import bytegen
from bytegen.config import PRESETS, ModelConfig, RopeScaling
from bytegen.convert import convert, export
from bytegen.convert.export import architecture_for
from bytegen.errors import UserError
from bytegen.model import ByteLM
from bytegen.shards import Shards
from bytegen.tokenizer import BEGIN, END_OF_FILE, END_OF_PROMPT, FORMAT_TAGS, VOCAB_SIZE
from bytegen.weights import save_model


@st.composite
def shapes(draw: st.DrawFn) -> ModelConfig:
    n_kv, group = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2, 3]))
    heads, kind = n_kv * group, draw(st.sampled_from(["plain", "bias", "norm"]))
    scaling = RopeScaling(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=16)
    return ModelConfig(
        dim=heads * draw(st.integers(1, 8)), n_layers=draw(st.integers(1, 4)), n_heads=heads, n_kv_heads=n_kv,
        head_dim=draw(st.sampled_from([2, 4, 8])), ffn_dim=draw(st.integers(1, 16)), max_positions=64,
        pattern=draw(st.text("LG", min_size=1, max_size=4)), window=draw(st.integers(1, 9)),
        rope_theta=draw(st.sampled_from([100.0, 10_000.0])), rope_scaling=draw(st.none() | st.just(scaling)),
        norm_eps=draw(st.sampled_from([1e-6, 1e-3])), tied=draw(st.booleans()), qkv_bias=kind == "bias",
        qk_norm=kind == "norm", vocab_size=draw(st.sampled_from([20, VOCAB_SIZE])),
    )  # fmt: skip


def random_lm(config: ModelConfig) -> ByteLM:
    torch.manual_seed(0)
    lm = ByteLM(config)
    with torch.no_grad():
        for name, p in lm.named_parameters():
            if p.dim() == 1:
                p.normal_(1.0 if "norm" in name else 0.0, 0.4)
    return lm


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(config=shapes(), length=st.integers(1, 20))
def test_an_exported_checkpoint_gives_the_same_logits_and_converts_back(
    config: ModelConfig, length: int
) -> None:
    lm = random_lm(config)
    tokens = torch.randint(0, config.vocab_size, (1, length))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        save_model(lm, Path(folder, "ours"))
        export(str(Path(folder, "ours")), Path(folder, "hf"), max_shard_bytes=2000)
        theirs, report = AutoModelForCausalLM.from_pretrained(Path(folder, "hf"), output_loading_info=True)
        exact = judged(theirs.eval(), tokens)
        double = bytegen.load(Path(folder, "ours"), dtype=torch.float64)(tokens)
        back = convert(Path(folder, "hf"), Path(folder, "back"), keep_vocabulary=True)
        again = bytegen.load(Path(folder, "back"))
    assert not any(report.values())
    assert (double - exact).abs().max() <= 1e-11 * exact.abs().max()
    # A window that no layer has, and how often a pattern repeats, leave no trace.
    assert back.windows() == config.windows()
    free = {"pattern": "G", "window": 1}
    assert dataclasses.replace(back, **free) == dataclasses.replace(config, **free)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), lm.parameters(), strict=True))


def plain(**changes: Any) -> ModelConfig:
    fields = {
        "dim": 8,
        "n_layers": 2,
        "n_heads": 2,
        "n_kv_heads": 1,
        "head_dim": 4,
        "ffn_dim": 12,
        "pattern": "G",
    }
    return ModelConfig(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_byte_model_goes_there_and_back_by_its_tokenizer(tmp_path: Path) -> None:
    lm = random_lm(plain())
    save_model(lm, tmp_path / "ours", dtype=torch.bfloat16)
    assert export(tmp_path / "ours", tmp_path / "hf") == "llama"
    convert(tmp_path / "hf", tmp_path / "back")
    before, after = Shards(tmp_path / "ours"), Shards(tmp_path / "back")
    for name in before.shapes:
        kept = slice(0, BEGIN + 1) if name in ("embed.weight", "head.weight") else slice(None)
        assert torch.equal(before.read(name)[kept], after.read(name)[kept])
        assert after.dtype(name) == torch.bfloat16
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"


def test_the_exported_tokenizer_spells_bytes(tmp_path: Path) -> None:
    save_model(random_lm(plain()), tmp_path / "ours")
    export(tmp_path / "ours", tmp_path / "hf")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    text = "count from 3 to 9, naïve  «日本»\n\0\x7f"
    assert tokenizer(text)["input_ids"] == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text
    marked = f"<begin>{text}<end of prompt><elf64-x86_64>"
    ids = [BEGIN, *text.encode(), END_OF_PROMPT, FORMAT_TAGS["elf64-x86_64"]]
    assert tokenizer(marked)["input_ids"] == ids
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id) == (END_OF_FILE, BEGIN)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PRESETS["packaged"], "conv_taps is 4: the convolution before attention has no counterpart"),
        (plain(qkv_bias=True, qk_norm=True), "qkv_bias and qk_norm together"),
        (plain(dim=9), "dim 9 is not a multiple of n_heads 2"),
    ],
)
def test_a_part_without_a_counterpart_is_named(config: ModelConfig, message: str) -> None:
    with pytest.raises(UserError) as error:
        architecture_for(config)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "model_type"),
    [
        ({}, "llama"),
        ({"pattern": "LLG"}, "cwm"),
        ({"qkv_bias": True, "pattern": "LG"}, "qwen2"),
        ({"qk_norm": True, "dim": 9}, "qwen3"),
    ],
)
def test_the_architecture_follows_from_the_shape(changes: dict[str, Any], model_type: str) -> None:
    assert architecture_for(plain(**changes)) == model_type


def test_a_model_that_does_not_fit_its_config_is_not_exported(tmp_path: Path) -> None:
    save_model(random_lm(plain()), tmp_path / "ours")
    (tmp_path / "ours" / "config.json").write_text(plain(ffn_dim=13).to_json())
    with pytest.raises(UserError, match=r"blocks\.0\.ffn\.gate\.weight is \[12, 8\], not \[13, 8\]"):
        export(tmp_path / "ours", tmp_path / "hf")
    assert [p.name for p in tmp_path.iterdir()] == ["ours"]
