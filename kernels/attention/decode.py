"""`decode_attention`: new queries against a cache, a ring for local layers or the whole past for global ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from bytegen.kernels import backend
from bytegen.kernels.attention.blockwise import KEY_BLOCK, OnlineSoftmax, per_row, scores_of, tile_mask
from bytegen.kernels.checks import check_attention_args, check_norm_weights, check_scores
from bytegen.kernels.elementwise.rope import normed, rotate
from bytegen.kernels.library import define

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


def _by_blocks(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, start: Tensor, k_new: Tensor | None, v_new: Tensor | None,
    cos: Tensor | None, sin: Tensor | None, q_weight: Tensor | None, k_weight: Tensor | None, sinks: Tensor | None,
    window: int | None, scale: float, softcap: float, eps: float,
) -> Tensor:  # fmt: skip
    """The twin in plain torch."""
    n_new, capacity, n_kv = q.shape[1], k_cache.shape[1], k_cache.shape[2]
    q_pos = start.unsqueeze(1) + torch.arange(n_new, device=q.device)  # [B, T]
    if q_weight is not None and k_weight is not None:
        q = normed(q, q_weight, eps)
        k_new = None if k_new is None else normed(k_new, k_weight, eps)
    if cos is not None and sin is not None:
        # Angles of a wider dtype do not widen queries: the output has their dtype on every path.
        q = rotate(q, cos, sin).to(q.dtype)
        k_new = None if k_new is None else rotate(k_new, cos, sin)
    if k_new is not None and v_new is not None:
        batch = torch.arange(len(q), device=q.device).unsqueeze(1)
        k_cache[batch, q_pos % capacity] = k_new.to(k_cache.dtype)
        v_cache[batch, q_pos % capacity] = v_new
    end = start + n_new
    slots = min(int(end.max()), capacity)
    k_pos = slot_positions(capacity, end, slots)  # [B, slots]
    rows = q.transpose(1, 2).unflatten(1, (n_kv, -1)).flatten(2, 3)  # [B, Hkv, G*T, D]
    block = slots if q.shape[2] * len(q) * n_new * slots <= DENSE_SCORES else KEY_BLOCK
    state = OnlineSoftmax()
    for k0 in range(0, slots, block):
        k1 = min(k0 + block, slots)
        mask = tile_mask(q_pos, k_pos[:, k0:k1], window).unsqueeze(1)  # [B, 1, T, t]
        s = scores_of(rows, k_cache[:, k0:k1].transpose(1, 2), scale, mask, softcap)
        state.add(s, v_cache[:, k0:k1].transpose(1, 2))
    if sinks is not None:
        dtype = torch.promote_types(q.dtype, torch.float32)
        state.add_sinks(per_row(sinks, n_kv, n_new, dtype).expand(len(q), -1, -1, -1))
    o, _ = state.result()
    return o.unflatten(2, (-1, n_new)).flatten(1, 2).transpose(1, 2).to(q.dtype).contiguous()


def _compute(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, start: Tensor, k_new: Tensor | None, v_new: Tensor | None,
    cos: Tensor | None, sin: Tensor | None, q_weight: Tensor | None, k_weight: Tensor | None, sinks: Tensor | None,
    window: int | None, scale: float, softcap: float, eps: float,
) -> Tensor:  # fmt: skip
    if not q.numel():
        return torch.empty_like(q)
    compute: Callable[..., Tensor] = _by_blocks
    if q.dtype != torch.float64 and backend.takes_triton(q):
        from bytegen.kernels.attention.fused.decode_launch import decode

        compute = decode
    return compute(
        q, k_cache, v_cache, start, k_new, v_new, cos, sin, q_weight, k_weight, sinks, window, scale, softcap, eps
    )  # fmt: skip


define(
    "decode_attention(Tensor q, Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor start, Tensor? k_new, Tensor? v_new, "
    "Tensor? cos, Tensor? sin, Tensor? q_weight, Tensor? k_weight, Tensor? sinks, int? window, float scale, "
    "float softcap, float eps) -> Tensor",
    compute=_compute,
    fake=lambda q, *_: torch.empty(q.shape, dtype=q.dtype, device=q.device),
)


@register_flop_formula(torch.ops.bytegen.decode_attention, get_raw=True)
def _flops(q: Tensor, k_cache: Tensor, v_cache: Tensor, start: Tensor, *args: Any, **_: Any) -> int:
    """Two products of D for each pair of a head that is seen, as `bytegen::attention` counts them."""
    window = args[7]
    seen = start.unsqueeze(1) + torch.arange(1, q.shape[1] + 1, device=start.device)
    pairs = int((seen if window is None else seen.clamp(max=window)).sum())
    return 4 * q.shape[2] * q.shape[3] * pairs


def _check_new(
    q: Tensor, k_new: Tensor | None, v_new: Tensor | None, cos: Tensor | None, sin: Tensor | None
) -> None:
    if (k_new is None) != (v_new is None) or (cos is None) != (sin is None):
        raise ValueError("k_new goes with v_new, and cos with sin: one of a pair is missing")
    if k_new is not None and v_new is not None:
        check_attention_args(q, k_new, v_new, None)
        if k_new.shape[1] != q.shape[1]:
            raise ValueError(f"q and k_new differ in length: {tuple(q.shape)}, {tuple(k_new.shape)}")
    want = (*q.shape[:2], q.shape[3] // 2)
    if cos is not None and sin is not None and (tuple(cos.shape) != want or tuple(sin.shape) != want):
        raise ValueError(f"cos and sin are [B, T, D/2] = {want}; got {tuple(cos.shape)}, {tuple(sin.shape)}")
    if cos is not None and q.shape[3] % 2:
        raise ValueError(
            f"rotary embedding pairs the halves of a head: an even dimension; q {tuple(q.shape)}"
        )


def _check_strides(k_cache: Tensor, v_cache: Tensor) -> None:
    if k_cache.shape[3] > 1 and not k_cache.stride(3) == v_cache.stride(3) == 1:
        raise ValueError(
            f"caches are read and written in place, so the last of [B, C, Hkv, D] must lie contiguous; got strides "
            f"{k_cache.stride()}, {v_cache.stride()}"
        )


def _check_capacity(q: Tensor, k_cache: Tensor, start: Tensor, window: int | None) -> None:
    capacity, n_new = k_cache.shape[1], q.shape[1]
    if (window is not None and capacity >= window + n_new - 1) or not q.numel():
        return
    # On a GPU only what needs no synchronisation is known: the caller's cache has the last word there.
    longest = n_new if start.is_cuda or torch.compiler.is_compiling() else int((start + n_new).max())
    if longest > capacity:
        need = longest if window is None else window + n_new - 1
        raise ValueError(
            f"the cache holds {capacity} positions; {n_new} queries up to position {longest - 1} need {need}; "
            f"q {tuple(q.shape)}, k_cache {tuple(k_cache.shape)}"
        )


def decode_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, start: Tensor, *, k_new: Tensor | None = None,
    v_new: Tensor | None = None, cos: Tensor | None = None, sin: Tensor | None = None, window: int | None = None,
    scale: float | None = None, softcap: float = 0.0, sinks: Tensor | None = None, q_weight: Tensor | None = None,
    k_weight: Tensor | None = None, eps: float = 1e-6,
) -> Tensor:  # fmt: skip
    """Attend from T new positions a sequence to a cache of keys and values.

    q is [B, T, Hq, D]; caches are [B, C, Hkv, D] with position p in slot p mod C; `start` [B] (int32 or int64) is
    each sequence's first new position, so its queries stand at start .. start + T - 1. With `k_new` and `v_new`
    [B, T, Hkv, D] the call writes the new positions into the caches itself; without, they are there already.
    `cos` and `sin` [B, T, D/2] turn queries and new keys first (rotary embedding, pairs of halves); before that,
    `q_weight`, `k_weight` [D] and `eps` norm each of their heads, as in `rope`. A ring must have
    C >= window + T - 1, or keys still in sight are overwritten; a global cache C >= start + T. `softcap` and `sinks`
    are those of `local_attention`. Returns o [B, T, Hq, D]; not differentiable. On a GPU nothing synchronises, so a
    step captures in a CUDA graph. Raises ValueError when shapes, dtypes, capacities or the caches' strides do not fit.
    """
    check_attention_args(q, k_cache, v_cache, window)
    if (
        start.shape != q.shape[:1]
        or start.dtype not in (torch.int32, torch.int64)
        or start.device != q.device
    ):
        raise ValueError(
            f"start is int32 or int64 [B] on the device of q; got {start.dtype} {tuple(start.shape)} on "
            f"{start.device}, q {tuple(q.shape)} on {q.device}"
        )
    _check_new(q, k_new, v_new, cos, sin)
    scale = 1.0 / math.sqrt(q.shape[3]) if scale is None else float(scale)
    check_scores(q, scale, softcap, sinks)
    check_norm_weights(q, q_weight, k_weight, f"q {tuple(q.shape)}, k_cache {tuple(k_cache.shape)}")
    _check_strides(k_cache, v_cache)
    _check_capacity(q, k_cache, start, window)
    return torch.ops.bytegen.decode_attention(
        q,
        k_cache,
        v_cache,
        start,
        k_new,
        v_new,
        cos,
        sin,
        q_weight,
        k_weight,
        sinks,
        window,
        scale,
        float(softcap),
        float(eps),
    )
