"""Random tiny checkpoints as transformers makes them, and transformers itself as the judge."""

import json
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()

MODEL_TYPES = ("qwen2", "qwen3", "llama", "cwm")


@st.composite
def configs(draw: st.DrawFn, model_type: str) -> dict[str, Any]:
    """Draw a tiny config of an architecture: heads, groups, windows, rotary scaling, ties."""
    n_kv, group = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2, 3]))
    heads, head_dim = n_kv * group, draw(st.sampled_from([2, 4, 6, 8, 16]))
    layers = draw(st.integers(1, 5))
    # Qwen2 has no head_dim of its own in old configs; Llama and CWM ask that the width be a multiple of the heads.
    free = model_type == "qwen3" or draw(st.booleans())
    hidden = heads * (draw(st.integers(1, 12)) if free else head_dim)
    rope: dict[str, Any] = {"rope_type": "default"}
    if draw(st.booleans()):
        rope = {
            "rope_type": "llama3",
            "factor": draw(st.floats(1.0, 32.0)),
            "low_freq_factor": draw(st.floats(0.5, 2.0)),
            "high_freq_factor": draw(st.floats(3.0, 8.0)),
            "original_max_position_embeddings": draw(st.integers(4, 64)),
        }
    values: dict[str, Any] = {
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": draw(st.integers(1, 24)),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": n_kv,
        "vocab_size": draw(st.integers(5, 40)),
        "max_position_embeddings": 64,
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5, 1e-2])),
        "tie_word_embeddings": draw(st.booleans()),
        "rope_parameters": {**rope, "rope_theta": draw(st.sampled_from([100.0, 10_000.0, 1_000_000.0]))},
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if free or model_type == "cwm":
        values["head_dim"] = head_dim
    kinds = st.lists(
        st.sampled_from(["sliding_attention", "full_attention"]), min_size=layers, max_size=layers
    )
    if model_type == "cwm":
        values["sliding_window"] = draw(st.integers(1, 9))
        values["layer_types"] = draw(kinds | st.none())
    elif model_type != "llama":
        values["use_sliding_window"] = draw(st.booleans())
        values["sliding_window"] = draw(st.integers(1, 9))
        values["max_window_layers"] = draw(st.integers(0, 5))
        if values["use_sliding_window"]:
            values["layer_types"] = draw(kinds | st.none())
    return values


def in_old_spelling(values: dict[str, Any]) -> dict[str, Any]:
    """Return a config as transformers v4 wrote it: `rope_theta`, and `rope_scaling` where rotary angles are scaled.

    For CWM, null is its default, which scales.
    """
    old = {k: v for k, v in values.items() if k != "rope_parameters"}
    rope = dict(values["rope_parameters"])
    old["rope_theta"] = rope.pop("rope_theta")
    plain = rope["rope_type"] == "default" and values["model_type"] != "cwm"
    old["rope_scaling"] = None if plain else rope
    return old


def random_model(values: dict[str, Any], seed: int = 0) -> PreTrainedModel:
    """Make transformers' model for a config, every weight random (its own norms are ones and its biases zeros)."""
    torch.manual_seed(seed)
    kind = values["model_type"]
    config = AutoConfig.for_model(kind, **{k: v for k, v in values.items() if k != "model_type"})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.normal_(1.0 if "norm" in name else 0.0, 0.4)
            else:
                p.normal_(0.0, 1.0 if "embed" in name else p.shape[1] ** -0.5)
    return model.eval()


def save(model: PreTrainedModel, folder: Path, values: dict[str, Any] | None = None, **options: Any) -> Path:
    """Save a checkpoint as transformers does; `values` replace the config that it writes."""
    model.save_pretrained(folder, **options)
    if values is not None:
        (folder / "config.json").write_text(json.dumps(values))
    return folder


@torch.no_grad()
def judged(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Return transformers' logits [B, T, V] in float64; its norms compute in float32, so torch's stand in for them."""
    model = model.double()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                norm = nn.RMSNorm(child.weight.shape[0], eps=child.variance_epsilon, dtype=torch.float64)
                norm.weight.data.copy_(child.weight)
                setattr(parent, name, norm)
    return model(input_ids=tokens).logits
