"""`masked_sample`: mask, temperature, top-k, top-p, min-p and the draw, for a batch of next-byte logits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bytegen.kernels import backend
from bytegen.kernels.library import define
from bytegen.kernels.sampling.random import uniform as uniform_of


class Sampled(NamedTuple):
    """What `masked_sample` returns, one entry a sequence."""

    choice: Tensor  # int64 [B]; -1 where a mask on a GPU allowed nothing
    logprob: Tensor  # float [B], natural log under the masked and filtered distribution
    removed: Tensor  # float [B], the probability that the mask took away, at temperature 1


class InstructionTable(NamedTuple):
    """An instruction automaton as tensors: `following` int32 [S, 256], `least` int32 [S], and the first final id.

    State 0 is dead, 1 lies between two instructions, an id of `accept` or more ends one; `least` counts the bytes
    that complete an instruction from a state (`bytegen.formats.code.automaton.Automaton` has all three).
    """

    following: Tensor
    least: Tensor
    accept: int


def unpack(bitmask: Tensor, n: int) -> Tensor:
    """Bool [B, n] of an int32 bitmask [B, words]: bit i % 32 of word i // 32."""
    i = torch.arange(n, device=bitmask.device)
    return ((bitmask[:, i // 32] >> (i % 32)) & 1).bool()


def instruction_mask(table: InstructionTable, state: Tensor, budget: Tensor, n: int) -> Tensor:
    """Bool [B, n]: the bytes that code rows (state > 0) may take so that an instruction ends within `budget` bytes."""
    inside = state > 0
    following = table.following[state.long()].long()
    least = torch.cat([table.least, table.least.new_zeros(1)]).long()
    need = least[following.clamp(max=len(table.least))].masked_fill(following >= table.accept, 0)
    allowed = (following != 0) & (need < budget.unsqueeze(1))
    out = torch.zeros(len(state), n, dtype=torch.bool, device=state.device)
    out[:, :256] = allowed[:, : min(n, 256)]
    return out | ~inside.unsqueeze(1)


def _by_sorting(
    logits: Tensor, mask: Tensor, uniform: Tensor | None, seed: Tensor | None, step: Tensor | None,
    temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor,
    following: Tensor | None, least: Tensor | None, accept: int, state: Tensor | None, budget: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The twin in plain torch, in float64."""
    allowed = mask if mask.dtype == torch.bool else unpack(mask, logits.shape[1])
    if following is not None and least is not None and state is not None and budget is not None:
        table = InstructionTable(following, least, accept)
        allowed = allowed & instruction_mask(table, state, budget, logits.shape[1])
    if logits.device.type == "cpu" and not bool(allowed.any(dim=1).all()):
        raise ValueError(f"a row's mask allows nothing; logits {tuple(logits.shape)}")
    if uniform is None:
        assert seed is not None
        assert step is not None
        uniform = uniform_of(seed, step)
    logits = logits.double()
    kept_mass = torch.softmax(logits, dim=1).masked_fill(~allowed, 0.0).sum(1)
    t, top_k = temperature.double().unsqueeze(1), top_k.unsqueeze(1)
    masked = logits.masked_fill(~allowed, float("-inf"))
    greedy = t == 0
    p = torch.softmax(masked / t.masked_fill(greedy, 1.0), dim=1)
    ordered, order = p.sort(dim=1, descending=True, stable=True)
    rank = torch.arange(p.shape[1], device=p.device)
    before = ordered.cumsum(1) - ordered
    keep = (before < top_p.double().unsqueeze(1)) & (ordered >= min_p.double().unsqueeze(1) * ordered[:, :1])
    keep &= (ordered > 0) & ((top_k <= 0) | (rank < top_k)) & (~greedy | (rank == 0))
    keep[:, 0] = True
    weights = ordered * keep
    cumulative = weights.cumsum(1)
    total = cumulative[:, -1:]
    target = uniform.double().unsqueeze(1) * total
    drawn = (cumulative <= target).sum(1, keepdim=True)
    drawn = torch.minimum(drawn, keep.sum(1, keepdim=True) - 1)
    choice = order.gather(1, drawn).squeeze(1)
    logprob = torch.log(weights.gather(1, drawn) / total).squeeze(1)
    if state is not None and following is not None:
        after = following[state.long(), choice.clamp(max=255)].to(state.dtype)
        after = after.masked_fill(after >= accept, 1)
        state.copy_(torch.where((state > 0) & (choice < 256), after, state))
    return choice, logprob, (1.0 - kept_mass).clamp(min=0.0)


def _compute(
    logits: Tensor, mask: Tensor, uniform: Tensor | None, seed: Tensor | None, step: Tensor | None,
    temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor,
    following: Tensor | None, least: Tensor | None, accept: int, state: Tensor | None, budget: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    if logits.dtype != torch.float64 and backend.takes_triton(logits):
        from bytegen.kernels.sampling.fused import sample as compute
    else:
        compute = _by_sorting
    return compute(
        logits,
        mask,
        uniform,
        seed,
        step,
        temperature,
        top_k,
        top_p,
        min_p,
        following,
        least,
        accept,
        state,
        budget,
    )


def _fake(logits: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    rows, dtype = logits.shape[0], torch.float64
    return (
        logits.new_empty(rows, dtype=torch.int64),
        logits.new_empty(rows, dtype=dtype),
        logits.new_empty(rows, dtype=dtype),
    )


define(
    "masked_sample(Tensor logits, Tensor mask, Tensor? uniform, Tensor? seed, Tensor? step, Tensor temperature, "
    "Tensor top_k, Tensor top_p, Tensor min_p, Tensor? following, Tensor? least, int accept, Tensor(a!)? state, "
    "Tensor? budget) -> (Tensor, Tensor, Tensor)",
    compute=_compute,
    fake=_fake,
)


def _column(name: str, value: Tensor | float, logits: Tensor, dtype: torch.dtype) -> Tensor:
    """A parameter as one value a row."""
    if not isinstance(value, Tensor):
        # Filled on the device: a number copied there would wait for it, and no CUDA graph takes that.
        return torch.full((), value, dtype=dtype, device=logits.device).expand(logits.shape[0])
    value = value.to(logits.device, dtype)
    if value.dim() == 0:
        return value.expand(logits.shape[0])
    if value.shape != logits.shape[:1]:
        raise ValueError(
            f"{name} is a number or one a row: {tuple(value.shape)}, logits {tuple(logits.shape)}"
        )
    return value


def _check(
    logits: Tensor, mask: Tensor, uniform: Tensor | None, seed: Tensor | None, step: Tensor | None
) -> None:
    shapes = f"logits {tuple(logits.shape)}, mask {tuple(mask.shape)} {mask.dtype}"
    if logits.dim() != 2 or mask.dim() != 2 or mask.shape[0] != logits.shape[0]:
        raise ValueError(f"masked_sample takes logits [B, N] and a mask a row; got {shapes}")
    if mask.dtype == torch.bool:
        if mask.shape != logits.shape:
            raise ValueError(f"a bool mask is [B, N] like the logits; got {shapes}")
    elif mask.dtype != torch.int32 or mask.shape[1] * 32 < logits.shape[1]:
        raise ValueError(f"a mask is bool [B, N] or an int32 bitmask [B, at least N / 32]; got {shapes}")
    if not 1 <= logits.shape[1] <= 4096:
        raise ValueError(f"masked_sample is made for small vocabularies, 1 to 4096; got {shapes}")
    if logits.device != mask.device:
        raise ValueError(f"logits lie on {logits.device}, the mask on {mask.device}; {shapes}")
    if (uniform is None) == (seed is None) or (seed is None) != (step is None):
        raise ValueError(f"give either uniform, or seed and step, to draw with; {shapes}")
    for name, value in (("uniform", uniform), ("seed", seed), ("step", step)):
        if value is not None and value.shape != logits.shape[:1]:
            raise ValueError(f"{name} is one number a row: {tuple(value.shape)}, {shapes}")


def masked_sample(
    logits: Tensor, mask: Tensor, uniform: Tensor | None = None, *, seed: Tensor | None = None,
    step: Tensor | None = None, temperature: Tensor | float = 1.0, top_k: Tensor | int = 0,
    top_p: Tensor | float = 1.0, min_p: Tensor | float = 0.0, table: InstructionTable | None = None,
    state: Tensor | None = None, budget: Tensor | None = None,
) -> Sampled:  # fmt: skip
    """Draw one choice a row from `logits` [B, N] restricted to `mask`: bool [B, N], or an int32 bitmask [B, words].

    The draw is the inverse of the row's cumulative distribution, likeliest first, at a number of the row's own, so
    it does not depend on the batch around it: `uniform` [B] in [0, 1), or Philox of `seed` and `step` (int64 [B]).
    Temperature 0 takes the likeliest choice. Then `top_k` keeps that many (0: all), `top_p` the smallest set of
    likeliest choices with at least that mass (Holtzman et al. 2020), and `min_p` those at least that share of the
    likeliest (Nguyen et al. 2024); each is a number or one a row. With `table`, rows whose `state` (int32 [B],
    updated in place) is not 0 stand in code and also keep to its instructions, the last of which must end within
    `budget` (int32 [B]) bytes. On a GPU all of it is one launch in float32, without a synchronisation. Raises
    ValueError when shapes differ, or (on the CPU) when a row's mask is empty.
    """
    _check(logits, mask, uniform, seed, step)
    if table is not None:
        if state is None or budget is None or state.shape != logits.shape[:1] or budget.shape != state.shape:
            raise ValueError(f"a table goes with state and budget, one a row; logits {tuple(logits.shape)}")
        if state.dtype != torch.int32:
            raise ValueError(f"state is int32, updated in place; got {state.dtype} {tuple(state.shape)}")
        if table.following.dim() != 2 or table.following.shape[1] != 256 or logits.shape[1] < 256:
            raise ValueError(
                f"a table is [S, 256] beside logits of 256 bytes or more; got {tuple(table.following.shape)}, "
                f"logits {tuple(logits.shape)}"
            )
    columns = (
        _column("temperature", temperature, logits, torch.float32),
        _column("top_k", top_k, logits, torch.int32),
        _column("top_p", top_p, logits, torch.float32),
        _column("min_p", min_p, logits, torch.float32),
    )
    return Sampled(
        *torch.ops.bytegen.masked_sample(
            logits, mask, uniform, seed, step, *columns,
            *((table.following, table.least, table.accept) if table is not None else (None, None, 0)),
            state if table is not None else None, budget if table is not None else None,
        )
    )  # fmt: skip
