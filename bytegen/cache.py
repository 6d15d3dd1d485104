"""What decoding keeps of the past: a ring per local layer, a growing buffer per global one.

Position p of a sequence lies in slot p mod capacity. A step writes its whole chunk, padding
included, and only then moves each sequence on by the tokens that counted: what padding wrote lies
ahead of every real query, or further back than the window, and is never seen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bytegen.config import ModelConfig
from bytegen.errors import UserError

GROWTH = 1024
"""Positions that a global layer's buffer starts with; it doubles when they are used up."""


class Ring:
    """Rows of [B, capacity, ...], position p in slot p mod capacity."""

    def __init__(
        self, batch: int, capacity: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ):
        self.data = torch.zeros(batch, capacity, *shape, dtype=dtype, device=device)

    @property
    def capacity(self) -> int:
        """Positions held."""
        return self.data.shape[1]

    def write(self, rows: Tensor, positions: Tensor) -> None:
        """Put `rows` [B, T, ...] at `positions` [B, T]."""
        batch = torch.arange(rows.shape[0], device=rows.device).unsqueeze(1)
        self.data[batch, positions % self.capacity] = rows

    def read(self, positions: Tensor) -> Tensor:
        """Return the rows at `positions` [B, T]; negative positions, before the file, are zeros."""
        batch = torch.arange(positions.shape[0], device=positions.device).unsqueeze(1)
        rows = self.data[batch, positions % self.capacity]
        return rows.masked_fill((positions < 0).view(*positions.shape, *[1] * (rows.dim() - 2)), 0.0)

    def grow(self, capacity: int) -> None:
        """Extend a buffer that never wraps."""
        extra = capacity - self.capacity
        self.data = torch.cat(
            [self.data, self.data.new_zeros(self.data.shape[0], extra, *self.data.shape[2:])], dim=1
        )

    def select(self, rows: Tensor) -> None:
        """Keep the sequences `rows`, in that order."""
        self.data = self.data[rows]

    def extend(self, count: int) -> None:
        """Add `count` sequences, of which nothing is held yet."""
        self.data = torch.cat([self.data, self.data.new_zeros(count, *self.data.shape[1:])])


class LayerCache:
    """Keys, values and convolution inputs of one layer."""

    def __init__(self, config: ModelConfig, window: int | None, batch: int, chunk: int, length: int,
                 dtype: torch.dtype, device: torch.device) -> None:  # fmt: skip
        capacity = min(GROWTH, length) if window is None else min(window + chunk, max(length, chunk))
        heads = (config.n_kv_heads, config.head_dim)
        self.window = window
        self.keys = Ring(batch, capacity, heads, dtype, device)
        self.values = Ring(batch, capacity, heads, dtype, device)
        taps = config.conv_taps
        self.conv = Ring(batch, taps - 1 + chunk, (config.dim,), dtype, device) if taps > 1 else None

    def rings(self) -> list[Ring]:
        """Return every ring there is."""
        return [self.keys, self.values] + ([self.conv] if self.conv else [])


class Cache:
    """The caches of all layers for B sequences, each at a position of its own.

    `chunk` is the longest run of new tokens that one step may bring, `max_length` the positions a
    sequence may reach. Raises UserError when they exceed the model's context.
    """

    def __init__(self, config: ModelConfig, *, batch: int, max_length: int, chunk: int = 256,
                 dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> None:  # fmt: skip
        if max_length > config.max_positions:
            raise UserError(
                f"{max_length} positions asked for; the model's context is {config.max_positions}"
            )
        device = torch.device(device)
        self.chunk = chunk
        self.max_length = max_length
        # A step may write `chunk` positions past the last that counts (padding), so buffers reach that far.
        length = max_length + chunk
        self.layers = [LayerCache(config, w, batch, chunk, length, dtype, device) for w in config.windows()]
        self.positions = torch.zeros(batch, dtype=torch.int64, device=device)
        # No sequence is further than this. Counted on the host, so that a step need not ask the device.
        self._furthest = 0

    def advance(self, count: int, counts: Tensor | None = None) -> None:
        """Move every sequence on by `count` positions, or each by its own of `counts` [B], none above `count`."""
        self.positions = self.positions + (count if counts is None else counts)
        self._furthest += count

    def seek(self, position: int) -> None:
        """Put every sequence at `position`. In place, `positions` may only be lowered."""
        self.positions = torch.full_like(self.positions, position)
        self._furthest = position

    def reserve(self, n_new: int) -> None:
        """Make room for `n_new` more positions a sequence; UserError when they do not fit.

        The device is asked for its positions, which waits for it, only where the count of the host, an upper bound
        when sequences advance by different counts, leaves no room: when buffers double, and near their end.
        """
        if n_new > self.chunk:
            raise UserError(f"a step of {n_new} tokens; this cache takes {self.chunk} at a time")
        growing = [layer for layer in self.layers if layer.window is None]
        limit = self.max_length + self.chunk
        if self._furthest + n_new > min([limit, *(layer.keys.capacity for layer in growing)]):
            self._furthest = int(self.positions.max())
        end = self._furthest + n_new
        if end > limit:
            raise UserError(f"position {end} is past the {self.max_length} that this cache was made for")
        for layer in growing:
            while layer.keys.capacity < end:
                capacity = min(2 * layer.keys.capacity, limit)
                layer.keys.grow(capacity)
                layer.values.grow(capacity)

    def select(self, rows: Tensor) -> None:
        """Keep the sequences `rows` (int64 indices), in that order; the others leave the batch."""
        for layer in self.layers:
            for ring in layer.rings():
                ring.select(rows)
        self.positions = self.positions[rows]

    def extend(self, count: int) -> None:
        """Let `count` sequences join, at position 0."""
        for layer in self.layers:
            for ring in layer.rings():
                ring.extend(count)
        self.positions = torch.cat([self.positions, self.positions.new_zeros(count)])

    def restart(self, row: int) -> None:
        """Put a sequence at position 0: its row is another's from now on."""
        self.positions[row] = 0

    def nbytes(self) -> int:
        """Return the bytes that keys, values and convolution inputs take now."""
        rings = [ring for layer in self.layers for ring in layer.rings()]
        return sum(ring.data.numel() * ring.data.element_size() for ring in rings)
