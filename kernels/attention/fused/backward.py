"""Backward attention without atomics: one kernel for dK and dV, one for dQ, so equal inputs give equal bits.

Probabilities are recomputed from the log-sum-exp (Dao et al. 2022). With P = exp(S - LSE) and
delta = sum(dO * O) - dLSE a row: dV = P^T dO, dS = P * (dO V^T - delta), dQ = dS K, dK = dS^T Q.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bytegen.kernels.attention.fused.tiles import (
    LOG2E,
    key_loops,
    last_query,
    load_tile,
    lowest_key,
    query_loops,
    store_tile,
    tanh,
    tile_start,
)


@triton.jit(do_not_specialize=["length"])
def delta_kernel(
    do_src, o_src, dlse, delta, do_b, do_t, do_h, o_b, o_t, o_h, length,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, HAS_DLSE: tl.constexpr,
):  # fmt: skip
    """Delta [B, Hq, T] in float32: what every score of a row is lowered by."""
    head, row0, batch = tl.program_id(0), tl.program_id(1) * BLOCK_Q, tl.program_id(2)
    do = load_tile(do_src, batch, row0, head, do_b, do_t, do_h, length, BLOCK_Q, D, BLOCK_D, False, True)
    o = load_tile(o_src, batch, row0, head, o_b, o_t, o_h, length, BLOCK_Q, D, BLOCK_D, False, True)
    rows = row0 + tl.arange(0, BLOCK_Q)
    at = (batch.to(tl.int64) * tl.num_programs(0) + head) * length + rows
    out = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
    if HAS_DLSE:
        out -= tl.load(dlse + at, mask=rows < length, other=0.0)
    tl.store(delta + at, out, mask=rows < length)


@triton.jit
def _dq_loop(
    dq, q, do, lse, delta, k_src, v_src, batch, kv_head, k_b, k_t, k_h, v_b, v_t, v_h, row0, starts, window, length,
    first, n_first, second, n_second, scale, softcap,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    DESCRIPTORS: tl.constexpr, PRECISION: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """Add what the keys of two runs of tiles give to dQ (times 1 / scale)."""
    rows = row0 + tl.arange(0, BLOCK_Q)
    low = lowest_key(rows, starts, window, length, HAS_WINDOW, HAS_DOCUMENTS) if MASK else rows
    for i in tl.range(n_first + n_second):
        key0 = tile_start(i, first, n_first, second, BLOCK_K) if MASK else first + i * BLOCK_K
        k = load_tile(
            k_src, batch, key0, kv_head, k_b, k_t, k_h, length, BLOCK_K, D, BLOCK_D, DESCRIPTORS, MASK
        )
        v = load_tile(
            v_src, batch, key0, kv_head, v_b, v_t, v_h, length, BLOCK_K, D, BLOCK_D, DESCRIPTORS, MASK
        )
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        if HAS_SOFTCAP:
            bent = tanh(s * (scale / softcap))
            p = tl.exp2(bent * (softcap * LOG2E) - lse[:, None])
        else:
            p = tl.exp2(s * (scale * LOG2E) - lse[:, None])
        if MASK:
            keys = key0 + tl.arange(0, BLOCK_K)
            seen = (keys[None, :] <= rows[:, None]) & (keys[None, :] >= low[:, None])
            p = tl.where(seen, p, 0.0)
        dp = tl.dot(do, tl.trans(v), input_precision=PRECISION)
        ds = p * (dp - delta[:, None])
        if HAS_SOFTCAP:
            ds = ds * (1.0 - bent * bent)
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision=PRECISION)
    return dq


@triton.jit(do_not_specialize=["length", "window"])
def dq_kernel(
    q_src, k_src, v_src, do_src, lse_src, delta_src, dq_dst, starts,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, do_b, do_t, do_h, dq_b, dq_t, dq_h,
    length, window, scale, softcap,
    GROUPS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    DESCRIPTORS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """DQ of one tile of queries of one head."""
    head = tl.program_id(0)
    row0 = (tl.num_programs(1) - 1 - tl.program_id(1)) * BLOCK_Q
    batch = tl.program_id(2)
    kv_head = head // GROUPS
    first, n_first, b, n_last, a = key_loops(
        row0, starts, window, length, BLOCK_Q, BLOCK_K, HAS_WINDOW, HAS_DOCUMENTS
    )
    q = load_tile(q_src, batch, row0, head, q_b, q_t, q_h, length, BLOCK_Q, D, BLOCK_D, DESCRIPTORS, True)
    do = load_tile(
        do_src, batch, row0, head, do_b, do_t, do_h, length, BLOCK_Q, D, BLOCK_D, DESCRIPTORS, True
    )
    rows = row0 + tl.arange(0, BLOCK_Q)
    at = (batch.to(tl.int64) * tl.num_programs(0) + head) * length + rows
    # Rows past the end get probability 0 from an infinite sum.
    lse = tl.load(lse_src + at, mask=rows < length, other=float("inf")) * LOG2E
    delta = tl.load(delta_src + at, mask=rows < length, other=0.0)
    dq = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    dq = _dq_loop(
        dq, q, do, lse, delta, k_src, v_src, batch, kv_head, k_b, k_t, k_h, v_b, v_t, v_h, row0, starts, window,
        length, a, (b - a) // BLOCK_K, b, 0, scale, softcap, D, BLOCK_D, BLOCK_Q, BLOCK_K, HAS_WINDOW, HAS_DOCUMENTS,
        HAS_SOFTCAP, DESCRIPTORS, PRECISION, False,
    )  # fmt: skip
    dq = _dq_loop(
        dq, q, do, lse, delta, k_src, v_src, batch, kv_head, k_b, k_t, k_h, v_b, v_t, v_h, row0, starts, window,
        length, first, n_first, b, n_last, scale, softcap, D, BLOCK_D, BLOCK_Q, BLOCK_K, HAS_WINDOW, HAS_DOCUMENTS,
        HAS_SOFTCAP, DESCRIPTORS, PRECISION, True,
    )  # fmt: skip
    store_tile(dq_dst, dq * scale, batch, row0, head, dq_b, dq_t, dq_h, length, BLOCK_Q, D, BLOCK_D)


@triton.jit
def _dkdv_loop(
    dk, dv, k, v, q_src, do_src, lse_src, delta_src, batch, kv_head, q_b, q_t, q_h, do_b, do_t, do_h,
    key0, ends, window, length, first, n_first, second, n_second, scale, softcap,
    GROUPS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    DESCRIPTORS: tl.constexpr, PRECISION: tl.constexpr, WANT_DK: tl.constexpr, WANT_DV: tl.constexpr,
    MASK: tl.constexpr,
):  # fmt: skip
    """Add what two runs of query tiles of a key head's query heads give to dV and dK (times 1 / scale).

    Scores lie transposed. One loop runs over heads and tiles: between two nested ones, triton keeps the tiles of keys
    and values in registers.
    """
    keys = key0 + tl.arange(0, BLOCK_K)
    high = last_query(keys, ends, window, length, HAS_WINDOW, HAS_DOCUMENTS) if MASK else keys
    tiles = n_first + n_second
    for j in tl.range(tiles * GROUPS):
        member = j // tiles
        i = j - member * tiles
        head = kv_head * GROUPS + member
        lse_row = (batch.to(tl.int64) * tl.num_programs(0) * GROUPS + head) * length
        row0 = tile_start(i, first, n_first, second, BLOCK_Q) if MASK else first + i * BLOCK_Q
        q = load_tile(q_src, batch, row0, head, q_b, q_t, q_h, length, BLOCK_Q, D, BLOCK_D, DESCRIPTORS, MASK)
        do = load_tile(
            do_src, batch, row0, head, do_b, do_t, do_h, length, BLOCK_Q, D, BLOCK_D, DESCRIPTORS, MASK
        )
        rows = row0 + tl.arange(0, BLOCK_Q)
        if MASK:
            lse = tl.load(lse_src + lse_row + rows, mask=rows < length, other=float("inf")) * LOG2E
            delta = tl.load(delta_src + lse_row + rows, mask=rows < length, other=0.0)
        else:
            lse = tl.load(lse_src + lse_row + rows) * LOG2E
            delta = tl.load(delta_src + lse_row + rows)
        s = tl.dot(k, tl.trans(q), input_precision=PRECISION)
        if HAS_SOFTCAP:
            bent = tanh(s * (scale / softcap))
            p = tl.exp2(bent * (softcap * LOG2E) - lse[None, :])
        else:
            p = tl.exp2(s * (scale * LOG2E) - lse[None, :])
        if MASK:
            seen = (rows[None, :] >= keys[:, None]) & (rows[None, :] <= high[:, None])
            p = tl.where(seen, p, 0.0)
        if WANT_DV:
            dv = tl.dot(p.to(do.dtype), do, dv, input_precision=PRECISION)
        if WANT_DK:
            dp = tl.dot(v, tl.trans(do), input_precision=PRECISION)
            ds = p * (dp - delta[None, :])
            if HAS_SOFTCAP:
                ds = ds * (1.0 - bent * bent)
            dk = tl.dot(ds.to(q.dtype), q, dk, input_precision=PRECISION)
    return dk, dv


@triton.jit(do_not_specialize=["length", "window"])
def dkdv_kernel(
    q_src, k_src, v_src, do_src, lse_src, delta_src, dk_dst, dv_dst, ends,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, do_b, do_t, do_h, dk_b, dk_t, dk_h, dv_b, dv_t, dv_h,
    length, window, scale, softcap,
    GROUPS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    DESCRIPTORS: tl.constexpr, PRECISION: tl.constexpr, WANT_DK: tl.constexpr, WANT_DV: tl.constexpr,
):  # fmt: skip
    """DK, dV or both of one tile of keys of one key head, summed over its query heads in order."""
    kv_head, key0, batch = tl.program_id(0), tl.program_id(1) * BLOCK_K, tl.program_id(2)
    first, n_first, b, n_last, a = query_loops(
        key0, ends, window, length, BLOCK_Q, BLOCK_K, HAS_WINDOW, HAS_DOCUMENTS
    )
    k = load_tile(k_src, batch, key0, kv_head, k_b, k_t, k_h, length, BLOCK_K, D, BLOCK_D, DESCRIPTORS, True)
    v = k
    if WANT_DK:
        v = load_tile(
            v_src, batch, key0, kv_head, v_b, v_t, v_h, length, BLOCK_K, D, BLOCK_D, DESCRIPTORS, True
        )
    dk = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    dk, dv = _dkdv_loop(
        dk, dv, k, v, q_src, do_src, lse_src, delta_src, batch, kv_head, q_b, q_t, q_h, do_b, do_t, do_h,
        key0, ends, window, length, a, (b - a) // BLOCK_Q, b, 0, scale, softcap, GROUPS, D, BLOCK_D, BLOCK_Q, BLOCK_K,
        HAS_WINDOW, HAS_DOCUMENTS, HAS_SOFTCAP, DESCRIPTORS, PRECISION, WANT_DK, WANT_DV, False,
    )  # fmt: skip
    dk, dv = _dkdv_loop(
        dk, dv, k, v, q_src, do_src, lse_src, delta_src, batch, kv_head, q_b, q_t, q_h, do_b, do_t, do_h,
        key0, ends, window, length, first, n_first, b, n_last, scale, softcap, GROUPS, D, BLOCK_D, BLOCK_Q, BLOCK_K,
        HAS_WINDOW, HAS_DOCUMENTS, HAS_SOFTCAP, DESCRIPTORS, PRECISION, WANT_DK, WANT_DV, True,
    )  # fmt: skip
    if WANT_DK:
        store_tile(dk_dst, dk * scale, batch, key0, kv_head, dk_b, dk_t, dk_h, length, BLOCK_K, D, BLOCK_D)
    if WANT_DV:
        store_tile(dv_dst, dv, batch, key0, kv_head, dv_b, dv_t, dv_h, length, BLOCK_K, D, BLOCK_D)
