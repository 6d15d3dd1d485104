"""Rotary embedding of queries and keys in one launch; the backward turns back."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _turn(src, dst, base, stride_h, out, heads, c, s, dims, half,
          BLOCK_H: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """All heads of one token; both halves are read before either is written."""
    for h0 in tl.range(0, heads, BLOCK_H):
        h = h0 + tl.arange(0, BLOCK_H)
        inside = (h < heads)[:, None] & (dims < half)[None, :]
        at = base + h.to(tl.int64)[:, None] * stride_h + dims[None, :]
        to = out + h.to(tl.int64)[:, None] * (2 * half) + dims[None, :]
        a = tl.load(src + at, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(src + at + half, mask=inside, other=0.0).to(tl.float32)
        tl.store(dst + to, (a * c - b * s).to(dst.dtype.element_ty), mask=inside)
        tl.store(dst + to + half, (b * c + a * s).to(dst.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["length", "q_heads", "k_heads"])
def rope_kernel(
    q, k, cos, sin, q_out, k_out, q_b, q_t, q_h, k_b, k_t, k_h, c_b, c_t, length, q_heads, k_heads, half,
    BLOCK_H: tl.constexpr, BLOCK: tl.constexpr, BACK: tl.constexpr,
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
    _turn(
        q,
        q_out,
        batch * q_b + token * q_t,
        q_h,
        row * q_heads * half * 2,
        q_heads,
        c,
        s,
        dims,
        half,
        BLOCK_H,
        BLOCK,
    )
    _turn(
        k,
        k_out,
        batch * k_b + token * k_t,
        k_h,
        row * k_heads * half * 2,
        k_heads,
        c,
        s,
        dims,
        half,
        BLOCK_H,
        BLOCK,
    )


def rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, back: bool) -> tuple[Tensor, Tensor]:
    """Launch it."""
    q = q if q.stride(-1) == 1 else q.contiguous()
    k = k if k.stride(-1) == 1 else k.contiguous()
    sin = sin.expand_as(cos)
    if cos.stride(-1) != 1 or cos.stride() != sin.stride():
        cos, sin = cos.contiguous(), sin.contiguous()
    q_out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    k_out = torch.empty(k.shape, dtype=k.dtype, device=k.device)
    n_batch, length, q_heads, dim = q.shape
    if n_batch * length and dim:
        block = triton.next_power_of_2(dim // 2)
        with torch.cuda.device_of(q):
            rope_kernel[(length, n_batch)](
                q, k, cos, sin, q_out, k_out, *q.stride()[:3], *k.stride()[:3], *cos.stride()[:2], length, q_heads,
                k.shape[2], dim // 2, BLOCK_H=max(1, min(16, 1024 // block)), BLOCK=block, BACK=back, num_warps=4,
            )  # fmt: skip
    return q_out, k_out
