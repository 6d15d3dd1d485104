"""`export`: a byte model becomes a checkpoint that transformers loads, where an architecture there has its shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bytegen import tokenizer
from bytegen.config import ModelConfig
from bytegen.convert.architectures import ARCHITECTURES, FULL, SLIDING
from bytegen.convert.tensors import theirs
from bytegen.convert.transplant import byte_characters
from bytegen.errors import UserError
from bytegen.folders import MTP
from bytegen.limits import check_disk, check_memory, memory_errors
from bytegen.shards import DTYPES, MAX_SHARD_BYTES, LazyTensor, Shards, check_shapes, peak_bytes, write_shards
from bytegen.weights import empty_model, memory_advice, model_folder, new_folder, read_config, shapes_of


def architecture_for(config: ModelConfig) -> str:
    """Return the `model_type` whose logits are this model's; UserError names the part without a counterpart."""
    if config.conv_taps > 1:
        raise UserError(
            f"conv_taps is {config.conv_taps}: the convolution before attention has no counterpart in transformers'"
            f" {', '.join(ARCHITECTURES)}"
        )
    if config.qkv_bias and config.qk_norm:
        raise UserError(
            "qkv_bias and qk_norm together have no counterpart: Qwen2 has the one, Qwen3 the other"
        )
    if config.qkv_bias or config.qk_norm:
        return "qwen2" if config.qkv_bias else "qwen3"
    if config.dim % config.n_heads:
        raise UserError(
            f"dim {config.dim} is not a multiple of n_heads {config.n_heads}, which transformers' Llama and CWM ask for"
        )
    return "cwm" if any(config.windows()) else "llama"


def transformers_config(config: ModelConfig, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """Return the config.json of a checkpoint, in the spellings of transformers v4 and v5 both."""
    model_type = architecture_for(config)
    windows = config.windows()
    rope: dict[str, Any] = {"rope_type": "default"}
    if config.rope_scaling is not None:
        rope = {
            "rope_type": "llama3",
            "factor": config.rope_scaling.factor,
            "low_freq_factor": config.rope_scaling.low_freq_factor,
            "high_freq_factor": config.rope_scaling.high_freq_factor,
            "original_max_position_embeddings": config.rope_scaling.original_max_positions,
        }
    values: dict[str, Any] = {
        "architectures": [ARCHITECTURES[model_type].class_name],
        "model_type": model_type,
        "hidden_size": config.dim,
        "intermediate_size": config.ffn_dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": rope,
        "rope_parameters": {**rope, "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tied,
        "attention_bias": False,
        "mlp_bias": False,
    }
    if model_type != "llama":
        values["layer_types"] = [FULL if w is None else SLIDING for w in windows]
        values["sliding_window"] = config.window
    if model_type in ("qwen2", "qwen3"):
        values["use_sliding_window"] = any(windows)
        values["max_window_layers"] = config.n_layers
    if config.of_bytes:
        values |= {
            "bos_token_id": tokenizer.BEGIN,
            "eos_token_id": tokenizer.END_OF_FILE,
            "pad_token_id": tokenizer.PADDING,
        }
    if dtype is not None:
        values["dtype"] = values["torch_dtype"] = str(dtype).removeprefix("torch.")
    return values


def byte_tokenizer() -> dict[str, Any]:
    """Return a tokenizer.json whose ids are those of `bytegen.tokenizer`: a byte-level BPE without merges."""
    specials = {
        "<end of file>": tokenizer.END_OF_FILE,
        "<begin>": tokenizer.BEGIN,
        "<end of prompt>": tokenizer.END_OF_PROMPT,
        "<padding>": tokenizer.PADDING,
        "<parameters>": tokenizer.PARAMETERS,
        **{f"<trace {name}>": i for name, i in tokenizer.TRACE_MARKS.items()},
        **{f"<{name}>": i for name, i in tokenizer.FORMAT_TAGS.items()},
    }
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    vocabulary = {character: b for b, character in enumerate(byte_characters())}
    return {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": text, **flags} for text, i in specials.items()],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {**vocabulary, **specials}, "merges": []},
    }


def export(
    name: str | Path | None, out: str | Path, *, max_shard_bytes: int = MAX_SHARD_BYTES,
    on_tensor: Callable[[int], None] | None = None,
) -> str:  # fmt: skip
    """Write the byte model `name` (a packaged one, or a folder) as a checkpoint of transformers; return its model_type.

    A model over bytes gets a tokenizer.json too. Multi-token prediction heads are left out: transformers has none, and
    no logit depends on them. Memory as in `convert`. Raises UserError where the shape has no counterpart (says which
    part), tensors do not fit, `out` is there already, or disk or memory are too small.
    """
    folder, out = model_folder(name), Path(out)
    config = read_config(folder)
    model_type = architecture_for(config)
    with memory_errors(f"exporting {folder}", memory_advice(config)):
        shards = Shards(folder)
        shapes = shapes_of(empty_model(config))
        check_shapes(shards.shapes, shapes, shards.where)
        tensors: dict[str, LazyTensor] = {}
        for ours in shapes:
            if not ours.startswith(MTP):
                tensors[theirs(ours)] = shards.lazy(ours)
        found = {lazy.dtype for lazy in tensors.values()}
        widest = next(dtype for dtype in DTYPES.values() if dtype in found)
        check_memory(peak_bytes(tensors, max_shard_bytes), f"exporting {folder}", memory_advice(config))
        with new_folder(out) as scratch:
            check_disk(sum(lazy.nbytes for lazy in tensors.values()), out)
            write_shards(scratch, tensors, max_shard_bytes=max_shard_bytes, on_tensor=on_tensor)
            _write_json(scratch / "config.json", transformers_config(config, widest))
            if config.of_bytes:
                _write_json(scratch / "tokenizer.json", byte_tokenizer())
                special = {"bos_token": "<begin>", "eos_token": "<end of file>", "pad_token": "<padding>"}
                kind = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
                _write_json(scratch / "tokenizer_config.json", {**kind, **special})
    return model_type


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")
