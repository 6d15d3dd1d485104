"""The memory of generation: weights in a precision, caches exactly as `bytegen.cache` allocates them, and a step."""

from __future__ import annotations

from dataclasses import dataclass

from bytegen.config import ModelConfig
from bytegen.planning.activations import widths
from bytegen.planning.optimizers import all_matrices

CHUNK = 64
"""Tokens that one step may feed: what `bytegen.decoding.Engine` takes."""
_GROWTH = 1024
"""Positions that a global layer's buffer starts with: `bytegen.cache.GROWTH`, which a test holds this to."""


def weight_bytes(config: ModelConfig, precision: str) -> int:
    """Return the bytes of the weights in "float32", "bfloat16" or "int8".

    With int8 the matrices of layers and heads are held in a byte a weight and a float32 scale for each row; embedding,
    norms and convolutions stay in bfloat16, and a tied head is the embedding.
    """
    if precision != "int8":
        return config.n_params() * {"float32": 4, "bfloat16": 2}[precision]
    shapes = _int8_matrices(config)
    quantised = sum(rows * columns for rows, columns in shapes)
    return quantised + 4 * sum(rows for rows, _ in shapes) + 2 * (config.n_params() - quantised)


def widened(config: ModelConfig) -> tuple[int, int]:
    """Return the weights that int8 holds, all and of the largest matrix: a GPU widens each for every step."""
    sizes = [rows * columns for rows, columns in _int8_matrices(config)]
    return sum(sizes), max(sizes)


def _int8_matrices(config: ModelConfig) -> list[tuple[int, int]]:
    return all_matrices(config) + ([] if config.tied else [(config.vocab_size, config.dim)])


def value_bytes(precision: str) -> int:
    """Return the bytes of a cached value or an activation."""
    return 4 if precision == "float32" else 2


def capacities(config: ModelConfig, max_length: int, chunk: int, position: int) -> list[int]:
    """Return the positions that each layer's cache holds room for once `position` tokens were fed.

    Local layers: a ring of window + chunk. Global ones double from 1,024 up to `max_length` + chunk.
    """
    length = max_length + chunk
    out = []
    for window in config.windows():
        if window is not None:
            out.append(min(window + chunk, max(length, chunk)))
            continue
        room = min(_GROWTH, length)
        while room < position:
            room = min(2 * room, length)
        out.append(room)
    return out


def cache_bytes(
    config: ModelConfig, max_length: int, *, batch: int = 1, chunk: int = CHUNK, size: int = 4,
    position: int | None = None,
) -> int:  # fmt: skip
    """Return what `bytegen.cache.Cache` takes for `batch` sequences, `size` bytes a value, once `position` were fed.

    By default all `max_length` positions.
    """
    _, kv = widths(config)
    rooms = capacities(config, max_length, chunk, max_length if position is None else position)
    values = 2 * kv * sum(rooms)
    if config.conv_taps > 1:
        values += config.n_layers * config.dim * (config.conv_taps - 1 + chunk)
    return batch * values * size


def growth_bytes(
    config: ModelConfig, max_length: int, *, batch: int = 1, chunk: int = CHUNK, size: int = 4
) -> int:
    """Return the most that a buffer's doubling takes beside the caches: it is copied with its zeros into a new one."""
    _, kv = widths(config)
    most = max(
        (
            c
            for c, w in zip(capacities(config, max_length, chunk, max_length), config.windows(), strict=True)
            if w is None
        ),
        default=0,
    )
    return 0 if most <= _GROWTH else batch * kv * most * size


def step_bytes(config: ModelConfig, *, batch: int = 1, chunk: int = CHUNK, size: int = 4) -> int:
    """Return the values of one step that feeds `chunk` tokens to each sequence, where it is widest.

    The stream and its norm, with queries, keys, values and the attention's output; with the stream before attention,
    gate, up, their product and what comes of it; or with a tap of the convolution. Beside them the rotary tables and
    positions. Or, later, the logits of one place a sequence, in float64 while a byte is drawn, or those of all
    multi-token prediction heads and their logarithms.
    """
    q, kv = widths(config)
    taps = config.conv_taps > 1
    attention = (3 + taps) * config.dim + 2 * q + 2 * kv
    values = max(attention, 4 * config.dim + 3 * config.ffn_dim, 5 * config.dim if taps else 0)
    reading = chunk * ((values + config.head_dim) * size + 3 * 8)
    ahead = config.mtp_heads * config.vocab_size * 3 * 4
    return batch * max(reading, 4 * config.vocab_size * 8, ahead)


@dataclass(frozen=True)
class GenerationMemory:
    """Bytes on one GPU while it writes files side by side, at the end of the longest."""

    weights: int
    cache: int
    growth: int
    step: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.growth + self.step

    def parts(self) -> dict[str, int]:
        """Return the parts by name."""
        return {
            "weights": self.weights,
            "cache": self.cache,
            "growth of a buffer": self.growth,
            "step": self.step,
        }


def generation_memory(
    config: ModelConfig, length: int, *, batch: int = 1, chunk: int = CHUNK, precision: str = "bfloat16",
    cached: int | None = None,
) -> GenerationMemory:  # fmt: skip
    """Return what writing `batch` files of up to `length` positions (prompt included) takes on one device.

    `cached`: the bytes of a value in the caches; by default those of the precision.
    """
    size = value_bytes(precision)
    cached = size if cached is None else cached
    return GenerationMemory(
        weights=weight_bytes(config, precision),
        cache=cache_bytes(config, length, batch=batch, chunk=chunk, size=cached),
        growth=growth_bytes(config, length, batch=batch, chunk=chunk, size=cached),
        step=step_bytes(config, batch=batch, chunk=chunk, size=size)
        + (2 * widened(config)[1] if precision == "int8" else 0),
    )
