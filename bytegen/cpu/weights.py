"""A model's weights as `decoder.c` reads them, from arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bytegen.config import ModelConfig
from bytegen.cpu.binding import BLOCK, Layer, Linear, Model, aligned, padded
from bytegen.folders import MTP
from bytegen.precision import as_bfloat16


def inverse_frequencies(config: ModelConfig) -> np.ndarray:
    """RoPE's inverse frequencies, float32 [E/2], with Llama 3's scaling where the config has it.

    Those of `bytegen.model`, but for a unit in the last place of few: powers are correctly rounded here.
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    freqs = np.float32(1) / (np.float64(config.rope_theta) ** exponents.astype(np.float64)).astype(np.float32)
    s = config.rope_scaling
    return freqs if s is None else s.scaled(freqs, np.where).astype(np.float32)


KINDS = ("float32", "float16", "bfloat16", "int8", "int8-dynamic")
"""What matrices are held in, as `decoder.c` numbers it."""


CACHES = (np.float32, np.float16, np.int8)
"""What keys and values are held in, as `sets.h` numbers it."""

OFFSET = 128
"""What makes a byte with a sign one without."""


def narrowest(arrays: Mapping[str, np.ndarray]) -> str:
    """The kind of 16 bits that holds every weight of the matrices as it is, or float32; those in int8 stay so."""
    matrices = [a for a in arrays.values() if a.ndim == 2 and a.dtype != np.int8]
    with np.errstate(over="ignore"):
        if all(bool((a.astype(np.float16) == a).all()) for a in matrices):
            return "float16"
    return "bfloat16" if all(bool((as_bfloat16(a) == a).all()) for a in matrices) else "float32"


class Weights:
    """`model` points into arrays that this object keeps. `arrays` are named as in a model's state.

    `dynamic` says that maps of int8 weights round their inputs to int8 too.
    """

    def __init__(
        self,
        config: ModelConfig,
        arrays: Mapping[str, np.ndarray],
        *,
        held: str,
        cache_dtype: type,
        lanes: int,
        dynamic: bool = False,
    ) -> None:
        self._kept: list[Any] = []
        self._held, self._arrays, self._dynamic = held, arrays, dynamic
        layers = [self._layer(f"blocks.{i}", window) for i, window in enumerate(config.windows())]
        table = (Layer * len(layers))(*layers)
        heads = [self._linear(f"{MTP}{k}.proj") for k in range(config.mtp_heads)]
        mtp = (Linear * len(heads))(*heads)
        self._kept += [table, mtp]
        self.model = Model(
            config.dim, config.n_layers, config.n_heads, config.n_kv_heads, config.head_dim, config.conv_taps,
            CACHES.index(cache_dtype), lanes, config.norm_eps, table, self._vector("embed.weight"),
            self._vector("norm.weight"), self._pointer(inverse_frequencies(config)),
            self._linear("embed" if config.tied else "head"), mtp, config.mtp_heads,
        )  # fmt: skip
        del self._arrays

    @property
    def nbytes(self) -> int:
        """The bytes of all weights."""
        return sum(kept.nbytes for kept in self._kept if isinstance(kept, np.ndarray))

    def _pointer(self, array: np.ndarray, kind: str = "float32") -> int:
        # A copy always: the source may be memory that changes, or a file.
        if kind == "bfloat16":
            array = (np.array(array, np.float32, order="C").view(np.uint32) >> 16).astype(np.uint16)
            kind = "uint16"
        kept = aligned(array.shape, kind)
        kept[...] = array
        self._kept.append(kept)
        return kept.ctypes.data

    def _vector(self, name: str) -> int | None:
        array = self._arrays.get(name)
        return None if array is None else self._pointer(array)

    def _linear(self, name: str) -> Linear:
        weight = self._arrays[f"{name}.weight"]
        kind = "int8" if weight.dtype == np.int8 else self._held
        out, width = weight.shape
        whole = kind == "int8" and self._dynamic
        filled = np.zeros((padded(out), -(-width // 4) * 4 if whole else width), weight.dtype)
        filled[:out, :width] = weight
        columns = (self._arrays.get(f"{name}.{column}") for column in ("bias", "scale"))
        pointers = [None if x is None else self._pointer(np.pad(x, (0, padded(out) - out))) for x in columns]
        if whole:
            blocks = filled.reshape(len(filled) // BLOCK, BLOCK, -1, 4).transpose(0, 2, 1, 3)
            sums = self._pointer(OFFSET * filled.sum(1, dtype=np.int32), "int32")
        else:
            blocks, sums = filled.reshape(len(filled) // BLOCK, BLOCK, -1).transpose(0, 2, 1), None
        number = KINDS.index("int8-dynamic" if whole else kind)
        return Linear(self._pointer(blocks, kind), *pointers, sums, len(blocks), width, number)

    def _layer(self, block: str, window: int | None) -> Layer:
        names = (
            "attention.q",
            "attention.k",
            "attention.v",
            "attention.out",
            "ffn.gate",
            "ffn.up",
            "ffn.down",
        )
        norms = ("attention_norm", "ffn_norm", "attention.q_norm", "attention.k_norm", "attention.conv")
        return Layer(
            *(self._linear(f"{block}.{name}") for name in names),
            *(self._vector(f"{block}.{name}.weight") for name in norms), window or 0,
        )  # fmt: skip
