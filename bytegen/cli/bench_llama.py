"""llama.cpp on the same weights: a GGUF file of the Qwen3 shape, sampled through llama-cpp-python."""

from __future__ import annotations

import atexit
import importlib.util
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 0.02
"""How far llama.cpp's logits may be from ours, of the largest: its key-value cache is float16, and so are ours."""


def missing(lm: Any, positions: int) -> str | None:
    """Why llama.cpp cannot be set beside this model for files of so many positions; None if it can."""
    absent = [name for name in ("llama_cpp", "gguf") if importlib.util.find_spec(name) is None]
    if absent:
        return "not installed (pip install llama-cpp-python gguf)"
    config = lm.config
    if not config.qk_norm or config.qkv_bias or config.rope_scaling or config.conv_taps > 1:
        return "it has this shape only with norms of queries and keys, and without biases, convolution and scaling"
    if min(window or positions for window in config.windows()) < positions:
        return f"windows of fewer than {positions} positions are left out of its Qwen3 shape"
    return None


def write_gguf(lm: Any, path: Path, *, half: bool) -> None:
    """Write a model as GGUF, architecture qwen3: matrices in float16 if `half`, else float32, norms in float32.

    The vocabulary is the bytes, and names for the marks behind them. Names of tensors and keys: llama.cpp,
    `gguf-py/gguf/constants.py`.
    """
    from gguf import GGUFWriter, TokenType

    config, arrays = lm.config, {name: t.detach().numpy() for name, t in lm.state_dict().items()}
    writer = GGUFWriter(path, "qwen3")
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.ffn_dim)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_vocab_size(config.vocab_size)
    marks = config.vocab_size - 256
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*(f"<0x{i:02X}>" for i in range(256)), *(f"<mark {i}>" for i in range(marks))])
    writer.add_token_scores([0.0] * config.vocab_size)
    writer.add_token_types([int(TokenType.BYTE)] * 256 + [int(TokenType.CONTROL)] * marks)
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)

    def add(name: str, source: str) -> None:
        array = arrays[source]
        writer.add_tensor(name, array.astype(np.float16 if half and array.ndim == 2 else np.float32))

    add("token_embd.weight", "embed.weight")
    add("output_norm.weight", "norm.weight")
    if not config.tied:
        add("output.weight", "head.weight")
    names = {
        "attn_norm": "attention_norm", "attn_q": "attention.q", "attn_k": "attention.k", "attn_v": "attention.v",
        "attn_q_norm": "attention.q_norm", "attn_k_norm": "attention.k_norm", "attn_output": "attention.out",
        "ffn_norm": "ffn_norm", "ffn_gate": "ffn.gate", "ffn_up": "ffn.up", "ffn_down": "ffn.down",
    }  # fmt: skip
    for i in range(config.n_layers):
        for theirs, ours in names.items():
            add(f"blk.{i}.{theirs}.weight", f"blocks.{i}.{ours}.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCpp:
    """A model in llama.cpp, on so many threads."""

    def __init__(self, lm: Any, *, half: bool, threads: int, positions: int) -> None:
        from llama_cpp import Llama

        with tempfile.TemporaryDirectory(prefix="bytegen-bench-") as folder:
            write_gguf(lm, Path(folder) / "model.gguf", half=half)
            # Without a map of the file, which goes away with the folder.
            self.model: Any = Llama(
                str(Path(folder) / "model.gguf"), n_ctx=positions, n_batch=positions, n_threads=threads,
                n_threads_batch=threads, use_mmap=False, logits_all=False, verbose=False,
            )  # fmt: skip
        atexit.register(self.model.close)  # later it would find its library gone

    def logits(self, ids: list[int]) -> np.ndarray:
        """float32 [V], after the last of `ids`."""
        import llama_cpp

        self.model.reset()
        self.model.eval(ids)
        found = llama_cpp.llama_get_logits_ith(self.model.ctx, -1)
        return np.ctypeslib.as_array(found, shape=(self.model.n_vocab(),)).copy()

    def check(self, lm: Any, ids: list[int]) -> float:
        """How far its logits are from the model's own, of the largest; RuntimeError past `TOLERANCE`."""
        import torch

        with torch.no_grad():
            want = lm(torch.tensor([ids]))[0, -1].numpy()
        off = float(np.abs(self.logits(ids) - want).max() / np.abs(want).max())
        if off > TOLERANCE:
            raise RuntimeError(f"llama.cpp's logits are off by {off:.3g} of the largest: not the same model")
        return off

    def __call__(self, ids: list[int], new: int, temperature: float) -> float:
        """Bytes a second of drawing `new` ids after `ids` from the whole distribution, one at a time."""
        began = time.perf_counter()
        drawn = self.model.generate(
            ids,
            temp=temperature,
            top_k=0,
            top_p=1.0,
            min_p=0.0,
            typical_p=1.0,
            repeat_penalty=1.0,
            reset=True,
        )
        for _ in range(new):
            next(drawn)
        seconds = time.perf_counter() - began
        drawn.close()
        self.model.reset()
        return new / seconds
