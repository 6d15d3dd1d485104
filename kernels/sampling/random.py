"""One random number a request and step, the same on every device and whatever the batch: Philox4x32-10.

Salmon et al. 2011; the first of the four words, as triton.language.philox gives it.
"""

from __future__ import annotations

import torch
from torch import Tensor

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_WORD = 0xFFFFFFFF
UNIFORM_BITS = 24
"""A float32 holds this many bits of a number in [0, 1) exactly."""


def philox(seed: Tensor, step: Tensor) -> Tensor:
    """Word 0 of Philox4x32-10: int64 [B] in [0, 2^32), key `seed` and counter `step` (int64 [B])."""
    k0, k1 = seed & _WORD, (seed >> 32) & _WORD
    c0, c1 = step & _WORD, (step >> 32) & _WORD
    c2, c3 = torch.zeros_like(c0), torch.zeros_like(c0)
    for _ in range(10):
        high_b, low_b = _multiply(c2, _M1)
        high_a, low_a = _multiply(c0, _M0)
        c0, c1, c2, c3 = high_b ^ c1 ^ k0, low_b, high_a ^ c3 ^ k1, low_a
        k0, k1 = (k0 + _W0) & _WORD, (k1 + _W1) & _WORD
    return c0


def _multiply(a: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """High and low word of a 32 x 32 bit product, in halves: int64 has no room for 64 bits without a sign."""
    low = (a & 0xFFFF) * by
    high = (a >> 16) * by + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def uniform(seed: Tensor, step: Tensor) -> Tensor:
    """Float64 [B] in [0, 1), multiples of 2^-24."""
    return (philox(seed, step) >> (32 - UNIFORM_BITS)).double() * 2.0**-UNIFORM_BITS
