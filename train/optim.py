"""Muon for the matrices inside the network, AdamW for everything else; warm-up, plateau, decay.

Muon (Jordan et al. 2024) replaces a matrix' momentum by the nearest orthogonal matrix; the update is
scaled by 0.2 * sqrt(max(rows, columns)) so that one learning rate serves both optimisers (Liu et al. 2025).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bytegen.folders import MTP
from bytegen.planning.optimizers import STACKED

NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Quintic that pushes singular values toward one in five steps."""


def orthogonalise(batch: Tensor, steps: int = 5) -> Tensor:
    """Return, for each matrix of `batch` [N, R, C], approximately the nearest (semi-)orthogonal one."""
    a, b, c = NS_COEFFICIENTS
    x = batch.to(torch.bfloat16 if batch.is_cuda else torch.float32)
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.transpose(1, 2) if tall else x).to(batch.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; matrices of one shape are stacked, up to `STACKED` parameters at once."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[p.shape].append(p)
            for shape, params in shapes.items():
                at_once = max(1, STACKED // shape.numel())
                for first in range(0, len(params), at_once):
                    self._update(params[first : first + at_once], group)

    def _update(self, params: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Update parameters of one shape; what that takes is let go on return."""
        updates = orthogonalise(torch.stack([self._moved(p, group["momentum"]) for p in params]))
        for p, update in zip(params, updates, strict=True):
            scale = 0.2 * max(p.shape) ** 0.5 * group["lr"]
            p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)

    def _moved(self, p: nn.Parameter, momentum: float) -> Tensor:
        """Take the gradient into a parameter's momentum; return Nesterov's look ahead."""
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        assert p.grad is not None
        state["momentum"].lerp_(p.grad, 1 - momentum)
        return torch.lerp(p.grad, state["momentum"], momentum)


def make_optimizers(
    model: nn.Module,
    *,
    lr: float,
    embed_lr: float,
    weight_decay: float,
    momentum: float,
    betas: tuple[float, float],
) -> list[torch.optim.Optimizer]:
    """Return Muon over the matrices of blocks and multi-token prediction heads, and AdamW over all else.

    What needs no gradient is left out, and an optimiser that would have nothing to do too.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        inner = name.startswith(("blocks.", MTP)) and p.dim() == 2 and not name.endswith("conv.weight")
        if p.requires_grad:
            (matrices if inner else others).append(p)
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        optimizers.append(Muon(matrices, lr=lr, momentum=momentum, weight_decay=weight_decay))
    if others:
        optimizers.append(torch.optim.AdamW(others, lr=embed_lr, betas=betas, eps=1e-10, weight_decay=0.0))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def lr_scale(step: int, *, steps: int, warmup: int, decay: int) -> float:
    """Return the factor of the learning rate at `step` (0-based): linear up, flat, linear to zero."""
    up = min(1.0, (step + 1) / max(1, warmup))
    down = min(1.0, (steps - step) / max(1, decay))
    return up * down
