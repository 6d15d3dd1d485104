"""What training minimises: the cross-entropy of the next byte, and of bytes further on where the model has heads."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bytegen.kernels import backend, cross_entropy
from bytegen.model import ByteLM
from bytegen.train.data import Batch


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of each target [N] under logits [N, V]."""
    if backend.takes_triton(logits):
        return cross_entropy(logits, targets)
    return F.cross_entropy(logits.float(), targets, reduction="none")


class Further(NamedTuple):
    """What one head is asked in a batch: from N places [N], which targets [N] of which loss weights [N]."""

    places: Tensor
    targets: Tensor
    weights: Tensor


def further(batch: Batch, k: int) -> Further:
    """Return what head `k` is asked: the targets `k` places behind the model's own, in the same document.

    A target weighs what it weighs for the model. A place counts only where the model's own target has a weight: heads
    are read where a byte was drawn, never in a prompt or in a run that the constraint forces.
    """
    weights = batch.weights[0]
    at = torch.arange(len(weights), device=weights.device)
    document = torch.searchsorted(batch.cu_seqlens, at, right=True)
    asked = (weights[:-k] > 0) & (weights[k:] > 0) & (document[:-k] == document[k:])
    places = at[:-k][asked]
    return Further(places, batch.targets[0][places + k], weights[places + k])


def ask_heads(lm: ByteLM, batch: Batch, hidden: Tensor) -> list[tuple[Further, Tensor]]:
    """Ask every head from the batch's hidden states [T, D]: what, and its logits [N, V]."""
    asked = [further(batch, k) for k in range(1, len(lm.mtp) + 1)]
    return [(one, lm.logits(head(hidden[one.places]))) for one, head in zip(asked, lm.mtp, strict=True)]


class MtpLosses(NamedTuple):
    """How K heads did in a batch: mean weighted cross-entropy, targets that were the likeliest, targets; each [K]."""

    losses: Tensor
    right: Tensor
    asked: Tensor


def mtp_losses(answers: list[tuple[Further, Tensor]]) -> MtpLosses:
    """Judge what `ask_heads` gave; a head that was asked nothing has a loss of 0."""
    losses, right, asked = [], [], []
    for one, logits in answers:
        total = one.weights.sum().clamp_min(torch.finfo(torch.float32).tiny)
        losses.append((nats(logits, one.targets) * one.weights).sum() / total)
        right.append((logits.argmax(-1) == one.targets).sum())
        asked.append(torch.tensor(len(one.targets)))
    return MtpLosses(torch.stack(losses), torch.stack(right), torch.stack(asked))
