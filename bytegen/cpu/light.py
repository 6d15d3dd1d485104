"""`LightLM`: a model for the C decoder alone, read without torch, whose import takes longer than a small file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bytegen.config import ModelConfig
from bytegen.cpu.binding import library
from bytegen.cpu.decoder import Decoder
from bytegen.folders import DRAFTS, HEADS, MTP, SINGLE, model_folder, read_config
from bytegen.precision import DYNAMIC, check_precision, reduce_arrays

if TYPE_CHECKING:
    from bytegen.decoding.drafts import NGrams


@dataclass(frozen=True)
class LightLM:
    """What generation asks of a model: its shape, its decoder, and its table of drafts if it has one.

    It writes the files that `bytegen.load` of the same folder writes on a CPU, bit for bit.
    """

    config: ModelConfig
    decoder: Decoder
    draft_table: NGrams | None

    @classmethod
    def load(cls, name: str | Path | None = None, *, precision: str = "fp32") -> LightLM | None:
        """A packaged model by name, or a folder, in a `bytegen.precision`; None where `bytegen.load` is needed.

        That is where the C library was not compiled, the weights are in shards or not in float32 or float16, and
        where anything is wrong with the files: `bytegen.load` says what. UserError for a name that is no model, or
        another's config, and for an unknown precision.
        """
        check_precision(precision)
        folder = model_folder(name)
        config = read_config(folder)
        if library is None:
            return None
        arrays = _read(folder / SINGLE)
        if arrays is not None and (folder / HEADS).exists():
            heads = _read(folder / HEADS)
            arrays = None if heads is None or arrays.keys() & heads.keys() else arrays | heads
        if arrays is None or {key: a.shape for key, a in arrays.items()} != tensor_shapes(config):
            return None
        table = None
        if (folder / DRAFTS).exists():
            from bytegen.decoding.drafts import NGrams

            table = NGrams.load(folder / DRAFTS)
        decoder = Decoder(config, reduce_arrays(arrays, precision), dynamic=precision == DYNAMIC)
        return cls(config, decoder, table)


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a safetensors file; None where it cannot be read, or holds anything but float32 and float16."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            names = list(file.keys())
            if any(file.get_slice(name).get_dtype() not in ("F32", "F16") for name in names):
                return None
            return {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError):
        return None


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's tensors by name, as its class makes them."""
    dim, ffn, size = config.dim, config.ffn_dim, config.head_dim
    q, kv = config.n_heads * size, config.n_kv_heads * size
    found: dict[str, tuple[int, ...]] = {"embed.weight": (config.vocab_size, dim), "norm.weight": (dim,)}
    if not config.tied:
        found["head.weight"] = (config.vocab_size, dim)
    found |= {f"{MTP}{k}.proj.weight": (dim, dim) for k in range(config.mtp_heads)}
    for i in range(config.n_layers):
        layer: dict[str, tuple[int, ...]] = {
            "attention_norm.weight": (dim,), "ffn_norm.weight": (dim,),
            "attention.q.weight": (q, dim), "attention.k.weight": (kv, dim), "attention.v.weight": (kv, dim),
            "attention.out.weight": (dim, q),
            "ffn.gate.weight": (ffn, dim), "ffn.up.weight": (ffn, dim), "ffn.down.weight": (dim, ffn),
        }  # fmt: skip
        if config.qkv_bias:
            layer |= {f"attention.{x}.bias": (width,) for x, width in (("q", q), ("k", kv), ("v", kv))}
        if config.qk_norm:
            layer |= {"attention.q_norm.weight": (size,), "attention.k_norm.weight": (size,)}
        if config.conv_taps > 1:
            layer["attention.conv.weight"] = (config.conv_taps, dim)
        found |= {f"blocks.{i}.{key}": shape for key, shape in layer.items()}
    return found
