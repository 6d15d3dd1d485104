"""`local_attention`: checks what it is given, then chooses how to compute it."""

from __future__ import annotations

import itertools
import math
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._compile import _disable_dynamo

from bytegen.kernels import backend
from bytegen.kernels.attention import ops  # noqa: F401  (registers torch.ops.bytegen.attention)
from bytegen.kernels.checks import check_attention_args, check_cu_seqlens, check_scores, document_bounds


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


# Which way to go depends on the values of cu_seqlens: a compiler breaks its graph here. `backend.use("torch")` keeps
# to the operator, and so to one graph. `torch.compiler.disable` would import the compiler now, which takes a second and
# a half; this is what torch itself uses to do so when the function is first called.
@_disable_dynamo
def _by_sdpa(
    q: Tensor, k: Tensor, v: Tensor, window: int | None, cu_seqlens: Tensor | None, scale: float
) -> Tensor | None:
    """The output by torch's fused CPU kernel where no window cuts a document, or None."""
    bounds = sorted(set(document_bounds(cu_seqlens, q.shape[1])))
    if len(bounds) < 2:
        return q.clone()
    longest = max(b - a for a, b in itertools.pairwise(bounds))
    if window is not None and longest > window:
        return None
    if len(bounds) == 2:
        o = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
            is_causal=True, scale=scale, enable_gqa=q.shape[2] != k.shape[2],
        )  # fmt: skip
        return o.transpose(1, 2)
    if longest * (len(bounds) - 1) <= 2 * q.shape[1]:  # padding at most doubles the rows
        return _documents_as_batch(q, k, v, bounds, scale)
    return None


@overload
def local_attention(
    q: Tensor, k: Tensor, v: Tensor, *, window: int | None = ..., cu_seqlens: Tensor | None = ...,
    scale: float | None = ..., softcap: float = ..., sinks: Tensor | None = ..., return_lse: Literal[False] = ...,
) -> Tensor: ...  # fmt: skip


@overload
def local_attention(
    q: Tensor, k: Tensor, v: Tensor, *, window: int | None = ..., cu_seqlens: Tensor | None = ...,
    scale: float | None = ..., softcap: float = ..., sinks: Tensor | None = ..., return_lse: Literal[True],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip


def local_attention(
    q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, cu_seqlens: Tensor | None = None,
    scale: float | None = None, softcap: float = 0.0, sinks: Tensor | None = None, return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Causal attention in which a query sees at most `window` keys, itself included; None is global.

    q is [B, T, Hq, D], k and v are [B, T, Hkv, D], Hq a multiple of Hkv, D at most 256. Packed documents come as
    B = 1 with `cu_seqlens` (int, [documents + 1], from 0 to T). `scale` is 1/sqrt(D) unless given; `softcap` c > 0
    bends scaled scores to c tanh(s / c) (Gemma 2); `sinks` [Hq] are scores of one more key a head, which carries no
    value (gpt-oss). Returns o [B, T, Hq, D], and with `return_lse` the log-sum-exp of the scores, sinks included,
    [B, Hq, T] in float32 or float64. Differentiable in both. Blocks that no query of a tile sees are never visited,
    memory is linear in T, and the backward is deterministic. `backend.use` chooses the code; float64 always goes to
    the torch twin. Raises ValueError when shapes, dtypes, devices or options do not fit.
    """
    check_attention_args(q, k, v, window)
    if q.shape[1] != k.shape[1]:
        raise ValueError(f"q and k differ in length: {tuple(q.shape)}, {tuple(k.shape)}")
    scale = 1.0 / math.sqrt(q.shape[3]) if scale is None else float(scale)
    check_scores(q, scale, softcap, sinks)
    check_cu_seqlens(cu_seqlens, q)
    if not (return_lse or softcap) and sinks is None and q.device.type == "cpu" and backend.is_auto():
        o = _by_sdpa(q, k, v, window, cu_seqlens, scale)
        if o is not None:
            return o
    o, lse = torch.ops.bytegen.attention(q, k, v, sinks, cu_seqlens, window, scale, float(softcap))
    return (o, lse) if return_lse else o
