"""Attention, caches, sampling and the small operations for very long byte sequences.

On a GPU they are Triton kernels, on a CPU plain torch; `backend.use` overrides that for experiments.
"""

from bytegen.kernels import backend
from bytegen.kernels.attention import decode_attention, local_attention
from bytegen.kernels.elementwise import cross_entropy, rms_norm, rope, swiglu
from bytegen.kernels.sampling import masked_sample

__all__ = [
    "backend",
    "cross_entropy",
    "decode_attention",
    "local_attention",
    "masked_sample",
    "rms_norm",
    "rope",
    "swiglu",
]
