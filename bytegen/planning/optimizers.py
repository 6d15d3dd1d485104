"""What an update needs: the state of each optimiser, and what one step allocates for a moment.

`muon` is what the trainer uses (`train.optim`): one momentum for every matrix of the layers and of multi-token
prediction heads, two moments of AdamW for all else. `adamw` has two moments for everything. Both are torch's foreach
implementations, as on a GPU.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal, get_args

from bytegen.config import ModelConfig

Optimizer = Literal["muon", "adamw"]
OPTIMIZERS: tuple[str, ...] = get_args(Optimizer)

STACKED = 1 << 27
"""Parameters that Muon orthogonalises at once, or one matrix, if that has more. A stack of one shape's matrices is one
product where there would be many small ones; stacks beyond this gain nothing, and take 16 bytes a parameter."""

_WIDE = 4  # master weights and moments are float32


def matrices(config: ModelConfig) -> list[tuple[int, int]]:
    """Return the shapes of a layer's matrices, in the order of its parameters."""
    q, kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    d, f = config.dim, config.ffn_dim
    return [(q, d), (kv, d), (kv, d), (d, q), (f, d), (f, d), (d, f)]


def all_matrices(config: ModelConfig) -> list[tuple[int, int]]:
    """Return the shapes of all layers' matrices, and of those of multi-token prediction heads."""
    return matrices(config) * config.n_layers + [(config.dim, config.dim)] * config.mtp_heads


def matrix_params(config: ModelConfig) -> int:
    """Return the parameters of all these matrices."""
    return sum(rows * columns for rows, columns in all_matrices(config))


def state_bytes(config: ModelConfig, optimizer: Optimizer) -> int:
    """Return the bytes of the moments of all parameters."""
    momentum = matrix_params(config) if optimizer == "muon" else 0
    return _WIDE * (2 * config.n_params() - momentum)


def step_bytes(config: ModelConfig, optimizer: Optimizer, *, gpus: int = 1, on_gpu: bool = True) -> int:
    """Return the most that one update allocates on each GPU beside weights, gradients and moments.

    AdamW takes a root of every second moment at once. Muon stacks momenta of one shape, `STACKED` parameters at once:
    there are the stack, four copies of it (in bfloat16 on a GPU) and Gram matrices while an iteration multiplies.
    """
    n_matrices = matrix_params(config) if optimizer == "muon" else 0
    adam = -(-_WIDE * (config.n_params() - n_matrices) // gpus)
    if optimizer == "adamw":
        return adam
    short = 2 if on_gpu else 4  # orthogonalisation runs in bfloat16 there
    counts = Counter(all_matrices(config))
    most = 0
    for (rows, columns), count in counts.items():
        own = -(-count * rows * columns // gpus)
        values = min(own, max(1, STACKED // (rows * columns)) * rows * columns)
        gram = -(-values * min(rows, columns) // max(rows, columns))
        iterating = max(4 * values + gram, 3 * values + 2 * gram, 2 * values + 4 * gram) * short
        giving_back = (_WIDE + short) * values
        most = max(most, _WIDE * values + max(iterating, giving_back))
    return max(adam, most)


def step_flops(config: ModelConfig, optimizer: Optimizer) -> float:
    """Return the FLOPs of one update that multiply matrices: Muon's five iterations, three products each."""
    if optimizer == "adamw":
        return 0.0
    total = 0.0
    for rows, columns in all_matrices(config):
        small, large = min(rows, columns), max(rows, columns)
        total += 5 * (4.0 * small * small * large + 2.0 * small**3)
    return total
