"""Sampling one byte a sequence under a mask."""

from bytegen.kernels.sampling.masked import Sampled, masked_sample

__all__ = ["Sampled", "masked_sample"]
