"""A model's weights as `decoder.c` reads them, from arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bytegen.config import ModelConfig
from bytegen.cpu.binding import BLOCK, Layer, Linear, Model, padded


def inverse_frequencies(config: ModelConfig) -> np.ndarray:
    """RoPE's inverse frequencies, float32 [E/2], with Llama 3's scaling where the config has it.

    Those of `bytegen.model`, but for a unit in the last place of few: powers are correctly rounded here.
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    freqs = np.float32(1) / (np.float64(config.rope_theta) ** exponents.astype(np.float64)).astype(np.float32)
    s = config.rope_scaling
    if s is None:
        return freqs
    wavelength = 2 * math.pi / freqs
    low, high = s.original_max_positions / s.low_freq_factor, s.original_max_positions / s.high_freq_factor
    smooth = (s.original_max_positions / wavelength - s.low_freq_factor) / (
        s.high_freq_factor - s.low_freq_factor
    )
    between = (1 - smooth) * freqs / s.factor + smooth * freqs
    scaled = np.where(wavelength > low, freqs / s.factor, np.where(wavelength < high, freqs, between))
    return scaled.astype(np.float32)


def exact_in_half(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether float16 holds every weight of the matrices as it is, so that they can be read in half the bytes."""
    matrices = (a for a in arrays.values() if a.ndim == 2 and a.dtype != np.float16)
    with np.errstate(over="ignore"):
        return all(bool((a.astype(np.float16) == a).all()) for a in matrices)


class Weights:
    """`model` points into arrays that this object keeps. `arrays` are named as in a model's state."""

    def __init__(
        self,
        config: ModelConfig,
        arrays: Mapping[str, np.ndarray],
        *,
        half: bool,
        half_cache: bool,
        lanes: int,
    ) -> None:
        self._kept: list[Any] = []
        self._half, self._arrays = half, arrays
        layers = [self._layer(f"blocks.{i}", window) for i, window in enumerate(config.windows())]
        table = (Layer * len(layers))(*layers)
        self._kept.append(table)
        self.model = Model(
            config.dim, config.n_layers, config.n_heads, config.n_kv_heads, config.head_dim, config.conv_taps,
            int(half), int(half_cache), lanes, config.norm_eps, table, self._vector("embed.weight"),
            self._vector("norm.weight"), self._pointer(inverse_frequencies(config)),
            self._linear("embed" if config.tied else "head"),
        )  # fmt: skip
        del self._arrays

    def _pointer(self, array: np.ndarray, dtype: type = np.float32) -> int:
        # A copy always: the source may be memory that changes, or a file.
        kept: np.ndarray = np.array(array, dtype=dtype, order="C", copy=True)
        self._kept.append(kept)
        return kept.ctypes.data

    def _vector(self, name: str) -> int | None:
        array = self._arrays.get(name)
        return None if array is None else self._pointer(array)

    def _linear(self, name: str) -> Linear:
        weight, bias = self._arrays[f"{name}.weight"], self._arrays.get(f"{name}.bias")
        out, width = weight.shape
        filled = np.zeros((padded(out), width), weight.dtype)
        filled[:out] = weight
        blocks = filled.reshape(-1, BLOCK, width).transpose(0, 2, 1)
        stored = self._pointer(blocks, np.float16 if self._half else np.float32)
        added = None if bias is None else self._pointer(np.pad(bias, (0, padded(out) - out)))
        return Linear(stored, added, len(blocks), width)

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
