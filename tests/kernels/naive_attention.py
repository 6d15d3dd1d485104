"""Attention written out with a mask, in whatever precision it is given: the judge of twins and kernels."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def seen_by(length: int, window: int | None, bounds: list[int]) -> Tensor:
    """Bool [T, T]: which keys each query sees."""
    i, j = torch.arange(length)[:, None], torch.arange(length)[None, :]
    seen = (j <= i) if window is None else (j <= i) & (i - j < window)
    document = torch.searchsorted(torch.tensor(bounds), torch.arange(length), right=True)
    return seen & (document[:, None] == document[None, :])


def attention(
    q: Tensor, k: Tensor, v: Tensor, window: int | None, bounds: list[int], *,
    scale: float | None = None, softcap: float = 0.0, sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Output [B, T, Hq, D] and log-sum-exp [B, Hq, T]."""
    groups = q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(groups, dim=2) for x in (k, v))
    s = torch.einsum("bqhd,bkhd->bhqk", q, k) * (1 / math.sqrt(q.shape[3]) if scale is None else scale)
    if softcap:
        s = softcap * torch.tanh(s / softcap)
    s = s.masked_fill(~seen_by(q.shape[1], window, bounds).to(q.device), float("-inf"))
    if sinks is not None:
        column = sinks.to(s.dtype).view(1, -1, 1, 1).expand(s.shape[0], -1, s.shape[2], 1)
        s = torch.cat([s, column], dim=-1)
    p = torch.softmax(s, dim=-1)[..., : k.shape[1]]
    return torch.einsum("bhqk,bkhd->bqhd", p, v), s.logsumexp(-1)
