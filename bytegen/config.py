"""Shapes of models: the config, its arithmetic (parameters, FLOPs, cache), and the table of presets."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bytegen.errors import UserError
from bytegen.tokenizer import VOCAB_SIZE


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Llama 3's frequency scaling of rotary embeddings (as `rope_type: llama3` in transformers)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int

    def scaled(self, freqs: Any, where: Callable[[Any, Any, Any], Any]) -> Any:
        """Inverse frequencies scaled: an array with numpy's `where`, or a tensor with torch's."""
        wavelength = 2 * math.pi / freqs
        low = self.original_max_positions / self.low_freq_factor
        high = self.original_max_positions / self.high_freq_factor
        smooth = (self.original_max_positions / wavelength - self.low_freq_factor) / (
            self.high_freq_factor - self.low_freq_factor
        )
        between = (1 - smooth) * freqs / self.factor + smooth * freqs
        return where(wavelength > low, freqs / self.factor, where(wavelength < high, freqs, between))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder-only transformer over bytes.

    `pattern` repeats over the layers: "L" is local (a query sees `window` keys at most, itself
    included), "G" is global. `conv_taps` > 1 adds a causal depthwise convolution on the normalised
    input of attention. `dim` is the width of the residual stream, `head_dim` that of one head.

    `mtp_heads` counts multi-token prediction heads (Gloeckle et al. 2024), each a residual SiLU block as Medusa's
    (Cai et al. 2024): head k predicts, from what the model predicts a byte from, the byte k places behind that one.
    They serve to draft (see `decoding`), and change nothing of what the model writes.
    """

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn_dim: int
    pattern: str = "LLLG"
    window: int = 8192
    vocab_size: int = VOCAB_SIZE
    max_positions: int = 163_840
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    qkv_bias: bool = False
    qk_norm: bool = False
    tied: bool = False
    conv_taps: int = 0
    mtp_heads: int = 0

    def __post_init__(self) -> None:
        if self.n_heads % self.n_kv_heads:
            raise UserError(f"n_heads={self.n_heads} is not a multiple of n_kv_heads={self.n_kv_heads}")
        if not self.pattern or set(self.pattern) - {"L", "G"}:
            raise UserError(f"pattern={self.pattern!r}: only the letters L (local) and G (global) are layers")
        if self.head_dim % 2:
            raise UserError(f"head_dim={self.head_dim} is odd; rotary embeddings need pairs")
        if self.window < 1:
            raise UserError(f"window={self.window}: a query sees at least itself, so at least 1")
        if self.mtp_heads < 0:
            raise UserError(f"mtp_heads={self.mtp_heads} must be 0 or more")
        for name in (
            "dim",
            "n_layers",
            "n_heads",
            "n_kv_heads",
            "head_dim",
            "ffn_dim",
            "vocab_size",
            "max_positions",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")

    @property
    def of_bytes(self) -> bool:
        """Whether the ids are those of `bytegen.tokenizer`: bytes and marks, not a checkpoint's own tokens."""
        return self.vocab_size == VOCAB_SIZE

    def windows(self) -> list[int | None]:
        """Return each layer's window; None where the layer is global."""
        return [
            self.window if self.pattern[i % len(self.pattern)] == "L" else None for i in range(self.n_layers)
        ]

    def n_params(self) -> int:
        """Return the number of parameters, embeddings and multi-token prediction heads included."""
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        attention = self.dim * (q + 2 * kv) + q * self.dim
        attention += (q + 2 * kv) if self.qkv_bias else 0
        attention += 2 * self.head_dim if self.qk_norm else 0
        attention += self.dim * self.conv_taps if self.conv_taps > 1 else 0
        layer = attention + 3 * self.dim * self.ffn_dim + 2 * self.dim
        ends = self.dim + self.vocab_size * self.dim * (1 if self.tied else 2)
        return self.n_layers * layer + ends + self.mtp_params()

    def mtp_params(self) -> int:
        """Return the number of parameters of the multi-token prediction heads; the unembedding is the model's own."""
        return self.mtp_heads * self.dim * self.dim

    def flops_per_byte(self, position: int = 0) -> int:
        """Return the multiply-adds, times two, of one forward step at `position` (keys before it included).

        Multi-token prediction heads are no part of it: see `mtp_flops`.
        """
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        layer = self.dim * (2 * q + 2 * kv) + 3 * self.dim * self.ffn_dim
        layer += self.dim * self.conv_taps if self.conv_taps > 1 else 0
        matmuls = self.n_layers * layer + self.dim * self.vocab_size
        keys = sum(min(position + 1, w) if w else position + 1 for w in self.windows())
        return 2 * matmuls + 4 * q * keys

    def mtp_flops(self) -> int:
        """Return the multiply-adds, times two, of all multi-token prediction heads after one byte."""
        return 2 * self.mtp_heads * self.dim * (self.dim + self.vocab_size)

    def cache_bytes(self, length: int, *, batch: int = 1, chunk: int = 256, bytes_per_value: int = 4) -> int:
        """Return the size of the key-value cache of `batch` sequences of `length` positions.

        Local layers keep a ring of window + chunk positions, global layers keep all `length`;
        a convolution keeps its last inputs.
        """
        row = 2 * self.n_kv_heads * self.head_dim
        values = sum(row * (min(w + chunk, length) if w else length) for w in self.windows())
        if self.conv_taps > 1:
            values += self.n_layers * self.dim * (self.conv_taps - 1 + chunk)
        return batch * values * bytes_per_value

    def to_json(self) -> str:
        """Return the config as JSON text (`config.json` beside the weights)."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "config.json") -> ModelConfig:
        """Read a config; UserError names `where` and the field that is missing, unknown or wrong."""
        try:
            values: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise UserError(f"{where} is no JSON: {error}") from None
        if not isinstance(values, dict):
            raise UserError(f"{where} holds a {type(values).__name__}; it must be an object of config fields")
        fields = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise UserError(f"{where} has the unknown field {unknown[0]!r}; known are {', '.join(fields)}")
        missing = sorted(n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in values)
        if missing:
            raise UserError(f"{where} lacks the field {missing[0]!r}")
        try:
            if values.get("rope_scaling"):
                values["rope_scaling"] = RopeScaling(**values["rope_scaling"])
            return cls(**values)
        except TypeError as error:
            raise UserError(f"{where}: {error}") from None


PRESETS: dict[str, ModelConfig] = {
    # CPU sizes. Windows are longer than the corpus' files, so that a local layer sees a whole small program.
    "nano": ModelConfig(dim=64, n_layers=2, n_heads=2, n_kv_heads=2, head_dim=32, ffn_dim=160, window=512,
                        pattern="LG", qk_norm=True, tied=True, conv_taps=4),
    "packaged": ModelConfig(dim=192, n_layers=6, n_heads=3, n_kv_heads=3, head_dim=64, ffn_dim=512, window=1024,
                            pattern="LLG", qk_norm=True, tied=True, conv_taps=4),
    # GPU sizes.
    "125m": ModelConfig(dim=768, n_layers=16, n_heads=12, n_kv_heads=4, head_dim=64, ffn_dim=2048,
                        rope_theta=500_000.0, qk_norm=True, conv_taps=4),
    "1b": ModelConfig(dim=2048, n_layers=20, n_heads=16, n_kv_heads=4, head_dim=128, ffn_dim=6144,
                      rope_theta=500_000.0, qk_norm=True, conv_taps=4),
    # Shapes of published models, over bytes.
    "7b": ModelConfig(dim=3584, n_layers=28, n_heads=28, n_kv_heads=4, head_dim=128, ffn_dim=18_944,
                      rope_theta=1_000_000.0, norm_eps=1e-6, qkv_bias=True),
    "cwm-32b": ModelConfig(dim=6144, n_layers=64, n_heads=48, n_kv_heads=8, head_dim=128, ffn_dim=21_504,
                           pattern="GLLL", rope_theta=1_000_000.0,
                           rope_scaling=RopeScaling(factor=16.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                    original_max_positions=8192)),
}  # fmt: skip


def preset(name: str) -> ModelConfig:
    """Return a named shape; UserError lists the names there are."""
    try:
        return PRESETS[name]
    except KeyError:
        raise UserError(f"no preset {name!r}; there are {', '.join(PRESETS)}") from None
