"""`masked_sample`: mask, temperature, top-p, min-p and the draw, for a batch of next-byte logits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Sampled(NamedTuple):
    """What `masked_sample` returns, one entry a sequence."""

    choice: Tensor  # int64 [B]
    logprob: Tensor  # float [B], natural log under the masked and filtered distribution
    removed: Tensor  # float [B], the probability that the mask took away, at temperature 1


def masked_sample(
    logits: Tensor, mask: Tensor, uniform: Tensor, *, temperature: Tensor | float = 1.0,
    top_p: Tensor | float = 1.0, min_p: Tensor | float = 0.0,
) -> Sampled:  # fmt: skip
    """Draw one choice a row from `logits` [B, N] restricted to `mask` (bool [B, N]).

    `uniform` [B] in [0, 1) is each row's own random number: the draw is the inverse of the row's
    cumulative distribution there, so it does not depend on the batch around it. Temperature 0 takes
    the likeliest choice. Then `top_p` keeps the smallest set of likeliest choices with at least that mass
    (Holtzman et al. 2020), and `min_p` those at least that share of the likeliest (Nguyen et al. 2024).
    Raises ValueError when shapes differ or a row's mask is empty.
    """
    if logits.shape != mask.shape or logits.dim() != 2 or uniform.shape != logits.shape[:1]:
        shapes = f"logits {tuple(logits.shape)}, mask {tuple(mask.shape)}, uniform {tuple(uniform.shape)}"
        raise ValueError(f"masked_sample takes logits and mask [B, N] and uniform [B]; got {shapes}")
    if not bool(mask.any(dim=1).all()):
        raise ValueError("a row's mask allows nothing")
    logits = logits.double()
    kept_mass = torch.softmax(logits, dim=1).masked_fill(~mask, 0.0).sum(1)

    def column(value: Tensor | float) -> Tensor:
        return (
            torch.as_tensor(value, dtype=torch.float64, device=logits.device).expand(len(logits)).unsqueeze(1)
        )

    t = column(temperature)
    masked = logits.masked_fill(~mask, float("-inf"))
    greedy = t == 0
    p = torch.softmax(masked / t.masked_fill(greedy, 1.0), dim=1)
    ordered, order = p.sort(dim=1, descending=True, stable=True)
    before = ordered.cumsum(1) - ordered
    keep = (before < column(top_p)) & (ordered >= column(min_p) * ordered[:, :1]) & (ordered > 0)
    keep &= ~greedy | (torch.arange(p.shape[1], device=p.device) == 0)
    keep[:, 0] = True
    weights = ordered * keep
    cumulative = weights.cumsum(1)
    total = cumulative[:, -1:]
    target = uniform.double().unsqueeze(1) * total
    rank = (cumulative <= target).sum(1, keepdim=True)
    rank = torch.minimum(rank, keep.sum(1, keepdim=True) - 1)
    choice = order.gather(1, rank).squeeze(1)
    logprob = torch.log(weights.gather(1, rank) / total).squeeze(1)
    return Sampled(choice, logprob, (1.0 - kept_mass).clamp(min=0.0))
