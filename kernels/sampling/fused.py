"""Masked sampling in one Triton launch, one program a row.

A row is small, so nothing is sorted: what stands before a choice is summed by comparing it with every other.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bytegen.kernels.sampling.random import UNIFORM_BITS

_SHIFT = tl.constexpr(32 - UNIFORM_BITS)
_SCALE = tl.constexpr(2.0**-UNIFORM_BITS)


@triton.jit
def _allowed(
    i, row, mask, mask_row, following, least, state, budget, n,
    BITS: tl.constexpr, HAS_TABLE: tl.constexpr, ACCEPT: tl.constexpr,
):  # fmt: skip
    """Whether the choices `i` of a row are allowed, by its mask and its instruction."""
    inside = i < n
    if BITS:
        word = tl.load(mask + row * mask_row + i // 32, mask=inside, other=0)
        allowed = ((word >> (i % 32)) & 1) != 0
    else:
        allowed = tl.load(mask + row * mask_row + i, mask=inside, other=0) != 0
    if HAS_TABLE:
        in_code = state + 0 * i > 0  # as a block: the interpreter makes an integer of a comparison of scalars
        coded = inside & (i < 256) & in_code
        after = tl.load(following + state * 256 + i, mask=coded, other=0)
        running = coded & (after < ACCEPT) & (after > 0)
        need = tl.load(least + after, mask=running, other=0)
        allowed = allowed & (~in_code | ((after > 0) & (need < budget + 0 * i)))
    return allowed & inside


@triton.jit(do_not_specialize=["n", "logits_row", "mask_row"])
def sample_kernel(
    logits, mask, uniforms, seeds, steps, temperatures, top_ks, top_ps, min_ps, following, least, states, budgets,
    choices, logprobs, removed, n, logits_row, mask_row,
    t_row, k_row, p_row, m_row,
    BLOCK: tl.constexpr, CHUNK: tl.constexpr, BITS: tl.constexpr, HAS_UNIFORM: tl.constexpr,
    HAS_TABLE: tl.constexpr, ACCEPT: tl.constexpr,
):  # fmt: skip
    """One row: the choice, its log-probability, the mass that the mask removed."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    state, budget = 0, 0
    if HAS_TABLE:
        state = tl.load(states + row).to(tl.int32)
        budget = tl.load(budgets + row).to(tl.int32)
    allowed = _allowed(i, row, mask, mask_row, following, least, state, budget, n, BITS, HAS_TABLE, ACCEPT)
    x = tl.load(logits + row * logits_row + i, mask=i < n, other=float("-inf")).to(tl.float32)
    highest = tl.max(x, 0)
    everything = tl.sum(tl.exp(x - highest), 0)
    kept = tl.sum(tl.where(allowed, tl.exp(x - highest), 0.0), 0)
    x = tl.where(allowed, x, float("-inf"))
    top = tl.max(x, 0)
    temperature = tl.load(temperatures + row * t_row)
    greedy = temperature == 0.0
    sharp = 1.0 / tl.where(greedy, 1.0, temperature)
    p = tl.where(allowed, tl.exp((x - top) * sharp), 0.0)
    total = tl.sum(p, 0)

    # Mass and number of what comes before each choice, likeliest first, equal ones by index.
    before = tl.zeros([BLOCK], tl.float32)
    rank = tl.zeros([BLOCK], tl.int32)
    for j0 in tl.range(0, n, CHUNK):
        j = j0 + tl.arange(0, CHUNK)
        ok = _allowed(j, row, mask, mask_row, following, least, state, budget, n, BITS, HAS_TABLE, ACCEPT)
        y = tl.load(logits + row * logits_row + j, mask=ok, other=float("-inf")).to(tl.float32)
        # By probability as the twin has it: choices that differ less than a rounding are equal.
        q = tl.where(ok, tl.exp((y - top) * sharp), 0.0)
        first = (q[None, :] > p[:, None]) | ((q[None, :] == p[:, None]) & (j[None, :] < i[:, None]))
        before += tl.sum(tl.where(first, q[None, :], 0.0), 1)
        rank += tl.sum(first.to(tl.int32), 1)
    top_k = tl.load(top_ks + row * k_row)
    keep = (before < tl.load(top_ps + row * p_row) * total) & (p >= tl.load(min_ps + row * m_row)) & (p > 0.0)
    keep = keep & ((top_k <= 0) | (rank < top_k)) & ((rank == 0) | (not greedy))
    keep = keep | ((rank == 0) & (p > 0.0))
    mass = tl.sum(tl.where(keep, p, 0.0), 0)

    if HAS_UNIFORM:
        u = tl.load(uniforms + row).to(tl.float32)
    else:
        step = tl.load(steps + row)
        word, _, _, _ = tl.philox(
            tl.load(seeds + row), (step & 0xFFFFFFFF).to(tl.uint32), ((step >> 32) & 0xFFFFFFFF).to(tl.uint32),
            tl.full([], 0, tl.uint32), tl.full([], 0, tl.uint32),
        )  # fmt: skip
        u = (word >> _SHIFT).to(tl.float32) * _SCALE
    # The last kept choice that begins at or before the target: the ranges of kept choices have no gaps.
    begins = tl.where(keep & (before <= u * mass), before, -1.0)
    place = tl.max(begins, 0)
    choice = tl.min(tl.where(begins == place, i, BLOCK), 0)
    chosen = tl.sum(tl.where(i == choice, p, 0.0), 0)
    empty = mass == 0.0
    tl.store(choices + row, tl.where(empty, -1, choice).to(tl.int64))
    tl.store(logprobs + row, tl.where(empty, float("nan"), tl.log(chosen / mass)).to(tl.float64))
    tl.store(removed + row, tl.maximum(1.0 - kept / everything, 0.0).to(tl.float64))
    if HAS_TABLE:  # noqa: SIM102  (a constant and a value: triton keeps them apart)
        if (state > 0) & (choice < 256):
            after = tl.load(following + state * 256 + choice)
            tl.store(states + row, tl.where(after >= ACCEPT, 1, after).to(tl.int32))


