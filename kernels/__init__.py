"""Attention, caches and sampling for very long byte sequences."""

from bytegen.kernels.attention import decode_attention, local_attention
from bytegen.kernels.sampling import masked_sample

__all__ = ["decode_attention", "local_attention", "masked_sample"]
