"""Attention forward for sm_90: one warp copies keys and values, two warpgroups multiply and take exponentials.

FlashAttention-3 (Shah et al. 2024) in Gluon. A block has 2 x ROWS queries of one head, ROWS for each warpgroup. Keys
and values come by TMA through a ring of stages each, with two mbarriers a stage: `ready` (the bytes have landed) and
`empty` (both warpgroups have read them). In a warpgroup the scores of the next tile and the product of the last one
with its values are in flight together, and the softmax of the next tile runs under the latter. With TURNS a warpgroup
issues its products only when the other has issued its own, so that the exponentials of one lie under the products of
the other.

Tiles are visited diagonal first, then the left edge of the window, then the rest: one loop over those that need a mask,
one over those that need none.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from bytegen.kernels.attention.fused.tiles import LN2, LOG2E, key_loops, lowest_key

# Their names changed between triton 3.6 and 3.9, which keeps the old ones only to say so.
_load = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared
_store = tma.async_store if hasattr(tma, "async_store") else tma.async_copy_shared_to_global


@gluon.jit
def _key_of(i, first, n_first, b, n_last, a, BLOCK_K: gl.constexpr):
    """First key of the i-th tile visited: those from b (the diagonal), those from `first` (left edge), those from a."""
    at_edge = gl.where(i < n_last, b + i * BLOCK_K, first + (i - n_last) * BLOCK_K)
    return gl.where(i < n_last + n_first, at_edge, a + (i - n_last - n_first) * BLOCK_K)


@gluon.jit
def _fill(desc, ring, ready, empty, batch, head, key0, i, BYTES: gl.constexpr, STAGES: gl.constexpr):
    """Copy the i-th tile of keys or values into its stage, once both warpgroups have read what was there."""
    stage = i % STAGES
    # A fresh barrier passes a wait for the phase before its first: the first round finds every stage empty.
    mbarrier.wait(empty.index(stage), (i // STAGES + 1) & 1)
    mbarrier.expect(ready.index(stage), BYTES)
    _load(desc, [batch, head, key0, 0], ready.index(stage), ring.index(stage))


@gluon.jit
def _produce(
    q_desc, k_desc, v_desc, q_tiles, k_ring, v_ring, q_ready, k_ready, k_empty, v_ready, v_empty,
    batch, head, kv_head, row0, first, n_first, b, n_last, a, n_tiles,
    ROWS: gl.constexpr, BLOCK_K: gl.constexpr, D: gl.constexpr, SIZE: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """The producer: queries once, then keys one tile ahead of values, in the order in which they are read."""
    BYTES: gl.constexpr = BLOCK_K * D * SIZE
    for group in gl.static_range(2):
        mbarrier.expect(q_ready.index(group), ROWS * D * SIZE)
        _load(q_desc, [batch, head, row0 + group * ROWS, 0], q_ready.index(group), q_tiles.index(group))
    _fill(k_desc, k_ring, k_ready, k_empty, batch, kv_head, b, 0, BYTES, STAGES)
    last = b
    for i in range(1, n_tiles):
        key0 = _key_of(i, first, n_first, b, n_last, a, BLOCK_K)
        _fill(k_desc, k_ring, k_ready, k_empty, batch, kv_head, key0, i, BYTES, STAGES)
        _fill(v_desc, v_ring, v_ready, v_empty, batch, kv_head, last, i - 1, BYTES, STAGES)
        last = key0
    _fill(v_desc, v_ring, v_ready, v_empty, batch, kv_head, last, n_tiles - 1, BYTES, STAGES)


@gluon.jit
def _scores(
    q, k_ring, stage, S_LAYOUT: gl.constexpr, ROWS: gl.constexpr, BLOCK_K: gl.constexpr, D: gl.constexpr
):
    """Begin q k^T: an accumulator in flight."""
    zero = gl.zeros([ROWS, BLOCK_K], gl.float32, S_LAYOUT)
    k = k_ring.index(stage).reshape([BLOCK_K, D]).permute((1, 0))
    return warpgroup_mma(q, k, zero, use_acc=False, is_async=True)


@gluon.jit
def _values(p, acc, v_ring, stage, BLOCK_K: gl.constexpr, D: gl.constexpr):
    """Begin acc + p v: an accumulator in flight."""
    return warpgroup_mma(p, v_ring.index(stage).reshape([BLOCK_K, D]), acc, is_async=True)


@gluon.jit
def _softmax(
    s, top, total, rows, low, key0, factor, S_LAYOUT: gl.constexpr, BLOCK_K: gl.constexpr, MASK: gl.constexpr
):
    """Probabilities against the new maximum, that maximum (of unscaled scores), the sum, and what shrinks the old."""
    if MASK:
        keys = key0 + gl.arange(0, BLOCK_K, layout=gl.SliceLayout(0, S_LAYOUT))
        seen = (keys[None, :] <= rows[:, None]) & (keys[None, :] >= low[:, None])
        s = gl.where(seen, s, float("-inf"))
    new = gl.maximum(top, gl.max(s, 1))
    # A row that has seen no key yet: -inf minus -inf must not become NaN.
    base = factor * (gl.where(new == float("-inf"), 0.0, new) if MASK else new)
    # One multiply-add and one exponential a score: the scale is folded into both.
    p = gl.exp2(s * factor - base[:, None])
    shrink = gl.exp2(top * factor - base)
    return p, new, total * shrink + gl.sum(p, 1), shrink


@gluon.jit
def _steps(
    acc, p, top, total, begin, end, q, k_ring, v_ring, k_ready, k_empty, v_ready, v_empty, turns,
    rows, low, first, n_first, b, n_last, a, n_tiles, factor,
    WHO: gl.constexpr, ROWS: gl.constexpr, BLOCK_K: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr,
    S_LAYOUT: gl.constexpr, O_LAYOUT: gl.constexpr, P_LAYOUT: gl.constexpr, TURNS: gl.constexpr,
    MASK: gl.constexpr,
):  # fmt: skip
    """Tiles begin .. end, whose first keys have landed: scores of each, and values of the one before it.

    `p` holds the probabilities of that one.
    """
    for i in range(begin, end):
        stage, before = i % STAGES, (i - 1) % STAGES
        if TURNS:
            mbarrier.wait(turns.index(WHO), (i - 1) & 1)
        s = _scores(q, k_ring, stage, S_LAYOUT, ROWS, BLOCK_K, D)
        mbarrier.wait(v_ready.index(before), ((i - 1) // STAGES) & 1)
        acc_next = _values(p, acc, v_ring, before, BLOCK_K, D)
        if TURNS:
            mbarrier.arrive(turns.index(1 - WHO), count=1)
        s = warpgroup_mma_wait(1, deps=(s,))
        mbarrier.arrive(k_empty.index(stage), count=1)
        key0 = _key_of(i, first, n_first, b, n_last, a, BLOCK_K)
        p_next, top, total, shrink = _softmax(s, top, total, rows, low, key0, factor, S_LAYOUT, BLOCK_K, MASK)
        p_next = gl.convert_layout(p_next.to(v_ring.dtype), P_LAYOUT)
        # The next keys are waited for here, for a wait is a loop, and the assembler moves no exponentials across one:
        # without it they come after the wait for the product, under which they are to run.
        mbarrier.wait(k_ready.index((i + 1) % STAGES), ((i + 1) // STAGES) & 1, pred=i + 1 < n_tiles)
        # p is an operand in registers, and stays where it is until the product is done.
        acc, p = warpgroup_mma_wait(0, deps=(acc_next, p))
        mbarrier.arrive(v_empty.index(before), count=1)
        acc = acc * gl.convert_layout(shrink, gl.SliceLayout(1, O_LAYOUT))[:, None]
        p = p_next
    return acc, p, top, total


@gluon.jit
def _consume(
    o_desc, lse_dst, starts, q_tiles, k_ring, v_ring, q_ready, k_ready, k_empty, v_ready, v_empty, turns,
    batch, head, n_heads, row0, first, n_first, b, n_last, a, n_tiles, window, length, scale,
    WHO: gl.constexpr, ROWS: gl.constexpr, BLOCK_K: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr,
    HAS_WINDOW: gl.constexpr, HAS_DOCUMENTS: gl.constexpr, TURNS: gl.constexpr,
):  # fmt: skip
    """One warpgroup: ROWS queries against every tile, then their output and log-sum-exp."""
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_K, 16])
    O_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    P_LAYOUT: gl.constexpr = gl.DotOperandLayout(0, O_LAYOUT, 2)
    ROW_LAYOUT: gl.constexpr = gl.SliceLayout(1, S_LAYOUT)
    rows = row0 + WHO * ROWS + gl.arange(0, ROWS, layout=ROW_LAYOUT)
    low = lowest_key(rows, starts, window, length, HAS_WINDOW, HAS_DOCUMENTS)
    factor = scale * LOG2E
    top = gl.full([ROWS], float("-inf"), gl.float32, ROW_LAYOUT)
    total = gl.zeros([ROWS], gl.float32, ROW_LAYOUT)
    acc = gl.zeros([ROWS, D], gl.float32, O_LAYOUT)
    q = q_tiles.index(WHO).reshape([ROWS, D])

    mbarrier.wait(q_ready.index(WHO), 0)
    mbarrier.wait(k_ready.index(0), 0)
    s = _scores(q, k_ring, 0, S_LAYOUT, ROWS, BLOCK_K, D)
    s = warpgroup_mma_wait(0, deps=(s,))
    mbarrier.arrive(k_empty.index(0), count=1)
    p_first, top, total, _ = _softmax(s, top, total, rows, low, b, factor, S_LAYOUT, BLOCK_K, True)
    p = gl.convert_layout(p_first.to(v_ring.dtype), P_LAYOUT)
    mbarrier.wait(k_ready.index(1 % STAGES), (1 // STAGES) & 1, pred=n_tiles > 1)
    if TURNS and WHO == 1:
        mbarrier.arrive(turns.index(0), count=1)
    masked = n_last + n_first
    acc, p, top, total = _steps(
        acc, p, top, total, 1, masked, q, k_ring, v_ring, k_ready, k_empty, v_ready, v_empty, turns,
        rows, low, first, n_first, b, n_last, a, n_tiles, factor, WHO, ROWS, BLOCK_K, D, STAGES,
        S_LAYOUT, O_LAYOUT, P_LAYOUT, TURNS, True,
    )  # fmt: skip
    acc, p, top, total = _steps(
        acc, p, top, total, masked, n_tiles, q, k_ring, v_ring, k_ready, k_empty, v_ready, v_empty, turns,
        rows, low, first, n_first, b, n_last, a, n_tiles, factor, WHO, ROWS, BLOCK_K, D, STAGES,
        S_LAYOUT, O_LAYOUT, P_LAYOUT, TURNS, False,
    )  # fmt: skip
    last = n_tiles - 1
    mbarrier.wait(v_ready.index(last % STAGES), (last // STAGES) & 1)
    acc = _values(p, acc, v_ring, last % STAGES, BLOCK_K, D)
    acc, p = warpgroup_mma_wait(0, deps=(acc, p))
    mbarrier.arrive(v_empty.index(last % STAGES), count=1)

    lse = gl.where(total > 0.0, (top * factor + gl.log2(total)) * LN2, float("-inf"))
    inverse = 1.0 / gl.where(total > 0.0, total, 1.0)
    acc = acc * gl.convert_layout(inverse, gl.SliceLayout(1, O_LAYOUT))[:, None]
    # 64-bit: batches, heads and tokens together may pass 2^31.
    lse_row = (batch.to(gl.int64) * n_heads + head) * length
    gl.store(lse_dst + lse_row + rows, lse, mask=rows < length)
    # Its own queries are read: their place in shared memory takes the output. Rows past the length are left out by TMA.
    q_tiles.index(WHO).reshape([ROWS, D]).store(acc.to(q_tiles.dtype))
    fence_async_shared()
    _store(o_desc, [batch, head, row0 + WHO * ROWS, 0], q_tiles.index(WHO))
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["length", "window"])
def hopper_forward_kernel(
    q_desc, k_desc, v_desc, o_desc, lse_dst, starts, length, window, scale,
    GROUPS: gl.constexpr, D: gl.constexpr, ROWS: gl.constexpr, BLOCK_K: gl.constexpr, STAGES: gl.constexpr,
    SIZE: gl.constexpr, HAS_WINDOW: gl.constexpr, HAS_DOCUMENTS: gl.constexpr, TURNS: gl.constexpr,
):  # fmt: skip
    """Queries row0 .. row0 + 2 ROWS of one head: o [B, T, Hq, D] and the natural log-sum-exp [B, Hq, T] in float32.

    Descriptors are of tensors seen as [B, H, T, D]; elements have SIZE bytes. Takes 4 warps, and makes 5 more.
    """
    # Heads run fastest, so that those that share keys meet them in the cache; long rows of tiles start first.
    head = gl.program_id(0)
    row0 = (gl.num_programs(1) - 1 - gl.program_id(1)) * (2 * ROWS)
    batch = gl.program_id(2)
    first, n_first, b, n_last, a = key_loops(
        row0, starts, window, length, 2 * ROWS, BLOCK_K, HAS_WINDOW, HAS_DOCUMENTS
    )
    n_tiles = n_last + n_first + (b - a) // BLOCK_K
    q_tiles = gl.allocate_shared_memory(q_desc.dtype, [2, 1, 1, ROWS, D], q_desc.layout)
    k_ring = gl.allocate_shared_memory(k_desc.dtype, [STAGES, 1, 1, BLOCK_K, D], k_desc.layout)
    v_ring = gl.allocate_shared_memory(v_desc.dtype, [STAGES, 1, 1, BLOCK_K, D], v_desc.layout)
    q_ready = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    turns = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    k_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for group in gl.static_range(2):
        mbarrier.init(q_ready.index(group), count=1)
        mbarrier.init(turns.index(group), count=1)
    for stage in gl.static_range(STAGES):
        mbarrier.init(k_ready.index(stage), count=1)
        mbarrier.init(v_ready.index(stage), count=1)
        mbarrier.init(k_empty.index(stage), count=2)
        mbarrier.init(v_empty.index(stage), count=2)
    fence_async_shared()
    n_heads = gl.num_programs(0)
    gl.warp_specialize(
        [
            (_consume, (
                o_desc, lse_dst, starts, q_tiles, k_ring, v_ring, q_ready, k_ready, k_empty, v_ready, v_empty, turns,
                batch, head, n_heads, row0, first, n_first, b, n_last, a, n_tiles, window, length, scale,
                0, ROWS, BLOCK_K, D, STAGES, HAS_WINDOW, HAS_DOCUMENTS, TURNS,
            )),
            (_consume, (
                o_desc, lse_dst, starts, q_tiles, k_ring, v_ring, q_ready, k_ready, k_empty, v_ready, v_empty, turns,
                batch, head, n_heads, row0, first, n_first, b, n_last, a, n_tiles, window, length, scale,
                1, ROWS, BLOCK_K, D, STAGES, HAS_WINDOW, HAS_DOCUMENTS, TURNS,
            )),
            (_produce, (
                q_desc, k_desc, v_desc, q_tiles, k_ring, v_ring, q_ready, k_ready, k_empty, v_ready, v_empty,
                batch, head, head // GROUPS, row0, first, n_first, b, n_last, a, n_tiles,
                ROWS, BLOCK_K, D, SIZE, STAGES,
            )),
        ],
        [4, 1],
        [240, 24],
    )  # fmt: skip
