"""The small operations around attention: normalisation, gating, rotation, loss."""

from bytegen.kernels.elementwise.cross_entropy import cross_entropy
from bytegen.kernels.elementwise.rms_norm import rms_norm
from bytegen.kernels.elementwise.rope import rope
from bytegen.kernels.elementwise.swiglu import swiglu

__all__ = ["cross_entropy", "rms_norm", "rope", "swiglu"]