def sample(
    logits: Tensor, mask: Tensor, uniform: Tensor | None, seed: Tensor | None, step: Tensor | None,
    temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor,
    following: Tensor | None, least: Tensor | None, accept: int, state: Tensor | None, budget: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Launch it; see `masked_sample`."""
    rows, n = logits.shape
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    bits = mask.dtype != torch.bool
    mask = mask if mask.stride(1) == 1 else mask.contiguous()
    uniform, seed, step, budget, following, least, states = (
        None if x is None else x.contiguous() for x in (uniform, seed, step, budget, following, least, state)
    )
    choice = torch.empty(rows, dtype=torch.int64, device=logits.device)
    logprob = torch.empty(rows, dtype=torch.float64, device=logits.device)
    removed = torch.empty(rows, dtype=torch.float64, device=logits.device)
    if not rows:
        return choice, logprob, removed
    block = max(32, triton.next_power_of_2(n))
    with torch.cuda.device_of(logits):
        sample_kernel[(rows,)](
            logits, mask if bits else mask.view(torch.uint8), uniform, seed, step, temperature, top_k, top_p, min_p,
            following, least, states, budget, choice, logprob, removed, n, logits.stride(0), mask.stride(0),
            temperature.stride(0), top_k.stride(0), top_p.stride(0), min_p.stride(0),
            BLOCK=block, CHUNK=8, BITS=bits, HAS_UNIFORM=uniform is not None, HAS_TABLE=following is not None,
            ACCEPT=accept, num_warps=max(4, min(16, block // 64)),
        )  # fmt: skip
    if state is not None and states is not None and states.data_ptr() != state.data_ptr():
        state.copy_(states)
    return choice, logprob, removed
