"""Rotary embedding of queries and keys in one launch, with a norm of each head before it where there are weights.

The backward turns back; through a norm, it sums the weights' gradients without atomics.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_PARTS = 256
"""Programs of the norm's backward: each sums the weights' gradients over its own tokens, in order."""


@triton.jit
def _turn(src, dst, weight, base, stride_h, out, heads, c, s, dims, half, eps,
          BLOCK_H: tl.constexpr, BLOCK: tl.constexpr, HAS_NORM: tl.constexpr):  # fmt: skip
    """All heads of one token; both halves are read before either is written."""
    if HAS_NORM:
        w_a = tl.load(weight + dims, mask=dims < half, other=0.0).to(tl.float32)[None, :]
        w_b = tl.load(weight + half + dims, mask=dims < half, other=0.0).to(tl.float32)[None, :]
    for h0 in tl.range(0, heads, BLOCK_H):
        h = h0 + tl.arange(0, BLOCK_H)
        inside = (h < heads)[:, None] & (dims < half)[None, :]
        at = base + h.to(tl.int64)[:, None] * stride_h + dims[None, :]
        to = out + h.to(tl.int64)[:, None] * (2 * half) + dims[None, :]
        a = tl.load(src + at, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(src + at + half, mask=inside, other=0.0).to(tl.float32)
        if HAS_NORM:
            # Rounded as two launches would round it: a cached step, which norms by itself, sees the same keys.
            scale = tl.rsqrt(tl.sum(a * a + b * b, 1) / (2 * half) + eps)[:, None]
            dtype: tl.constexpr = dst.dtype.element_ty
            a = ((a * scale).to(dtype).to(tl.float32) * w_a).to(dtype).to(tl.float32)
            b = ((b * scale).to(dtype).to(tl.float32) * w_b).to(dtype).to(tl.float32)
        tl.store(dst + to, (a * c - b * s).to(dst.dtype.element_ty), mask=inside)
        tl.store(dst + to + half, (b * c + a * s).to(dst.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["length", "q_heads", "k_heads"])
def rope_kernel(
    q, k, cos, sin, q_weight, k_weight, q_out, k_out, q_b, q_t, q_h, k_b, k_t, k_h, c_b, c_t, length, q_heads,
    k_heads, half, eps,
    BLOCK_H: tl.constexpr, BLOCK: tl.constexpr, BACK: tl.constexpr, HAS_NORM: tl.constexpr,
):  # fmt: skip
    """One token: cos and sin [B, T, D/2], the two halves of a head are the pairs' members."""
    token, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    dims = tl.arange(0, BLOCK)
    at = batch * c_b + token * c_t + dims
    c = tl.load(cos + at, mask=dims < half, other=1.0).to(tl.float32)[None, :]
    s = tl.load(sin + at, mask=dims < half, other=0.0).to(tl.float32)[None, :]
    if BACK:
        s = -s
    row = batch * length + token
    _turn(q, q_out, q_weight, batch * q_b + token * q_t, q_h, row * q_heads * half * 2, q_heads, c, s, dims, half, eps,
          BLOCK_H, BLOCK, HAS_NORM)  # fmt: skip
    _turn(k, k_out, k_weight, batch * k_b + token * k_t, k_h, row * k_heads * half * 2, k_heads, c, s, dims, half, eps,
          BLOCK_H, BLOCK, HAS_NORM)  # fmt: skip


@triton.jit
def _turn_back(dy, x, dx, dw_a, dw_b, w_a, w_b, row, heads, c, s, dims, half, eps, BLOCK_H: tl.constexpr):
    """All heads of one token: turned back, then through the norm; adds to the sums for the weight's two halves."""
    base = row * heads * half * 2
    for h0 in tl.range(0, heads, BLOCK_H):
        h = h0 + tl.arange(0, BLOCK_H)
        inside = (h < heads)[:, None] & (dims < half)[None, :]
        at = base + h.to(tl.int64)[:, None] * (2 * half) + dims[None, :]
        a = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(x + at + half, mask=inside, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(a * a + b * b, 1) / (2 * half) + eps)[:, None]
        a, b = a * scale, b * scale
        dy_a = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
        dy_b = tl.load(dy + at + half, mask=inside, other=0.0).to(tl.float32)
        d_a, d_b = dy_a * c + dy_b * s, dy_b * c - dy_a * s
        dw_a += tl.sum(d_a * a, 0)
        dw_b += tl.sum(d_b * b, 0)
        d_a, d_b = d_a * w_a, d_b * w_b
        mean = (tl.sum(d_a * a + d_b * b, 1) / (2 * half))[:, None]
        tl.store(dx + at, ((d_a - a * mean) * scale).to(dx.dtype.element_ty), mask=inside)
        tl.store(dx + at + half, ((d_b - b * mean) * scale).to(dx.dtype.element_ty), mask=inside)
    return dw_a, dw_b


