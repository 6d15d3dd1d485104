"""The transformer over bytes: one forward for packed training, chunked prefill and cached decode.

Shape suffixes: B batch, T tokens, D width, H query heads, K key-value heads, E head dimension, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bytegen.cache import Cache, LayerCache
from bytegen.config import ModelConfig
from bytegen.folders import MTP
from bytegen.hub import HubModel
from bytegen.kernels import backend, decode_attention, local_attention, rms_norm, rope, swiglu
from bytegen.kernels.elementwise.rope import rotate

if TYPE_CHECKING:
    from bytegen.decoding.drafts import NGrams


def inverse_frequencies(config: ModelConfig) -> Tensor:
    """Return RoPE's inverse frequencies [E/2] in float32 on the CPU, with Llama 3's scaling where the config has it."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu") / config.head_dim
    freqs = 1.0 / (config.rope_theta**exponents)
    s = config.rope_scaling
    return freqs if s is None else s.scaled(freqs, torch.where)


@dataclass
class Step:
    """What all layers of one forward share: rotary tables [B, T, E/2], and where the tokens stand."""

    cos: Tensor
    sin: Tensor
    positions: Tensor  # [B, T], within the document
    cu_seqlens: Tensor | None = None
    cache: Cache | None = None


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32 (Zhang and Sennrich 2019)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        if backend.takes_triton(x):
            return rms_norm(x, self.weight, eps=self.eps)
        return (
            F.rms_norm(x.float() if x.dtype != torch.float64 else x, self.weight.shape, eps=self.eps).to(
                x.dtype
            )
            * self.weight
        )


class CausalConv(nn.Module):
    """Depthwise causal convolution over a few tokens; starts as the identity. Tap j looks j tokens back."""

    def __init__(self, dim: int, taps: int) -> None:
        super().__init__()
        self.taps = taps
        self.weight = nn.Parameter(torch.zeros(taps, dim))
        with torch.no_grad():
            self.weight[0] = 1.0

    def forward(self, x_BTD: Tensor, step: Step, cache: LayerCache | None) -> Tensor:
        """Mix each token with those before it in its own document."""
        out = x_BTD * self.weight[0]
        if cache is not None:
            assert cache.conv is not None
            cache.conv.write(x_BTD, step.positions)
            for j in range(1, self.taps):
                out = out + cache.conv.read(step.positions - j) * self.weight[j]
            return out
        for j in range(1, self.taps):
            back = F.pad(x_BTD, (0, 0, j, 0))[:, : x_BTD.shape[1]]
            out = out + back.masked_fill((step.positions < j).unsqueeze(-1), 0.0) * self.weight[j]
        return out


