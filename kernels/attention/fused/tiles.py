"""What the attention kernels share: loading a tile, which keys a row sees, which tiles need a mask.

A query row i sees the keys low(i) .. i, where low is the start of its document or of its window, whichever comes
later. Both ends rise with i, so a tile of queries meets one run of key tiles, and only those at its two ends need
a mask: left edge, middle, diagonal. The two edges share a loop, which keeps the code and its registers small.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def load_tile(
    src, batch, row0, head, stride_b, stride_t, stride_h, length,
    ROWS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, DESCRIPTORS: tl.constexpr, CHECK: tl.constexpr,
):  # fmt: skip
    """Rows row0 .. row0 + ROWS of one head as [ROWS, BLOCK_D]; with CHECK, rows from `length` on are zeros.

    A descriptor sees all batches and heads as one matrix, `stride_b` rows a batch, `stride_h` columns a head: with
    more dimensions and a reshape, triton no longer leaves the tile in shared memory (200 registers, not 159).
    """
    if DESCRIPTORS:
        tile = src.load([batch * stride_b + row0, head * stride_h])
    else:
        rows = row0 + tl.arange(0, ROWS)
        dims = tl.arange(0, BLOCK_D)
        base = src + batch.to(tl.int64) * stride_b + head.to(tl.int64) * stride_h
        # 64-bit: 143,360 rows of 128 heads of 128 pass 2^31 elements.
        pointers = base + rows.to(tl.int64)[:, None] * stride_t + dims[None, :]
        if CHECK and D == BLOCK_D:
            tile = tl.load(pointers, mask=(rows < length)[:, None], other=0.0)
        elif CHECK:
            tile = tl.load(pointers, mask=(rows < length)[:, None] & (dims < D)[None, :], other=0.0)
        elif D == BLOCK_D:
            tile = tl.load(pointers)
        else:
            tile = tl.load(pointers, mask=(dims < D)[None, :], other=0.0)
    return tile


@triton.jit
def store_tile(
    dst, tile, batch, row0, head, stride_b, stride_t, stride_h, length,
    ROWS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Write a tile back, in the dtype of `dst`; rows from `length` on are dropped."""
    rows = row0 + tl.arange(0, ROWS)
    dims = tl.arange(0, BLOCK_D)
    base = dst + batch.to(tl.int64) * stride_b + head.to(tl.int64) * stride_h
    pointers = base + rows.to(tl.int64)[:, None] * stride_t + dims[None, :]
    keep = (rows < length)[:, None] & (dims < D)[None, :]
    tl.store(pointers, tile.to(dst.dtype.element_ty), mask=keep)


@triton.jit
def lowest_key(row, starts, window, length, HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr):
    """The first key that each query row sees; `starts` int32 [T] holds the first token of each one's document."""
    low = row * 0
    if HAS_WINDOW:
        low = tl.maximum(row - window + 1, 0)
    if HAS_DOCUMENTS:
        low = tl.maximum(low, tl.load(starts + row, mask=row < length, other=0))
    return low


@triton.jit
def last_query(key, ends, window, length, HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr):
    """The last query row that sees each key; `ends` int32 [T] holds the end (exclusive) of each one's document."""
    high = key * 0 + length - 1
    if HAS_WINDOW:
        high = tl.minimum(high, key + window - 1)
    if HAS_DOCUMENTS:
        high = tl.minimum(high, tl.load(ends + key, mask=key < length, other=length) - 1)
    return high


@triton.jit
def key_loops(row0, starts, window, length, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
              HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr):  # fmt: skip
    """Keys first .. a and b .. end need a mask, a .. b do not: (first, tiles to a, b, tiles from b, a)."""
    end = tl.minimum(row0 + BLOCK_Q, length)
    low_first = lowest_key(row0, starts, window, length, HAS_WINDOW, HAS_DOCUMENTS)
    low_last = lowest_key(end - 1, starts, window, length, HAS_WINDOW, HAS_DOCUMENTS)
    first = (low_first // BLOCK_K) * BLOCK_K
    full_from = ((low_last + BLOCK_K - 1) // BLOCK_K) * BLOCK_K
    full_to = ((row0 + 1) // BLOCK_K) * BLOCK_K
    a = tl.maximum(first, tl.minimum(full_from, full_to))
    b = tl.maximum(a, full_to)
    return first, (a - first) // BLOCK_K, b, tl.cdiv(tl.maximum(end - b, 0), BLOCK_K), a


@triton.jit
def query_loops(key0, ends, window, length, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
                HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr):  # fmt: skip
    """Queries first .. a and b .. end need a mask, a .. b do not: (first, tiles to a, b, tiles from b, a)."""
    key_last = tl.minimum(key0 + BLOCK_K, length) - 1
    high_first = last_query(key0, ends, window, length, HAS_WINDOW, HAS_DOCUMENTS)
    end = last_query(key_last, ends, window, length, HAS_WINDOW, HAS_DOCUMENTS) + 1
    first = (key0 // BLOCK_Q) * BLOCK_Q
    # Up to the tile past the diagonal; where few queries see these keys that is past their end.
    a = ((key_last + BLOCK_Q - 1) // BLOCK_Q) * BLOCK_Q
    a = tl.minimum(a, tl.cdiv(end, BLOCK_Q) * BLOCK_Q)
    b = tl.maximum(a, ((high_first + 1) // BLOCK_Q) * BLOCK_Q)
    return first, (a - first) // BLOCK_Q, b, tl.cdiv(tl.maximum(end - b, 0), BLOCK_Q), a


@triton.jit
def tile_start(i, first, count, second, BLOCK: tl.constexpr):
    """Where tile i of a loop over two runs lies: `count` tiles from `first`, then those from `second`."""
    return tl.where(i < count, first, second - count * BLOCK) + i * BLOCK


@triton.jit
def tanh(x):
    """tanh by exp2, without a library of one maker: exact at both ends, where exp2 gives 0 and infinity."""
    return 1.0 - 2.0 / (tl.exp2(x * (2.0 * LOG2E)) + 1.0)
