"""Models of torch in less precision: see `bytegen.precision`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bytegen.precision import DYNAMIC, as_int8, check_precision

if TYPE_CHECKING:
    from bytegen.model import ByteLM


LEAST = 1e-30
"""The largest number of a token counts as this much at least."""


class Int8Linear(nn.Module):
    """A linear map of int8 weights [O, I], row o times scale[o] (float32), and an optional bias [O].

    `dynamic` rounds what it reads to int8 too, the largest number of a token to 127 of its scale or -127.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, *, dynamic: bool = False) -> None:
        super().__init__()
        self.dynamic = dynamic
        weight, scale = as_int8(linear.weight.detach().float().cpu().numpy())
        self.register_buffer("weight", torch.from_numpy(weight))
        self.register_buffer("scale", torch.from_numpy(scale))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O], in the dtype of `x`; scale and bias stay in their own until the end."""
        if self.dynamic:
            exact = x.double()
            largest = exact.abs().amax(-1, keepdim=True).clamp_min(LEAST).float()
            # Not 127 / largest, which torch takes for 127 times the reciprocal: another number now and then.
            inverse = torch.full_like(largest, 127) / largest
            rounded = (exact * inverse.double()).round().to(x.dtype)
            # Whole numbers up to 127 are exact in every dtype, their sums in float64; in float32 up to 2^24.
            y = F.linear(rounded, self.weight.to(x.dtype)) * (self.scale * (largest / 127))
        else:
            y = F.linear(x, self.weight.to(x.dtype)) * self.scale
        return (y if self.bias is None else y + self.bias).to(x.dtype)


def is_quantised(lm: ByteLM) -> bool:
    """Whether any of its weights are int8."""
    return any(isinstance(module, Int8Linear) for module in lm.modules())


def is_dynamic(lm: ByteLM) -> bool:
    """Whether what its maps read is rounded to int8 too."""
    return any(isinstance(module, Int8Linear) and module.dynamic for module in lm.modules())


@torch.no_grad()
def reduce_precision(lm: ByteLM, precision: str, *, device: str | torch.device = "cpu") -> None:
    """Change a float32 model on the CPU, in place, to generate with less on `device`; "fp32" leaves it.

    Raises UserError for an unknown precision.
    """
    check_precision(precision)
    if precision == "fp32":
        return
    quantised = {}
    if precision in ("int8", DYNAMIC):
        dynamic = precision == DYNAMIC
        maps = [(name, m) for name, m in lm.named_modules() if isinstance(m, nn.Linear)]
        quantised = {name: Int8Linear(m, dynamic=dynamic) for name, m in maps}
    for name in quantised:
        parent, _, child = name.rpartition(".")
        setattr(lm.get_submodule(parent), child, None)  # the old weights go before anything is copied
    if torch.device(device).type != "cpu":
        lm.to(torch.bfloat16)
        lm.refresh_buffers()
    elif precision == "bf16":
        for p in lm.parameters():
            if p.dim() == 2:
                p.copy_(p.bfloat16())
    for name, module in quantised.items():
        parent, _, child = name.rpartition(".")
        setattr(lm.get_submodule(parent), child, module)
