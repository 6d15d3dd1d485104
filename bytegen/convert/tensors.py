"""Names of tensors, ours and those of transformers' Llama family. Shapes and layouts are the same."""

from __future__ import annotations

import re

OUTSIDE = {
    "embed.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
INSIDE = {
    "attention_norm": "input_layernorm",
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
}  # fmt: skip
"""Modules within a layer."""

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")

IGNORED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
"""What old checkpoints carry and nobody reads: tables that follow from the config."""


def theirs(name: str) -> str:
    """Return transformers' name of our tensor `name`; KeyError where it has none (the convolution)."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    match = _BLOCK.fullmatch(name)
    if match is None or match[2] not in INSIDE:
        raise KeyError(name)
    return f"model.layers.{match[1]}.{INSIDE[match[2]]}.{match[3]}"
