"""Causal attention, local (sliding window) or global, over packed documents and over caches."""

from bytegen.kernels.attention.decode import decode_attention
from bytegen.kernels.attention.interface import local_attention

__all__ = ["decode_attention", "local_attention"]
