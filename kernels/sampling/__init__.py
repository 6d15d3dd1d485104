"""Sampling under a mask."""

from bytegen.kernels.sampling.masked import InstructionTable, Sampled, masked_sample

__all__ = ["InstructionTable", "Sampled", "masked_sample"]
