"""Forward attention: an online softmax over the key tiles that a tile of queries meets.

Milakov and Gimelshein 2018; Dao 2023 for the order of loops. Scores are kept in powers of two.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bytegen.kernels.attention.fused.tiles import (
    LN2,
    LOG2E,
    key_loops,
    load_tile,
    lowest_key,
    store_tile,
    tanh,
    tile_start,
)


@triton.jit
def _attend(
    acc, top, total, q, k_src, v_src, batch, kv_head, k_b, k_t, k_h, v_b, v_t, v_h, row0, starts, window, length,
    first, n_first, second, n_second, scale, softcap,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    DESCRIPTORS: tl.constexpr, PRECISION: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """Add the keys of two runs of tiles to the running output, maximum and sum of a tile of queries."""
    rows = row0 + tl.arange(0, BLOCK_Q)
    low = lowest_key(rows, starts, window, length, HAS_WINDOW, HAS_DOCUMENTS) if MASK else rows
    for i in tl.range(n_first + n_second):
        key0 = tile_start(i, first, n_first, second, BLOCK_K) if MASK else first + i * BLOCK_K
        k = load_tile(
            k_src, batch, key0, kv_head, k_b, k_t, k_h, length, BLOCK_K, D, BLOCK_D, DESCRIPTORS, MASK
        )
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        if HAS_SOFTCAP:
            s = tanh(s * (scale / softcap)) * (softcap * LOG2E)
        else:
            s = s * (scale * LOG2E)
        if MASK:
            keys = key0 + tl.arange(0, BLOCK_K)
            seen = (keys[None, :] <= rows[:, None]) & (keys[None, :] >= low[:, None])
            s = tl.where(seen, s, float("-inf"))
        new = tl.maximum(top, tl.max(s, 1))
        # A row that has seen no key yet: -inf minus -inf must not become NaN.
        base = tl.where(new == float("-inf"), 0.0, new) if MASK else new
        p = tl.exp2(s - base[:, None])
        shrink = tl.exp2(top - base)
        total = total * shrink + tl.sum(p, 1)
        v = load_tile(
            v_src, batch, key0, kv_head, v_b, v_t, v_h, length, BLOCK_K, D, BLOCK_D, DESCRIPTORS, MASK
        )
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
        top = new
    return acc, top, total


@triton.jit(do_not_specialize=["length", "window"])
def forward_kernel(
    q_src, k_src, v_src, o_dst, lse_dst, sinks, starts,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, o_b, o_t, o_h,
    length, window, scale, softcap,
    GROUPS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, HAS_SINKS: tl.constexpr,
    DESCRIPTORS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head: o [B, T, Hq, D] and the natural log-sum-exp [B, Hq, T] in float32."""
    # Heads run fastest, so that those that share keys meet them in the cache; long rows of tiles start first.
    head = tl.program_id(0)
    row0 = (tl.num_programs(1) - 1 - tl.program_id(1)) * BLOCK_Q
    batch = tl.program_id(2)
    kv_head = head // GROUPS
    first, n_first, b, n_last, a = key_loops(
        row0, starts, window, length, BLOCK_Q, BLOCK_K, HAS_WINDOW, HAS_DOCUMENTS
    )
    q = load_tile(q_src, batch, row0, head, q_b, q_t, q_h, length, BLOCK_Q, D, BLOCK_D, DESCRIPTORS, True)
    acc = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    acc, top, total = _attend(
        acc, top, total, q, k_src, v_src, batch, kv_head, k_b, k_t, k_h, v_b, v_t, v_h, row0, starts, window,
        length, a, (b - a) // BLOCK_K, b, 0, scale, softcap, D, BLOCK_D, BLOCK_Q, BLOCK_K, HAS_WINDOW, HAS_DOCUMENTS,
        HAS_SOFTCAP, DESCRIPTORS, PRECISION, False,
    )  # fmt: skip
    acc, top, total = _attend(
        acc, top, total, q, k_src, v_src, batch, kv_head, k_b, k_t, k_h, v_b, v_t, v_h, row0, starts, window,
        length, first, n_first, b, n_last, scale, softcap, D, BLOCK_D, BLOCK_Q, BLOCK_K, HAS_WINDOW, HAS_DOCUMENTS,
        HAS_SOFTCAP, DESCRIPTORS, PRECISION, True,
    )  # fmt: skip
    if HAS_SINKS:
        # A sink is a key that every row sees and that carries no value.
        sink = tl.load(sinks + head).to(tl.float32) * LOG2E
        new = tl.maximum(top, sink)
        shrink = tl.exp2(top - new)
        total = total * shrink + tl.exp2(sink - new)
        acc = acc * shrink[:, None]
        top = new
    rows = row0 + tl.arange(0, BLOCK_Q)
    lse = tl.where(total > 0.0, (top + tl.log2(total)) * LN2, float("-inf"))
    acc = acc / tl.where(total > 0.0, total, 1.0)[:, None]
    store_tile(o_dst, acc, batch, row0, head, o_b, o_t, o_h, length, BLOCK_Q, D, BLOCK_D)
    lse_row = (batch.to(tl.int64) * tl.num_programs(0) + head) * length
    tl.store(lse_dst + lse_row + rows, lse, mask=rows < length)
