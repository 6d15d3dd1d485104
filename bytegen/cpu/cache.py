"""What the C decoder keeps of the past: `bytegen.cache` without torch, each sequence in memory of its own.

Sequences join, leave and change places without a copy. Position p of a sequence lies in slot p mod capacity: a ring
per local layer, a buffer that doubles per global one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from bytegen.config import ModelConfig
from bytegen.cpu.binding import BLOCK, Ring, aligned
from bytegen.errors import UserError

GROWTH = 1024
"""Positions that a global layer's buffer starts with; it doubles when they are used up."""


KEYS = 64
"""Positions that lie together where keys and values are int8."""


class _Layer:
    """Keys and values [K, capacity, E] and convolution inputs [capacity, D] of one sequence in one layer.

    In int8 the capacity is a multiple of `KEYS`, and keys and values lie together, as `record_t` of `sets.h` has them:
    [K, capacity / KEYS, bytes of a record].
    """

    def __init__(self, config: ModelConfig, capacity: int, chunk: int, dtype: type) -> None:
        self._heads, self._size, self._dtype = config.n_kv_heads, config.head_dim, dtype
        self.capacity = capacity if dtype is not np.int8 else -(-capacity // KEYS) * KEYS
        self._kept = [aligned(shape, dtype) for shape in self._shapes(self.capacity)]
        taps = config.conv_taps
        self._conv = aligned((taps - 1 + chunk, config.dim), np.float32) if taps > 1 else None

    def _shapes(self, capacity: int) -> list[tuple[int, ...]]:
        if self._dtype is not np.int8:
            return [(self._heads, capacity, self._size)] * 2
        even = 16 if self._size < BLOCK else BLOCK
        wide = -(-self._size // even) * even
        return [(self._heads, capacity // KEYS, KEYS * (3 * 4 + 2 * wide))]

    def nbytes(self) -> int:
        """The bytes that they take."""
        return sum(a.nbytes for a in (*self._kept, self._conv) if a is not None)

    def grow(self, capacity: int) -> None:
        """Extend a buffer that never wraps."""
        self.capacity = capacity if self._dtype is not np.int8 else -(-capacity // KEYS) * KEYS
        for i, (old, shape) in enumerate(zip(self._kept, self._shapes(self.capacity), strict=True)):
            new = aligned(shape, self._dtype)
            new[:, : old.shape[1]] = old
            self._kept[i] = new

    def ring(self) -> Ring:
        """`ring_t`."""
        conv, size = (None, 0) if self._conv is None else (self._conv.ctypes.data, len(self._conv))
        keys, values = self._kept[0].ctypes.data, self._kept[-1].ctypes.data
        return Ring(keys, values, conv, self.capacity, size)


class CpuCache:
    """The caches of all layers for some sequences, each at a position of its own (`positions`).

    `chunk` is the longest run of new tokens that one step may bring, `max_length` the positions a sequence may
    reach; keys and values are held in `dtype`, int8, float16 or float32. Raises UserError when they exceed the model's
    context.
    """

    def __init__(self, config: ModelConfig, *, batch: int = 0, max_length: int, chunk: int = 256,
                 dtype: type = np.float16) -> None:  # fmt: skip
        if max_length > config.max_positions:
            raise UserError(
                f"{max_length} positions asked for; the model's context is {config.max_positions}"
            )
        self.config, self.chunk, self.max_length, self.dtype = config, chunk, max_length, dtype
        self.positions: list[int] = []
        self._rows: list[list[_Layer]] = []
        self._rings: ctypes.Array[Ring] | None = None
        self.scratch = np.zeros(0, np.float32)
        """The decoder's, for steps over this cache."""
        self.extend(batch)

    def extend(self, count: int) -> None:
        """Let `count` sequences join, at position 0."""
        length = self.max_length + self.chunk
        for _ in range(count):
            self._rows.append([
                _Layer(
                    self.config, min(GROWTH, length) if window is None else min(window + self.chunk, length),
                    self.chunk, self.dtype,
                )
                for window in self.config.windows()
            ])  # fmt: skip
            self.positions.append(0)
        self._rings = None

    def select(self, rows: Sequence[int]) -> None:
        """Keep the sequences `rows`, in that order; the others leave the batch."""
        self._rows = [self._rows[i] for i in rows]
        self.positions = [self.positions[i] for i in rows]
        self._rings = None

    def restart(self, row: int) -> None:
        """Put a sequence at position 0: its row is another's from now on."""
        self.positions[row] = 0

    def advance(self, counts: Sequence[int]) -> None:
        """Move each sequence on by its own count."""
        self.positions = [position + count for position, count in zip(self.positions, counts, strict=True)]

    def seek(self, position: int) -> None:
        """Put every sequence at `position`."""
        self.positions = [position] * len(self.positions)

    def reserve(self, counts: Sequence[int]) -> None:
        """Make room for so many more positions of each sequence; UserError when they do not fit."""
        if max(counts) > self.chunk:
            raise UserError(f"a step of {max(counts)} tokens; this cache takes {self.chunk} at a time")
        limit = self.max_length + self.chunk
        ends = [position + count for position, count in zip(self.positions, counts, strict=True)]
        if max(ends) > limit:
            raise UserError(
                f"position {max(ends)} is past the {self.max_length} that this cache was made for"
            )
        if max(ends) <= GROWTH:
            return
        windows = self.config.windows()
        for row, end in zip(self._rows, ends, strict=True):
            for layer, window in zip(row, windows, strict=True):
                capacity = layer.capacity
                if window is None and capacity < end:
                    while capacity < end:
                        capacity = min(2 * capacity, limit)
                    layer.grow(capacity)
                    self._rings = None

    def rings(self) -> ctypes.Array[Ring]:
        """`ring_t` [sequences][layers], as long as no sequence joins, leaves or grows."""
        if self._rings is None:
            found = [layer.ring() for row in self._rows for layer in row]
            self._rings = (Ring * len(found))(*found)
        return self._rings

    def nbytes(self) -> int:
        """The bytes that keys, values and convolution inputs take now."""
        return sum(layer.nbytes() for row in self._rows for layer in row)
