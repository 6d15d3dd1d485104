"""Floating-point operations of whole sequences: a multiply and an add count two, and only pairs that are seen count."""

from __future__ import annotations

from typing import NamedTuple

from bytegen.config import ModelConfig
from bytegen.planning.activations import widths


class Flops(NamedTuple):
    """FLOPs by what computes them: matrix products, attention of local layers, of global ones."""

    products: float
    local: float
    whole: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.products + self.local + self.whole


def seen_pairs(length: int, window: int | None) -> int:
    """Return how many (query, key) pairs one head sees in one causal sequence."""
    full = length if window is None else min(length, window)
    return full * (full + 1) // 2 + (length - full) * full


def product_flops(config: ModelConfig) -> int:
    """Return the FLOPs of one token outside attention: projections, feed-forward, convolution, head.

    Multi-token prediction heads are left out: generation asks them once a step, training at every token.
    """
    q, _ = widths(config)
    return config.flops_per_byte(0) - 4 * q * config.n_layers


def forward_flops(config: ModelConfig, length: int) -> Flops:
    """Return the FLOPs of one forward over a sequence of `length` tokens."""
    q, _ = widths(config)
    local = sum(4 * q * seen_pairs(length, w) for w in config.windows() if w is not None)
    whole = sum(4 * q * seen_pairs(length, w) for w in config.windows() if w is None)
    return Flops(float(length * product_flops(config)), float(local), float(whole))


BACKWARD_PRODUCTS = 2.0
"""A backward makes two products where the forward made one."""
BACKWARD_ATTENTION = 2.5
"""Attention's backward makes five products where the forward made two: the scores are computed again."""


def recomputed_products(config: ModelConfig, length: int) -> float:
    """Return the FLOPs of products that recomputation makes again: all but the head and each layer's last one.

    torch.utils.checkpoint stops when it has what the backward needs, and the last product's result is not needed.
    """
    left_out = config.dim * (config.vocab_size + config.n_layers * config.ffn_dim)
    return float(length * (product_flops(config) - 2 * left_out))


def training_flops(config: ModelConfig, length: int, *, recompute: bool) -> float:
    """Return the FLOPs of forward and backward over one sequence, multi-token prediction heads included; `recompute`
    adds what it makes again."""
    f = forward_flops(config, length)
    again = recomputed_products(config, length) + f.local + f.whole if recompute else 0.0
    products = f.products + length * config.mtp_flops()
    return products * (1 + BACKWARD_PRODUCTS) + (f.local + f.whole) * (1 + BACKWARD_ATTENTION) + again
