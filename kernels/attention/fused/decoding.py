"""Attention of a few new positions over a cache, split over the keys, and the merge of the splits.

Queries of one key head lie in one tile (flash-decoding, Dao et al. 2023). Norm and rotary embedding of new queries
and keys and the write into the cache happen in the same launch: new keys are read where they are, not through the
cache, so no program waits for another.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bytegen.kernels.attention.fused.tiles import LN2, LOG2E, tanh


@triton.jit
def _weighed(x, scale, weight, dims, D: tl.constexpr):
    """Rows times their scale, then times the weight [D] at `dims`; rounded as two launches would round them."""
    w = tl.load(weight + dims, mask=dims < D, other=0.0).to(tl.float32)
    normed = (x.to(tl.float32) * scale).to(x.dtype)
    return (normed.to(tl.float32) * w[None, :]).to(x.dtype)


@triton.jit
def _turned(
    src, stride, rows, keep, cos, sin, angle_rows, weight, eps,
    D: tl.constexpr, BLOCK_D: tl.constexpr, HAS_ROPE: tl.constexpr, HAS_NORM: tl.constexpr,
):  # fmt: skip
    """Rows [n, BLOCK_D] at src + rows * stride, normed, then turned by the angles of `angle_rows`.

    The two halves of a head are the pairs' members.
    """
    dims = tl.arange(0, BLOCK_D)
    inside = keep[:, None] & (dims < D)[None, :]
    x = tl.load(src + rows.to(tl.int64)[:, None] * stride + dims[None, :], mask=inside, other=0.0)
    if HAS_NORM:
        wide = x.to(tl.float32)
        scale = tl.rsqrt(tl.sum(wide * wide, 1) / D + eps)[:, None]
        x = _weighed(x, scale, weight, dims, D)
    if HAS_ROPE:
        half = D // 2
        other_dims = tl.where(dims < half, dims + half, dims - half)
        other = tl.load(
            src + rows.to(tl.int64)[:, None] * stride + other_dims[None, :], mask=inside, other=0.0
        )
        if HAS_NORM:
            other = _weighed(other, scale, weight, other_dims, D)
        angle = angle_rows.to(tl.int64)[:, None] * half + (dims % half)[None, :]
        c = tl.load(cos + angle, mask=inside, other=1.0).to(tl.float32)
        s = tl.load(sin + angle, mask=inside, other=0.0).to(tl.float32)
        sign = tl.where(dims < half, -1.0, 1.0)[None, :]
        x = (x.to(tl.float32) * c + sign * other.to(tl.float32) * s).to(x.dtype)
    return x


@triton.jit
def _merge(
    acc, top, total, q, k, v, seen, scale, softcap, HAS_SOFTCAP: tl.constexpr, PRECISION: tl.constexpr
):
    """One tile of keys and values into the running softmax; `seen` [rows, keys]."""
    s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    if HAS_SOFTCAP:
        s = tanh(s * (scale / softcap)) * (softcap * LOG2E)
    else:
        s = s * (scale * LOG2E)
    s = tl.where(seen, s, float("-inf"))
    new = tl.maximum(top, tl.max(s, 1))
    base = tl.where(new == float("-inf"), 0.0, new)
    p = tl.exp2(s - base[:, None])
    shrink = tl.exp2(top - base)
    acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
    return acc, new, total * shrink + tl.sum(p, 1)


@triton.jit(do_not_specialize=["s_b", "n_new", "capacity", "window"])
def split_kernel(
    q_src, k_cache, v_cache, k_new, v_new, cos, sin, q_weight, k_weight, starts, o_dst, lse_dst,
    s_b, q_b, q_t, q_h, kc_b, kc_t, kc_h, vc_b, vc_t, vc_h, kn_b, kn_t, kn_h, vn_b, vn_t, vn_h,
    n_new, capacity, window, scale, softcap, eps,
    KV_HEADS: tl.constexpr, GROUPS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, SPLITS: tl.constexpr,
    HAS_NEW: tl.constexpr, HAS_ROPE: tl.constexpr, HAS_NORM: tl.constexpr, HAS_WINDOW: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Partial outputs [SPLITS, B, T, Hq, D] and log-sum-exps [SPLITS, B, T, Hq], in float32.

    Row r of a tile is query r % BLOCK_T of head r // BLOCK_T of the key head's group.
    """
    split, turn = tl.program_id(0), tl.program_id(2)
    batch, kv_head = tl.program_id(1) // KV_HEADS, tl.program_id(1) % KV_HEADS
    start = tl.load(starts + batch.to(tl.int64) * s_b).to(tl.int32)
    row = tl.arange(0, ROWS)
    member, t = row // BLOCK_T, turn * BLOCK_T + row % BLOCK_T
    head = kv_head * GROUPS + member
    real = (member < GROUPS) & (t < n_new)
    q_at = t.to(tl.int64) * q_t + head.to(tl.int64) * q_h
    q_from = q_src + batch.to(tl.int64) * q_b
    q = _turned(
        q_from, 1, q_at, real, cos, sin, batch * n_new + t, q_weight, eps, D, BLOCK_D, HAS_ROPE, HAS_NORM
    )
    acc = tl.zeros([ROWS, BLOCK_D], tl.float32)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    position = start + t

    # What the cache holds already: from the first key that this tile's first query sees.
    hi = start if HAS_NEW else tl.minimum(start + (turn + 1) * BLOCK_T, start + n_new)
    low = start * 0
    if HAS_WINDOW:
        low = tl.maximum(start + turn * BLOCK_T - window + 1, 0)
    share = tl.cdiv(tl.cdiv(tl.maximum(hi - low, 0), SPLITS), BLOCK_K) * BLOCK_K
    lo = low + split * share
    dims = tl.arange(0, BLOCK_D)
    inside = (dims < D)[None, :]
    k_base = k_cache + batch.to(tl.int64) * kc_b + kv_head.to(tl.int64) * kc_h + dims[None, :]
    v_base = v_cache + batch.to(tl.int64) * vc_b + kv_head.to(tl.int64) * vc_h + dims[None, :]
    for key0 in tl.range(lo, tl.minimum(lo + share, hi), BLOCK_K):
        keys = key0 + tl.arange(0, BLOCK_K)
        held = keys < hi
        slots = (keys % capacity).to(tl.int64)[:, None]
        k = tl.load(k_base + slots * kc_t, mask=held[:, None] & inside, other=0.0)
        v = tl.load(v_base + slots * vc_t, mask=held[:, None] & inside, other=0.0)
        seen = held[None, :] & (keys[None, :] <= position[:, None])
        if HAS_WINDOW:
            seen = seen & (keys[None, :] > position[:, None] - window)
        acc, top, total = _merge(acc, top, total, q, k, v, seen, scale, softcap, HAS_SOFTCAP, PRECISION)

    if HAS_NEW:  # noqa: SIM102  (a constant and a value: triton keeps them apart)
        if split == SPLITS - 1:
            k_from = k_new + batch.to(tl.int64) * kn_b + kv_head.to(tl.int64) * kn_h
            v_from = v_new + batch.to(tl.int64) * vn_b + kv_head.to(tl.int64) * vn_h
            for n0 in tl.range(0, tl.minimum((turn + 1) * BLOCK_T, n_new), BLOCK_N):
                n = n0 + tl.arange(0, BLOCK_N)
                k = _turned(k_from, kn_t, n, n < n_new, cos, sin, batch * n_new + n, k_weight, eps, D, BLOCK_D,
                            HAS_ROPE, HAS_NORM)  # fmt: skip
                v = _turned(v_from, vn_t, n, n < n_new, cos, sin, n, k_weight, eps, D, BLOCK_D, False, False)
                seen = (n[None, :] < n_new) & (n[None, :] <= t[:, None])
                if HAS_WINDOW:
                    seen = seen & (n[None, :] > t[:, None] - window)
                # The new keys reach shared memory before a warp takes the queries out of it: where the compiler puts
                # its own barrier, mma.sync holds all of them in registers across it (430 spills for heads of 256).
                tl.debug_barrier()
                acc, top, total = _merge(
                    acc, top, total, q, k, v, seen, scale, softcap, HAS_SOFTCAP, PRECISION
                )
                # Each program writes the positions that are its queries' own: nobody else reads these slots.
                own = ((n >= turn * BLOCK_T) & (n < (turn + 1) * BLOCK_T) & (n < n_new))[:, None] & inside
                slots = ((start + n) % capacity).to(tl.int64)[:, None]
                tl.store(k_base + slots * kc_t, k, mask=own)
                tl.store(v_base + slots * vc_t, v, mask=own)

    heads = KV_HEADS * GROUPS
    out = ((split * (tl.num_programs(1) // KV_HEADS) + batch).to(tl.int64) * n_new + t) * heads + head
    tl.store(lse_dst + out, tl.where(total > 0.0, (top + tl.log2(total)) * LN2, float("-inf")), mask=real)
    acc = acc / tl.where(total > 0.0, total, 1.0)[:, None]
    tl.store(
        o_dst + out[:, None] * D + dims[None, :], acc.to(o_dst.dtype.element_ty), mask=real[:, None] & inside
    )


@triton.jit(do_not_specialize=["rows"])
def combine_kernel(
    o_parts, lse_parts, sinks, o_dst, rows,
    HEADS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, SPLITS: tl.constexpr, BLOCK_S: tl.constexpr,
    HAS_SINKS: tl.constexpr,
):  # fmt: skip
    """The splits of one row (b, t, head) weighed by their sums: o [rows, D]."""
    row = tl.program_id(0)
    part, dims = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_D)
    lse = tl.load(lse_parts + part.to(tl.int64) * rows + row, mask=part < SPLITS, other=float("-inf"))
    top = tl.max(lse, 0)
    if HAS_SINKS:
        sink = tl.load(sinks + row % HEADS).to(tl.float32)
        top = tl.maximum(top, sink)
    base = tl.where(top == float("-inf"), 0.0, top)
    weight = tl.exp(lse - base)
    total = tl.sum(weight, 0)
    if HAS_SINKS:
        total += tl.exp(sink - base)
    at = (part.to(tl.int64) * rows + row)[:, None] * D + dims[None, :]
    o = tl.load(o_parts + at, mask=(part < SPLITS)[:, None] & (dims < D)[None, :], other=0.0)
    o = tl.sum(o * weight[:, None], 0) / tl.where(total > 0.0, total, 1.0)
    tl.store(o_dst + row.to(tl.int64) * D + dims, o.to(o_dst.dtype.element_ty), mask=dims < D)
