"""How many bytes a value takes: parameters, the residual stream, and what matrices multiply."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """Bytes a value. `casts`: the stream is wider than what matrices multiply, so every product's input is a copy."""

    name: str
    parameter: int
    stream: int
    compute: int

    @property
    def casts(self) -> bool:
        """Whether inputs and weights of products are copies in another dtype (torch.autocast)."""
        return self.stream != self.compute


FLOAT32 = Precision("float32", 4, 4, 4)
AUTOCAST = Precision("bfloat16 by autocast", 4, 4, 2)
"""`run.precision = "bfloat16"` of the trainer: float32 weights and stream, products in bfloat16."""
SHARDED_BFLOAT16 = Precision("bfloat16 by FSDP2's policy", 4, 2, 2)
"""`MixedPrecisionPolicy(param_dtype=bfloat16, reduce_dtype=float32)`: float32 shards, all of a layer in bfloat16."""

TRAINING = ("float32", "bfloat16")
GENERATION = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Bytes a weight of the matrices; with int8 everything else is in bfloat16."""


def training_precision(name: str, gpus: int) -> Precision:
    """Return what training in `name` (of `TRAINING`) means on so many GPUs: autocast on one, FSDP2's policy on more."""
    if name == "float32":
        return FLOAT32
    return AUTOCAST if gpus == 1 else SHARDED_BFLOAT16
