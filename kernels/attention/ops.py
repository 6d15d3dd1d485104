"""`bytegen::attention` and its backward as torch operators: fakes, autograd, FLOP formulas."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from bytegen.kernels import backend
from bytegen.kernels.attention import blockwise
from bytegen.kernels.checks import document_bounds
from bytegen.kernels.library import LIBRARY, define


def _bounds(cu_seqlens: Tensor | None, length: int) -> list[int]:
    return sorted({0, *document_bounds(cu_seqlens, length)})  # empty documents have no rows


def _fused(q: Tensor) -> bool:
    return q.dtype != torch.float64 and backend.takes_triton(q)


def _attention(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, cu_seqlens: Tensor | None, window: int | None,
    scale: float, softcap: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    if _fused(q):
        if backend.takes_gluon():
            from bytegen.kernels.attention.gluon import launch as hopper

            if hopper.takes(q, k, v, sinks, scale, softcap):
                return hopper.forward(q, k, v, cu_seqlens, window, scale)
        from bytegen.kernels.attention.fused import launch

        return launch.forward(q, k, v, sinks, cu_seqlens, window, scale, softcap)
    return blockwise.forward(q, k, v, window, _bounds(cu_seqlens, q.shape[1]), scale, softcap, sinks)


def _attention_fake(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, cu_seqlens: Tensor | None, window: int | None,
    scale: float, softcap: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    dtype = torch.promote_types(q.dtype, torch.float32)
    return (
        torch.empty(q.shape, dtype=q.dtype, device=q.device),
        q.new_empty(q.shape[0], q.shape[2], q.shape[1], dtype=dtype),
    )


def _backward(
    do: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, sinks: Tensor | None,
    cu_seqlens: Tensor | None, window: int | None, scale: float, softcap: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    if _fused(q):
        from bytegen.kernels.attention.fused import launch

        dq, dk, dv, dsinks = launch.backward(
            do, dlse, q, k, v, o, lse, sinks, cu_seqlens, window, scale, softcap
        )
    else:
        bounds = _bounds(cu_seqlens, q.shape[1])
        dq, dk, dv, dsinks = blockwise.backward(
            do, q, k, v, o, lse, dlse, window, bounds, scale, softcap, sinks
        )
    return dq, dk, dv, q.new_empty(0) if dsinks is None else dsinks


def _backward_fake(
    do: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, sinks: Tensor | None,
    cu_seqlens: Tensor | None, window: int | None, scale: float, softcap: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    return dq, dk, dv, q.new_empty(0) if sinks is None else torch.empty_like(sinks)


_OPTIONS = "Tensor? sinks, Tensor? cu_seqlens, int? window, float scale, float softcap"
ATTENTION = define(
    f"attention(Tensor q, Tensor k, Tensor v, {_OPTIONS}) -> (Tensor, Tensor)",
    compute=_attention,
    fake=_attention_fake,
)
define(
    "attention_backward(Tensor do, Tensor? dlse, Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, "
    f"{_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor)",
    compute=_backward,
    fake=_backward_fake,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, sinks, cu_seqlens, window, scale, softcap = inputs
    ctx.save_for_backward(q, k, v, *output, sinks, cu_seqlens)
    ctx.window, ctx.scale, ctx.softcap = window, scale, softcap
    # A gradient that nobody asks for comes as None and is not a tensor of zeros to read.
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, do: Tensor | None, dlse: Tensor | None) -> tuple[Any, ...]:
    q, k, v, o, lse, sinks, cu_seqlens = ctx.saved_tensors
    if do is None:
        do = torch.zeros_like(o)
    dq, dk, dv, dsinks = torch.ops.bytegen.attention_backward(
        do, dlse, q, k, v, o, lse, sinks, cu_seqlens, ctx.window, ctx.scale, ctx.softcap
    )
    return dq, dk, dv, None if sinks is None else dsinks, None, None, None, None


torch.library.register_autograd(ATTENTION, _differentiate, setup_context=_setup, lib=LIBRARY)


def seen_pairs(length: int, window: int | None, bounds: list[int]) -> int:
    """How many (query, key) pairs are seen in one head of one packed sequence."""
    total = 0
    for first, last in itertools.pairwise(bounds):
        n = last - first
        full = n if window is None else min(n, window)
        total += full * (full + 1) // 2 + (n - full) * full
    return total


def _flops(q: Tensor, cu_seqlens: Tensor | None, window: int | None) -> int:
    """Multiply-adds count twice; two products of D a pair and head."""
    n_batch, length, n_heads, dim = q.shape
    bounds = [0, length] if cu_seqlens is None else [int(x) for x in cu_seqlens.tolist()]
    return 4 * n_batch * n_heads * dim * seen_pairs(length, window, bounds)


@register_flop_formula(torch.ops.bytegen.attention, get_raw=True)
def _attention_flops(
    q: Tensor, k: Tensor, v: Tensor, sinks: Any, cu: Any, window: Any, *args: Any, **_: Any
) -> int:
    return _flops(q, cu, window)


@register_flop_formula(torch.ops.bytegen.attention_backward, get_raw=True)
def _backward_flops(do: Tensor, dlse: Any, q: Tensor, k: Tensor, v: Tensor, o: Any, lse: Any, sinks: Any, cu: Any,
                    window: Any, *args: Any, **_: Any) -> int:  # fmt: skip
    """Five products where the forward has two."""
    return _flops(q, cu, window) * 5 // 2
