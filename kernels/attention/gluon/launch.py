"""Launches attention forward in Gluon on sm_90: which calls it takes, descriptors, tiles."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from bytegen.kernels.attention.fused.launch import document_limits
from bytegen.kernels.attention.gluon.forward import hopper_forward_kernel

ROWS = 64
"""Queries of a warpgroup: the rows of its instruction. A block has two warpgroups."""


class Tile(NamedTuple):
    """Keys a tile, stages of each ring, whether the two warpgroups issue their products in turn."""

    block_k: int
    stages: int
    turns: bool


# 64 and 128: the scores and the output of a warpgroup take 64 registers a thread each at most, and probabilities 32, of
# 240; at 128 as many stages as 227 KB hold beside the queries. 256: 64 keys spill 3 with triton 3.9, none with 3.6.
# Turns where FlashAttention-3 has them.
TILES = {64: Tile(128, 4, True), 128: Tile(128, 3, True), 256: Tile(32, 4, False)}

_ELEMENTS = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}


def _strides(x: Tensor) -> list[int]:
    """Those of x [B, T, H, D] seen as [B, H, T, D]; a dimension of one has any stride, so a fitting one."""
    seen = x.transpose(1, 2)
    return [
        stride if size > 1 else x.shape[3]
        for size, stride in zip(seen.shape[:3], seen.stride(), strict=False)
    ] + [1]


def _described(x: Tensor) -> bool:
    """Whether a descriptor can stand for x: rows of 16 aligned bytes, strides below 2^40 bytes, none of them 0."""
    size = x.element_size()
    return (
        x.stride(3) == 1
        and x.data_ptr() % 16 == 0
        and all(0 < stride * size < 1 << 40 and stride * size % 16 == 0 for stride in _strides(x)[:3])
    )


def takes(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, scale: float, softcap: float) -> bool:
    """Whether `forward` can be asked for these; the rest goes to the Triton kernel.

    Heads of 64, 128 and 256 in 16 bits, without sinks or a softcap, aligned as TMA wants them; no more rows than a grid
    has room for.
    """
    n_batch, length, _, head_dim = q.shape
    return (
        head_dim in TILES
        and q.dtype in _ELEMENTS
        and sinks is None
        and not softcap
        and scale > 0
        and q.numel() > 0
        and n_batch < 1 << 16
        and triton.cdiv(length, 2 * ROWS) < 1 << 16
        and all(map(_described, (q, k, v)))
    )


def _descriptor(x: Tensor, rows: int) -> TensorDescriptor:
    """Tiles of `rows` tokens of one head of x [B, T, H, D]."""
    seen = x.transpose(1, 2)
    block = [1, 1, rows, x.shape[3]]
    layout = gl.NVMMASharedLayout.get_default_for(block, _ELEMENTS[x.dtype])
    return TensorDescriptor(seen, list(seen.shape), _strides(x), block, layout)


def forward(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, window: int | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Return o [B, T, Hq, D] in the dtype of q and lse [B, Hq, T] in float32, of what `takes` allows."""
    n_batch, length, n_heads, head_dim = q.shape
    o = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(n_batch, n_heads, length, dtype=torch.float32, device=q.device)
    starts, _ = document_limits(cu_seqlens, length)
    tile = TILES[head_dim]
    options: dict[str, Any] = {
        "GROUPS": n_heads // k.shape[2],
        "D": head_dim,
        "ROWS": ROWS,
        "BLOCK_K": tile.block_k,
        "STAGES": tile.stages,
        "SIZE": q.element_size(),
        "HAS_WINDOW": window is not None,
        "HAS_DOCUMENTS": starts is not None,
        "TURNS": tile.turns,
        "num_warps": 4,
    }
    grid = (n_heads, triton.cdiv(length, 2 * ROWS), n_batch)
    with torch.cuda.device_of(q):
        hopper_forward_kernel[grid](
            _descriptor(q, ROWS), _descriptor(k, tile.block_k), _descriptor(v, tile.block_k), _descriptor(o, ROWS),
            lse, starts, length, window or 0, scale, **options,
        )  # fmt: skip
    return o, lse
