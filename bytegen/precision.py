"""Precision of generation: weights as they are, in bfloat16, or in int8 with a scale a row; on arrays, without torch.

On the CPU sums stay in float32 whatever the weights are held in, and the C decoder reads them in their own size: two
bytes a weight, or one. On a GPU bfloat16 and int8 compute in bfloat16 (`bytegen.quantised`). int8 is weight-only,
symmetric and rounded to nearest, a scale for each output (as torchao's `Int8WeightOnlyConfig` has it), of every linear
map; the table of embeddings, and with it the head of a tied model, stays as it is.

int8-dynamic ("W8A8"; torchao's `Int8DynamicActivationInt8WeightConfig`) rounds what those maps read to int8 too, with a
scale a token: products of whole numbers, which processors multiply four at a time. The C decoder does the same with
queries, keys and values there, a scale a head and token.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bytegen.errors import UserError

DYNAMIC = "int8-dynamic"

PRECISIONS = ("fp32", "bf16", "int8", DYNAMIC)


def check_precision(precision: str) -> None:
    """Raise UserError for a precision that there is not."""
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r}; there are: {', '.join(PRECISIONS)}")


def as_bfloat16(array: np.ndarray) -> np.ndarray:
    """The nearest numbers of bfloat16, ties to even, as float32; for numbers that are finite."""
    bits = np.array(array, np.float32, order="C").view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def as_int8(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 [O, I] and float32 scales [O] of a matrix [O, I]: a row's largest number is 127 of its scale or -127."""
    exact = weight.astype(np.float32)
    # A row of zeros has any scale.
    scale = np.maximum(np.abs(exact).max(1) / np.float32(127), np.finfo(np.float32).tiny)
    return np.rint(exact / scale[:, None]).astype(np.int8), scale


def reduce_arrays(arrays: Mapping[str, np.ndarray], precision: str) -> Mapping[str, np.ndarray]:
    """A model's arrays, named as in its state, in a precision: what `quantised.reduce_precision` makes of them."""
    if precision == "fp32":
        return arrays
    if precision == "bf16":
        return {name: as_bfloat16(a) if a.ndim == 2 else a for name, a in arrays.items()}
    reduced = {}
    for name, a in arrays.items():
        if a.ndim == 2 and name != "embed.weight" and not name.endswith("conv.weight"):
            reduced[name], reduced[name.removesuffix("weight") + "scale"] = as_int8(a)
        else:
            reduced[name] = a
    return reduced
