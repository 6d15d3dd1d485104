"""Precision of generation: weights as they are, in bfloat16, or in int8 with a scale a row.

On the CPU sums stay in float32 whatever the weights are held in, and the C decoder reads them in their own size: two
bytes a weight, or one. On a GPU bfloat16 and int8 compute in bfloat16. int8 is weight-only, symmetric and rounded to
nearest, a scale for each output (as torchao's `Int8WeightOnlyConfig` has it), of every linear map; the table of
embeddings, and with it the head of a tied model, stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bytegen.errors import UserError

if TYPE_CHECKING:
    from bytegen.model import ByteLM

PRECISIONS = ("fp32", "bf16", "int8")


class Int8Linear(nn.Module):
    """A linear map of int8 weights [O, I], row o times scale[o] (float32), and an optional bias [O]."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        exact = linear.weight.detach().float()
        # A row of zeros has any scale.
        scale = (exact.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        self.register_buffer("weight", (exact / scale.unsqueeze(1)).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O], in the dtype of `x`; scale and bias stay in their own until the end."""
        y = F.linear(x, self.weight.to(x.dtype)) * self.scale
        return (y if self.bias is None else y + self.bias).to(x.dtype)


def check_precision(precision: str, dtype: torch.dtype) -> None:
    """Raise UserError for a precision that there is not, or one that a dtype stands in the way of."""
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    if precision != "fp32" and dtype != torch.float32:
        raise UserError(f"precision {precision!r} makes its own choice of dtypes; leave dtype={dtype} out")


def is_quantised(lm: ByteLM) -> bool:
    """Whether any of its weights are int8."""
    return any(isinstance(module, Int8Linear) for module in lm.modules())


@torch.no_grad()
def reduce_precision(lm: ByteLM, precision: str, *, device: str | torch.device = "cpu") -> None:
    """Change a float32 model on the CPU, in place, to generate with less on `device`; "fp32" leaves it.

    Raises UserError for an unknown precision.
    """
    check_precision(precision, torch.float32)
    if precision == "fp32":
        return
    quantised = {}
    if precision == "int8":
        quantised = {name: Int8Linear(m) for name, m in lm.named_modules() if isinstance(m, nn.Linear)}
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
