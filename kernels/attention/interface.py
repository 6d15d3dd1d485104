"""`local_attention`: checks what it is given, then chooses how to compute it."""

from __future__ import annotations

import itertools
import math
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from bytegen.kernels.attention.blockwise import BlockwiseAttention


def check_attention_args(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> None:
    """Raise ValueError, with the shapes in it, when the arguments do not fit each other."""
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if q.dim() != 4 or k.dim() != 4 or v.dim() != 4:
        raise ValueError(f"attention takes [B, T, H, D] tensors; got {shapes}")
    if k.shape != v.shape:
        raise ValueError(f"k and v differ in shape: {shapes}")
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"q and k differ in batch or head dimension: {shapes}")
    if q.shape[2] % k.shape[2]:
        raise ValueError(f"the query heads are not a multiple of the key heads: {shapes}")
    if not (q.dtype == k.dtype == v.dtype):
        raise ValueError(f"q, k, v differ in dtype: {q.dtype}, {k.dtype}, {v.dtype}")
    if not (q.device == k.device == v.device):
        raise ValueError(f"q, k, v lie on different devices: {q.device}, {k.device}, {v.device}")
    if window is not None and window < 1:
        raise ValueError(f"window={window}: it counts the query itself, so at least 1, or None for global")


def document_bounds(cu_seqlens: Tensor | None, batch: int, length: int) -> list[int]:
    """Return the documents' limits as a list from 0 to `length`; ValueError when they do not fit."""
    if cu_seqlens is None:
        return [0, length]
    if batch != 1:
        raise ValueError(f"cu_seqlens goes with packed documents, B = 1; got B = {batch}")
    bounds = [int(x) for x in cu_seqlens.tolist()]
    if (
        not bounds
        or bounds[0] != 0
        or bounds[-1] != length
        or any(a > b for a, b in itertools.pairwise(bounds))
    ):
        raise ValueError(
            f"cu_seqlens must rise from 0 to the length {length}; got {bounds[:4]}...{bounds[-1:]}"
        )
    return bounds


def _documents_as_batch(q: Tensor, k: Tensor, v: Tensor, bounds: list[int], scale: float) -> Tensor:
    """Attend within short documents through torch's fused kernel, one padded row a document."""
    starts = torch.tensor(bounds[:-1], device=q.device)
    lengths = torch.tensor([b - a for a, b in itertools.pairwise(bounds)], device=q.device)
    longest = int(lengths.max())
    offsets = torch.arange(longest, device=q.device)
    # Rows past a document's end repeat its last token: causal order hides them from the real ones.
    index = starts[:, None] + torch.minimum(offsets, (lengths - 1)[:, None])  # [N, longest]
    real = (offsets < lengths[:, None]).flatten()
    rows = [x[0][index].transpose(1, 2) for x in (q, k, v)]  # [N, H, longest, D]
    grouped = q.shape[2] != k.shape[2]
    o = F.scaled_dot_product_attention(
        rows[0], rows[1], rows[2], is_causal=True, scale=scale, enable_gqa=grouped
    )
    return o.transpose(1, 2).flatten(0, 1)[real].unsqueeze(0)


@overload
def local_attention(
    q: Tensor, k: Tensor, v: Tensor, *, window: int | None = ..., cu_seqlens: Tensor | None = ...,
    scale: float | None = ..., return_lse: Literal[False] = ...,
) -> Tensor: ...  # fmt: skip


@overload
def local_attention(
    q: Tensor, k: Tensor, v: Tensor, *, window: int | None = ..., cu_seqlens: Tensor | None = ...,
    scale: float | None = ..., return_lse: Literal[True],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip


@torch.compiler.disable
def local_attention(  # type: ignore[misc]
    q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, cu_seqlens: Tensor | None = None,
    scale: float | None = None, return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Causal attention in which a query sees at most `window` keys, itself included; None is global.

    q is [B, T, Hq, D], k and v are [B, T, Hkv, D], Hq a multiple of Hkv. Packed documents come as
    B = 1 with `cu_seqlens` (int, [documents + 1], from 0 to T). `scale` is 1/sqrt(D) unless given.
    Returns o [B, T, Hq, D], and with `return_lse` the log-sum-exp of the scaled scores [B, Hq, T] in
    float32 or float64. Differentiable in both. Raises ValueError when shapes, dtypes or devices differ.
    """
    check_attention_args(q, k, v, window)
    if q.shape[1] != k.shape[1]:
        raise ValueError(f"q and k differ in length: {tuple(q.shape)}, {tuple(k.shape)}")
    scale = 1.0 / math.sqrt(q.shape[3]) if scale is None else scale
    bounds = document_bounds(cu_seqlens, q.shape[0], q.shape[1])
    bounds = sorted(set(bounds))  # empty documents have no rows
    if len(bounds) < 2:
        return (q.clone(), q.new_zeros(q.shape[0], q.shape[2], 0)) if return_lse else q.clone()
    longest = max(b - a for a, b in itertools.pairwise(bounds))
    if not return_lse and (window is None or longest <= window):
        if len(bounds) == 2:
            o = F.scaled_dot_product_attention(
                q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                is_causal=True, scale=scale, enable_gqa=q.shape[2] != k.shape[2],
            )  # fmt: skip
            return o.transpose(1, 2)
        if longest * (len(bounds) - 1) <= 2 * q.shape[1]:  # padding at most doubles the rows
            return _documents_as_batch(q, k, v, bounds, scale)
    o, lse = BlockwiseAttention.apply(q, k, v, window, bounds, scale)
    return (o, lse) if return_lse else o
