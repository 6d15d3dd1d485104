"""`decode_attention`: new queries against a cache, a ring for local layers or the whole past for global ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bytegen.kernels.attention.blockwise import KEY_BLOCK, OnlineSoftmax, scores_of, tile_mask
from bytegen.kernels.attention.interface import check_attention_args

DENSE_SCORES = 1 << 22
"""Scores held at once before keys are taken block by block."""


def slot_positions(capacity: int, end: Tensor, slots: int) -> Tensor:
    """Return the position that each of the first `slots` slots of a ring holds: int64 [B, slots].

    Position p lies in slot p mod `capacity`, and positions up to `end` [B] (exclusive) have been
    written; slots not written yet come out negative.
    """
    slot = torch.arange(slots, device=end.device)
    last = end.unsqueeze(1) - 1
    return last - (last - slot) % capacity


def decode_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    start: Tensor,
    *,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attend from T new positions a sequence to a cache that already holds their keys and values.

    q is [B, T, Hq, D]; caches are [B, C, Hkv, D] with position p in slot p mod C; `start` [B] is each
    sequence's first new position, so its queries stand at start .. start + T - 1. A ring must have
    C >= window + T - 1, or keys still in sight are overwritten; a global cache C >= start + T.
    Returns o [B, T, Hq, D]. Raises ValueError when shapes, dtypes or capacities do not fit.
    """
    check_attention_args(q, k_cache, v_cache, window)
    n_batch, n_new, _, head_dim = q.shape
    capacity, n_kv = k_cache.shape[1], k_cache.shape[2]
    end = start + n_new
    longest = int(end.max())
    if longest > capacity and (window is None or capacity < window + n_new - 1):
        need = longest if window is None else window + n_new - 1
        raise ValueError(
            f"the cache holds {capacity} positions; {n_new} queries up to position {longest - 1} need {need}"
        )
    scale = 1.0 / math.sqrt(head_dim) if scale is None else scale
    slots = min(longest, capacity)
    q_pos = start.unsqueeze(1) + torch.arange(n_new, device=q.device)  # [B, T]
    k_pos = slot_positions(capacity, end, slots)  # [B, slots]
    rows = q.transpose(1, 2).unflatten(1, (n_kv, -1)).flatten(2, 3)  # [B, Hkv, G*T, D]
    block = slots if q.shape[2] * n_batch * n_new * slots <= DENSE_SCORES else KEY_BLOCK
    state = OnlineSoftmax()
    for k0 in range(0, slots, block):
        k1 = min(k0 + block, slots)
        mask = tile_mask(q_pos, k_pos[:, k0:k1], window).unsqueeze(1)  # [B, 1, T, t]
        s = scores_of(rows, k_cache[:, k0:k1].transpose(1, 2), scale, mask)
        state.add(s, v_cache[:, k0:k1].transpose(1, 2))
    o, _ = state.result()
    return o.unflatten(2, (-1, n_new)).flatten(1, 2).transpose(1, 2).to(q.dtype)