class Attention(nn.Module):
    """Grouped-query attention, local or global."""

    def __init__(self, config: ModelConfig, window: int | None) -> None:
        super().__init__()
        self.config, self.window = config, window
        q, kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.conv = CausalConv(config.dim, config.conv_taps) if config.conv_taps > 1 else None
        self.q = nn.Linear(config.dim, q, bias=config.qkv_bias)
        self.k = nn.Linear(config.dim, kv, bias=config.qkv_bias)
        self.v = nn.Linear(config.dim, kv, bias=config.qkv_bias)
        self.out = nn.Linear(q, config.dim, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None

    def forward(self, x_BTD: Tensor, step: Step, cache: LayerCache | None) -> Tensor:
        """Attend over the packed documents of the batch, or over the cache."""
        if self.conv is not None:
            x_BTD = self.conv(x_BTD, step, cache)
        q, k, v = (proj(x_BTD).unflatten(-1, (-1, self.config.head_dim)) for proj in (self.q, self.k, self.v))
        fused = backend.takes_triton(q)
        cos, sin = step.cos, step.sin
        if fused:
            q_weight = None if self.q_norm is None else self.q_norm.weight
            k_weight = None if self.k_norm is None else self.k_norm.weight
            eps = self.config.norm_eps
            if cache is None:  # norm and rotation in one launch
                q, k = rope(q, k, cos, sin, q_weight=q_weight, k_weight=k_weight, eps=eps)
                o = local_attention(q, k, v, window=self.window, cu_seqlens=step.cu_seqlens)
            else:  # norm, rotation, cache write and attention in one launch
                o = decode_attention(
                    q, cache.keys.data, cache.values.data, step.positions[:, 0], k_new=k, v_new=v, cos=cos, sin=sin,
                    q_weight=q_weight, k_weight=k_weight, eps=eps, window=self.window,
                )  # fmt: skip
            return self.out(o.flatten(-2))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        # Under autocast norms and angles are float32, and values narrower.
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        if cache is None:
            o = local_attention(q, k, v, window=self.window, cu_seqlens=step.cu_seqlens)
        else:
            cache.keys.write(k, step.positions)
            cache.values.write(v, step.positions)
            o = decode_attention(
                q, cache.keys.data, cache.values.data, step.positions[:, 0], window=self.window
            )
        return self.out(o.flatten(-2))


class SwiGLU(nn.Module):
    """Gated feed-forward (Shazeer 2020)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to the last dimension."""
        gate, up = self.gate(x), self.up(x)
        return self.down(swiglu(gate, up) if backend.takes_triton(gate) else F.silu(gate) * up)


class Block(nn.Module):
    """Norm, attention, norm, feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig, window: int | None) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention = Attention(config, window)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn = SwiGLU(config.dim, config.ffn_dim)

    def forward(self, x: Tensor, step: Step, cache: LayerCache | None) -> Tensor:
        """Return the residual stream after this layer."""
        x = x + self.attention(self.attention_norm(x), step, cache)
        return x + self.ffn(self.ffn_norm(x))


class MtpHead(nn.Module):
    """A multi-token prediction head: a residual SiLU block, which begins as the identity, as Medusa's does."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """What the unembedding reads instead of `hidden` [..., D], for a byte further on."""
        return hidden + F.silu(self.proj(hidden))


class ByteLM(nn.Module, HubModel):
    """A byte language model of the shape that `config` describes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList(Block(config, window) for window in config.windows())
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.head = None if config.tied else nn.Linear(config.dim, config.vocab_size, bias=False)
        self.mtp = nn.ModuleList(MtpHead(config.dim) for _ in range(config.mtp_heads))
        self.draft_table: NGrams | None = (
            None  # guesses for its files (see `decoding.drafts`), no weights of its own
        )
        inv_freq = inverse_frequencies(config).to(self.embed.weight.device)
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        if not self.embed.weight.is_meta:  # there is nothing to draw into, and pretending to is slow
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights: normal, scaled by fan-in; output projections shrink with depth, heads begin at zero."""
        depth = 1.0 / math.sqrt(2 * self.config.n_layers)
        for name, p in self.named_parameters():
            if name.startswith(MTP):
                nn.init.zeros_(p)
            elif name == "embed.weight":
                nn.init.normal_(p, std=0.02 if self.config.tied else 1.0)
            elif p.dim() == 2 and not name.endswith("conv.weight"):
                std = 1.0 / math.sqrt(p.shape[1])
                nn.init.normal_(
                    p,
                    std=std * (depth if name.endswith(("attention.out.weight", "ffn.down.weight")) else 1.0),
                )
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def refresh_buffers(self) -> None:
        """Compute what is not stored with the weights; needed after materialising from the meta device."""
        self.inv_freq = inverse_frequencies(self.config).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed.weight.device

    def _step(self, tokens: Tensor, cu_seqlens: Tensor | None, cache: Cache | None) -> Step:
        n_batch, length = tokens.shape
        offsets = torch.arange(length, device=tokens.device)
        if cache is not None:
            positions = cache.positions.unsqueeze(1) + offsets
        elif cu_seqlens is not None:
            document = torch.searchsorted(cu_seqlens, offsets, right=True) - 1
            positions = (offsets - cu_seqlens[document]).unsqueeze(0)
        else:
            positions = offsets.expand(n_batch, length)
        angles = positions.unsqueeze(-1).float() * self.inv_freq
        dtype = self.embed.weight.dtype
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        return Step(cos=cos, sin=sin, positions=positions, cu_seqlens=cu_seqlens, cache=cache)

    def hidden(
        self, tokens: Tensor, *, cu_seqlens: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Return the normed residual stream [B, T, D] for `tokens` [B, T] (see `forward`)."""
        if cache is not None:
            cache.reserve(tokens.shape[1])
        step = self._step(tokens, cu_seqlens, cache)
        x = self.embed(tokens)
        for i, block in enumerate(self.blocks):
            x = block(x, step, cache.layers[i] if cache is not None else None)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Project [..., D] to [..., V]."""
        return F.linear(hidden, self.embed.weight) if self.head is None else self.head(hidden)

    def mtp_logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the multi-token prediction heads [K, ..., V] for hidden states [..., D].

        Where `logits` are those of the byte at place t, head k's, at index k - 1, are those of the byte at t + k.
        """
        if not self.mtp:
            return hidden.new_zeros(0, *hidden.shape[:-1], self.config.vocab_size)
        return torch.stack([self.logits(head(hidden)) for head in self.mtp])

    def forward(self, tokens: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Return logits [B, T, V] for ids `tokens` [B, T]; packed documents come as B = 1 with `cu_seqlens`."""
        return self.logits(self.hidden(tokens, cu_seqlens=cu_seqlens))

    @torch.no_grad()
    def step(self, tokens: Tensor, cache: Cache, counts: Tensor | None = None) -> Tensor:
        """Feed a chunk to each sequence of `cache` and return the logits after its last token [B, V].

        `tokens` is [B, T]; `counts` [B] (1..T) says how many of a row count, the rest is padding.
        """
        hidden = self.hidden(tokens, cache=cache)
        cache.advance(tokens.shape[1], counts)
        if counts is None:
            return self.logits(hidden[:, -1])
        return self.logits(hidden[torch.arange(len(hidden), device=hidden.device), counts - 1])

    @torch.no_grad()
    def prefill(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Feed `tokens` [B, T] of any length, chunk by chunk; return the last logits [B, V]."""
        for start in range(0, tokens.shape[1], cache.chunk):
            logits = self.step(tokens[:, start : start + cache.chunk], cache)
        return logits
