"""Launches decode attention: how many splits, which tiles; no synchronisation, so a step captures in a graph."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from bytegen.kernels.architectures import architecture_of, processors_of
from bytegen.kernels.attention.fused.decoding import combine_kernel, split_kernel
from bytegen.kernels.attention.fused.launch import block_d

_MOST_SPLITS = 128
_QUERIES = 16
"""Queries of one head in a tile, at most; longer chunks take more tiles."""

_ROWS = 128
"""Rows of a tile, at most, where a group has no more heads than that: its queries times the group's heads."""

_ELEMENTS = {16: 16_384, 32: 4096}
"""Elements of a tile of queries, at most, by their bits: beside them lie as many sums in float32 (128 rows of 256 spill
32 to 156). In float32 plain multiply-adds hold whole rows in registers, and more spill."""

_FOUR_WARPS: dict[str, tuple[int, ...]] = {
    "sm_90": (
        16,
        64,
    ),  # a warp group of wgmma takes 64 rows; 32 would spill 2 for a third block on a processor
    "sm_100": (16, 32),  # 64 would spill 1, in float16
    "gfx942": (16, 32, 64),  # a warp is twice as wide
}
"""Rows of a tile of 16 bits that 4 warps hold; elsewhere 8, so always on sm_80 and sm_86: there mma.sync takes 128, and
spills 1, to 255 registers with 4 warps, and 97 to 231 with 8."""


class DecodeTile(NamedTuple):
    """Keys a tile, warps a block, tiles in flight."""

    block_k: int
    warps: int
    stages: int


def queries_in_tile(n_new: int, groups: int, head_dim: int, bits: int) -> int:
    """Queries of one head in a tile, a power of two: those of all heads of a group lie in it."""
    rows = min(_ROWS if bits < 32 else 32, _ELEMENTS[bits] // block_d(head_dim))
    most = max(1, min(_QUERIES, rows // groups))
    return min(1 << (most.bit_length() - 1), triton.next_power_of_2(n_new))


@functools.cache
def decode_tile(architecture: str, head_dim: int, bits: int, rows: int) -> DecodeTile:
    """A tile of keys of about 16 KB, so that the loads in flight cover the latency of memory.

    Few rows of queries leave the tensor cores idle anyhow: a step is bound by the bytes of the cache. Half as many
    keys where many rows, or float32, hold more registers: heads of 256 on gfx942 spill 4 with 32 keys and a softcap.
    In float32 a single new query takes 32 keys (16 of heads of 128 spill one register on sm_100).
    """
    block_k = min(128, 16_384 // (block_d(head_dim) * bits // 8))
    if bits == 32:
        block_k = min(32, block_k if rows <= 16 else block_k // 2)
    elif rows > 64 or (architecture == "gfx942" and block_d(head_dim) > 128):
        block_k //= 2
    block_k = max(16, block_k)
    stages = 1 if architecture == "gfx942" or bits == 32 else 2 if architecture == "sm_86" else 3
    four = bits < 32 and block_d(head_dim) <= 128 and rows in _FOUR_WARPS.get(architecture, ())
    return DecodeTile(block_k, 4 if four else 8, stages)


@functools.cache
def splits_for(programs: int, keys: int, block_k: int, processors: int) -> int:
    """The fewest splits of the keys that fill the processors at 85% of the best that any number of splits reaches.

    `programs` are those of one split; more splits cost a merge, fewer leave processors idle (flash-attention's rule).
    """
    most = max(1, min(_MOST_SPLITS, math.ceil(keys / block_k)))
    if programs >= 0.8 * processors:
        return 1

    def efficiency(splits: int) -> float:
        waves = programs * splits / processors
        return waves / math.ceil(waves)

    # Splits that do not shorten the longest share only cost.
    useful = [
        n
        for n in range(1, most + 1)
        if n == 1 or math.ceil(keys / block_k / n) < math.ceil(keys / block_k / (n - 1))
    ]
    best = max(efficiency(n) for n in useful)
    return next(n for n in useful if efficiency(n) >= 0.85 * best)


def decode(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, start: Tensor, k_new: Tensor | None, v_new: Tensor | None,
    cos: Tensor | None, sin: Tensor | None, q_weight: Tensor | None, k_weight: Tensor | None, sinks: Tensor | None,
    window: int | None, scale: float, softcap: float, eps: float,
    *, tile: DecodeTile | None = None, splits: int | None = None,
) -> Tensor:  # fmt: skip
    """Return o [B, T, Hq, D]; with `k_new`, `v_new` the cache gets them (keys normed, turned) in the same launch."""
    n_batch, n_new, n_heads, head_dim = q.shape
    o = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if not q.numel():
        return o
    capacity, n_kv = k_cache.shape[1], k_cache.shape[2]
    groups, d = n_heads // n_kv, block_d(head_dim)
    q = q if q.stride(-1) == 1 else q.contiguous()
    if k_new is not None and v_new is not None:
        k_new = k_new if k_new.stride(-1) == 1 else k_new.contiguous()
        v_new = v_new if v_new.stride(-1) == 1 else v_new.contiguous()
        new_strides = [*k_new.stride()[:3], *v_new.stride()[:3]]
    else:
        new_strides = [0] * 6
    if cos is not None and sin is not None:
        cos, sin = cos.contiguous(), sin.contiguous()
    if q_weight is not None and k_weight is not None:
        q_weight, k_weight = q_weight.contiguous(), k_weight.contiguous()
    sinks = None if sinks is None else sinks.contiguous()
    block_t = queries_in_tile(n_new, groups, head_dim, q.element_size() * 8)
    rows = max(16, triton.next_power_of_2(groups * block_t))
    architecture = architecture_of(q.device)
    tile = tile or decode_tile(architecture.name, head_dim, q.element_size() * 8, rows)
    turns = triton.cdiv(n_new, block_t)
    keys = capacity if window is None else min(capacity, window + n_new)
    if splits is None:
        splits = splits_for(n_batch * n_kv * turns, keys, tile.block_k, processors_of(q.device))
    whole = splits == 1 and sinks is None
    parts = o if whole else torch.empty(splits, *q.shape, dtype=torch.float32, device=q.device)
    lse = torch.empty(splits, n_batch, n_new, n_heads, dtype=torch.float32, device=q.device)
    with torch.cuda.device_of(q):
        split_kernel[(splits, n_batch * n_kv, turns)](
            q, k_cache, v_cache, k_new, v_new, cos, sin, q_weight, k_weight, start, parts, lse,
            start.stride(0), *q.stride()[:3], *k_cache.stride()[:3], *v_cache.stride()[:3], *new_strides,
            n_new, capacity, window or 0, scale, softcap, eps,
            KV_HEADS=n_kv, GROUPS=groups, D=head_dim, BLOCK_D=d, BLOCK_T=block_t, ROWS=rows, BLOCK_K=tile.block_k,
            BLOCK_N=max(16, block_t), SPLITS=splits, HAS_NEW=k_new is not None, HAS_ROPE=cos is not None,
            HAS_NORM=q_weight is not None, HAS_WINDOW=window is not None, HAS_SOFTCAP=softcap > 0, PRECISION="ieee",
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        if not whole:
            n = n_batch * n_new * n_heads
            combine_kernel[(n,)](
                parts, lse, sinks, o, n, HEADS=n_heads, D=head_dim, BLOCK_D=d, SPLITS=splits,
                BLOCK_S=triton.next_power_of_2(splits), HAS_SINKS=sinks is not None, num_warps=2,
            )  # fmt: skip
    return o