@triton.jit(do_not_specialize=["rows", "share", "q_heads", "k_heads"])
def norm_backward_kernel(
    dq_out, dk_out, q, k, cos, sin, q_weight, k_weight, dq, dk, dw_parts, rows, share, q_heads, k_heads, half, eps,
    BLOCK_H: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Tokens of one program, in order: dq, dk, and its part [4, D/2] of the weights' gradients."""
    program = tl.program_id(0)
    dims = tl.arange(0, BLOCK)
    near = dims < half
    q_a = tl.load(q_weight + dims, mask=near, other=0.0).to(tl.float32)[None, :]
    q_b = tl.load(q_weight + half + dims, mask=near, other=0.0).to(tl.float32)[None, :]
    k_a = tl.load(k_weight + dims, mask=near, other=0.0).to(tl.float32)[None, :]
    k_b = tl.load(k_weight + half + dims, mask=near, other=0.0).to(tl.float32)[None, :]
    dq_a, dq_b = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    dk_a, dk_b = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    begin = program * share
    for i in tl.range(tl.minimum(share, rows - begin)):
        row = begin.to(tl.int64) + i
        c = tl.load(cos + row * half + dims, mask=near, other=1.0).to(tl.float32)[None, :]
        s = tl.load(sin + row * half + dims, mask=near, other=0.0).to(tl.float32)[None, :]
        dq_a, dq_b = _turn_back(
            dq_out, q, dq, dq_a, dq_b, q_a, q_b, row, q_heads, c, s, dims, half, eps, BLOCK_H
        )
        dk_a, dk_b = _turn_back(
            dk_out, k, dk, dk_a, dk_b, k_a, k_b, row, k_heads, c, s, dims, half, eps, BLOCK_H
        )
    to = dw_parts + program.to(tl.int64) * 4 * half + dims
    tl.store(to, dq_a, mask=near)
    tl.store(to + half, dq_b, mask=near)
    tl.store(to + 2 * half, dk_a, mask=near)
    tl.store(to + 3 * half, dk_b, mask=near)


def _block_h(block: int) -> int:
    return max(1, min(16, 1024 // block))


def rope(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, back: bool, q_weight: Tensor | None = None,
    k_weight: Tensor | None = None, eps: float = 0.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Launch it; with weights, heads are normed first."""
    q = q if q.stride(-1) == 1 else q.contiguous()
    k = k if k.stride(-1) == 1 else k.contiguous()
    sin = sin.expand_as(cos)
    if cos.stride(-1) != 1 or cos.stride() != sin.stride():
        cos, sin = cos.contiguous(), sin.contiguous()
    if q_weight is not None and k_weight is not None:
        q_weight, k_weight = q_weight.contiguous(), k_weight.contiguous()
    q_out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    k_out = torch.empty(k.shape, dtype=k.dtype, device=k.device)
    n_batch, length, q_heads, dim = q.shape
    if n_batch * length and dim:
        block = triton.next_power_of_2(dim // 2)
        with torch.cuda.device_of(q):
            rope_kernel[(length, n_batch)](
                q, k, cos, sin, q_weight, k_weight, q_out, k_out, *q.stride()[:3], *k.stride()[:3], *cos.stride()[:2],
                length, q_heads, k.shape[2], dim // 2, eps, BLOCK_H=_block_h(block), BLOCK=block, BACK=back,
                HAS_NORM=q_weight is not None, num_warps=4,
            )  # fmt: skip
    return q_out, k_out


def norm_backward(
    dq_out: Tensor, dk_out: Tensor, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, q_weight: Tensor,
    k_weight: Tensor, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return dq, dk and the gradients of the weights."""
    dq_out, dk_out, q, k, cos, sin = (x.contiguous() for x in (dq_out, dk_out, q, k, cos, sin))
    q_weight, k_weight = q_weight.contiguous(), k_weight.contiguous()
    dq, dk = torch.empty_like(q), torch.empty_like(k)
    rows, half = q.shape[0] * q.shape[1], q.shape[3] // 2
    if not rows * half:
        return dq, dk, torch.zeros_like(q_weight), torch.zeros_like(k_weight)
    share = triton.cdiv(rows, min(_PARTS, rows))
    parts = triton.cdiv(rows, share)
    dw = torch.empty(parts, 4 * half, dtype=torch.float32, device=q.device)
    block = triton.next_power_of_2(half)
    with torch.cuda.device_of(q):
        norm_backward_kernel[(parts,)](
            dq_out, dk_out, q, k, cos, sin, q_weight, k_weight, dq, dk, dw, rows, share, q.shape[2], k.shape[2], half,
            eps, BLOCK_H=_block_h(block), BLOCK=block, num_warps=4,
        )  # fmt: skip
    dq_weight, dk_weight = dw.sum(0).chunk(2)
    return dq, dk, dq_weight.to(q_weight.dtype), dk_weight.to(k_weight.dtype)
