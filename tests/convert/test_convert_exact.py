"""Checkpoints convert exactly: logits are those of transformers, whatever the shape."""

import tempfile
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import MODEL_TYPES, configs, in_old_spelling, judged, random_model, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

import bytegen
from bytegen.cache import Cache
from bytegen.convert import convert
from bytegen.convert.architectures import model_config, shortest_pattern
from bytegen.errors import UserError
from bytegen.shards import Shards

SLOW_DRAWS = [HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@settings(max_examples=12, deadline=None, suppress_health_check=SLOW_DRAWS)
@given(data=st.data())
def test_the_logits_are_those_of_transformers(model_type: str, data: st.DataObject) -> None:
    values = data.draw(configs(model_type))
    old, shard = data.draw(st.booleans()), data.draw(st.sampled_from(["2KB", "5GB"]))
    model = random_model(values)
    tokens = torch.randint(0, values["vocab_size"], (2, data.draw(st.integers(1, 24))))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        source = save(
            model, Path(folder, "hf"), in_old_spelling(values) if old else None, max_shard_size=shard
        )
        convert(source, Path(folder, "ours"), keep_vocabulary=True, max_shard_bytes=3000)
        single, theirs = bytegen.load(Path(folder, "ours"))(tokens), model(input_ids=tokens).logits
        double, exact = bytegen.load(Path(folder, "ours"), dtype=torch.float64)(tokens), judged(model, tokens)
    scale = exact.abs().max()
    assert (double - exact).abs().max() <= 1e-11 * scale
    # Some draws are ill-conditioned: float32 may then err more, and does so in transformers too.
    assert (single - exact).abs().max() <= max(1e-5 * scale, 10 * (theirs - exact).abs().max())


SMALL = {
    "model_type": "qwen2", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 20, "max_position_embeddings": 64,
    "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1, "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
}  # fmt: skip


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return save(random_model(SMALL), tmp_path / "hf")


def test_decoding_with_caches_gives_the_logits_of_transformers(small: Path, tmp_path: Path) -> None:
    convert(small, tmp_path / "ours", keep_vocabulary=True)
    lm = bytegen.load(tmp_path / "ours")
    tokens = torch.randint(0, 20, (1, 17))
    cache = Cache(lm.config, batch=1, max_length=17, chunk=5)
    with torch.no_grad():
        expected = random_model(SMALL)(input_ids=tokens).logits
    torch.testing.assert_close(lm.prefill(tokens, cache), expected[:, -1], rtol=1e-5, atol=2e-5)


def test_layers_without_a_period_are_a_pattern_as_long_as_the_model(small: Path, tmp_path: Path) -> None:
    config = convert(small, tmp_path / "ours", keep_vocabulary=True)
    assert (config.pattern, config.window) == ("GLL", 3)
    assert config.windows() == [None, 3, 3]


@settings(deadline=None)
@given(st.text("LG", min_size=1, max_size=12))
def test_the_shortest_pattern_gives_the_layers_again(layers: str) -> None:
    pattern = shortest_pattern(layers)
    assert (pattern * len(layers))[: len(layers)] == layers
    assert all((layers[:n] * len(layers))[: len(layers)] != layers for n in range(1, len(pattern)))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_what_a_config_leaves_out_has_the_defaults_of_transformers(model_type: str) -> None:
    sizes = {
        "hidden_size": 256, "intermediate_size": 32, "num_hidden_layers": 30, "num_attention_heads": 8,
        "vocab_size": 40, "max_position_embeddings": 64, "num_key_value_heads": 4,
    }  # fmt: skip
    switch = {"use_sliding_window": True} if model_type.startswith("qwen") else {}
    whole = AutoConfig.for_model(model_type, **sizes, **switch).to_dict()
    assert model_config({"model_type": model_type, **sizes, **switch}) == model_config(whole)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_dtype_is_kept_unless_another_is_asked_for(dtype: torch.dtype, tmp_path: Path) -> None:
    model = random_model(SMALL).to(dtype)
    source = save(model, tmp_path / "hf")
    convert(source, tmp_path / "same", keep_vocabulary=True)
    convert(source, tmp_path / "wide", keep_vocabulary=True, dtype=torch.float32)
    embedding = model.model.embed_tokens.weight
    for folder, kept in (("same", dtype), ("wide", torch.float32)):
        shards = Shards(tmp_path / folder)
        assert {shards.dtype(name) for name in shards.shapes} == {kept}
        assert torch.equal(shards.read("embed.weight"), embedding.to(kept))
    lm = bytegen.load(tmp_path / "same", dtype=dtype)
    assert {p.dtype for p in lm.parameters()} == {dtype}
    assert lm.inv_freq.dtype == torch.float32


def test_values_past_the_range_of_a_dtype_are_refused(tmp_path: Path) -> None:
    model = random_model(SMALL)
    with torch.no_grad():
        model.model.norm.weight[3] = 1e5
    source = save(model, tmp_path / "hf")
    with pytest.raises(UserError, match=r"model\.norm\.weight has values past the range of float16"):
        convert(source, tmp_path / "ours", keep_vocabulary=True, dtype=torch.float16)
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


@pytest.mark.parametrize("changed", [False, True])
def test_a_head_beside_tied_embeddings_must_equal_them(small: Path, tmp_path: Path, changed: bool) -> None:
    tensors = load_file(small / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + changed
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)  # old checkpoints have it
    save_file(tensors, small / "model.safetensors")
    if changed:
        with pytest.raises(UserError, match="tie_word_embeddings"):
            convert(small, tmp_path / "ours", keep_vocabulary=True)
    else:
        assert convert(small, tmp_path / "ours", keep_vocabulary=True).tied


def test_context_and_local_layers_can_be_changed_for_training(small: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"pattern": "LG", "window": 7, "max_positions": 163_840}
    config = convert(small, tmp_path / "ours", keep_vocabulary=True, **changes)
    assert bytegen.load(tmp_path / "ours").config == config
    assert {name: getattr(config, name) for name in changes} == changes
    assert "max_positions 163840" in (tmp_path / "ours" / "README.md").read_text()


@pytest.mark.parametrize("limit", [600, 2000, 10**9])
def test_the_tensors_of_one_shard_are_alive_at_a_time(
    limit: int, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted as they are read and freed; tensors here take up to 640 bytes each."""
    alive = {"now": 0, "most": 0, "read": 0}
    read = Shards.read

    def count(n: int) -> None:
        alive["now"] += n
        alive["most"] = max(alive["most"], alive["now"])

    def counted(self: Shards, name: str) -> torch.Tensor:
        tensor = read(self, name).clone()
        alive["read"] += tensor.nbytes
        count(tensor.nbytes)
        weakref.finalize(tensor, count, -tensor.nbytes)
        return tensor

    monkeypatch.setattr(Shards, "read", counted)
    convert(small, tmp_path / "ours", keep_vocabulary=True, max_shard_bytes=limit)
    total = sum(p.numel() * 4 for p in random_model(SMALL).parameters())
    assert alive["read"] == total
    assert alive["most"] <= max(limit, 640)
    assert (alive["most"] == total) == (limit > total)
