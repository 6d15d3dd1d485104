"""Tile shapes of the attention kernels: one small table, with the reason for each row.

The first row that fits is taken. `bytegen bench kernels --tune` searches and prints rows for the card at hand;
tests/kernels/test_compiled.py holds every row to its registers and shared memory.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from bytegen.kernels.architectures import Architecture

Kernel = Literal["forward", "dq", "dkdv"]


class Tile(NamedTuple):
    """How one kernel is cut: queries and keys a tile, warps a block, tiles in flight, loads by descriptor.

    `split` gives dK and dV a launch each: scores are computed twice, and one accumulator fits the registers.
    """

    block_q: int
    block_k: int
    warps: int
    stages: int
    descriptors: bool = False
    split: bool = False


class Row(NamedTuple):
    """A tile for an architecture, a kernel, heads up to `head_dim`, elements of `bits`."""

    architecture: str
    kernel: Kernel
    head_dim: int
    bits: int
    tile: Tile
    reason: str


_TINY, _SMALL, _MIDDLE, _LARGE = 32, 64, 128, 256


def _rows(
    architecture: str, bits: int, reason: str, tiles: dict[tuple[Kernel, int], Tile]
) -> tuple[Row, ...]:
    return tuple(Row(architecture, kernel, dim, bits, tile, reason) for (kernel, dim), tile in tiles.items())


_Tiles = dict[tuple[Kernel, int], Tile]

_HOPPER: _Tiles = {
    ("forward", _SMALL): Tile(128, 128, 8, 3, True),
    ("forward", _MIDDLE): Tile(128, 128, 8, 2, True),
    ("forward", _LARGE): Tile(128, 32, 8, 2, True),
    ("dq", _SMALL): Tile(128, 64, 8, 2, True),
    ("dq", _MIDDLE): Tile(128, 64, 8, 2, True),
    ("dq", _LARGE): Tile(128, 32, 8, 1, True),
    ("dkdv", _SMALL): Tile(64, 128, 8, 2, True),
    ("dkdv", _MIDDLE): Tile(64, 64, 8, 2, True),
    ("dkdv", _LARGE): Tile(32, 128, 8, 1, True, True),
}  # fmt: skip

# Where a tensor cannot have a descriptor: heads of no power of two, unaligned rows, tiles across two batches.
_HOPPER_BY_POINTERS: _Tiles = {at: tile._replace(descriptors=False) for at, tile in _HOPPER.items()} | {
    ("forward", _MIDDLE): Tile(128, 64, 8, 3),
    ("dkdv", _MIDDLE): Tile(32, 64, 8, 2),
    ("dkdv", _LARGE): Tile(16, 128, 8, 2, False, True),
}

_SINGLE: _Tiles = {
    ("forward", _SMALL): Tile(64, 32, 8, 1),
    ("forward", _MIDDLE): Tile(32, 32, 8, 1),
    ("forward", _LARGE): Tile(32, 16, 8, 1),
    ("dq", _SMALL): Tile(32, 32, 8, 1),
    ("dq", _MIDDLE): Tile(32, 16, 8, 1),
    ("dq", _LARGE): Tile(16, 16, 8, 1),
    ("dkdv", _SMALL): Tile(32, 32, 8, 1),
    ("dkdv", _MIDDLE): Tile(16, 32, 8, 1),
    ("dkdv", _LARGE): Tile(16, 16, 8, 1),
}

ROWS: tuple[Row, ...] = (
    *_rows("sm_90", 16, "descriptors free the registers of addresses; 8 warps are two warp groups of wgmma", _HOPPER),
    *_rows("sm_100", 16, "as sm_90, with accumulators in tensor memory", _HOPPER),
    *(
        row
        for name in ("sm_90", "sm_100")
        for row in _rows(name, 16, "addresses take registers: narrower, where as wide a tile would spill 5 to 24",
                         _HOPPER_BY_POINTERS)
    ),
    *_rows("sm_80", 16, "32 queries a warp are at the limit: a softcap and sinks spill 1; 64 leave room for 3 blocks", {
        ("forward", _SMALL): Tile(64, 64, 4, 3),
    }),
    *_rows("sm_80", 16, "64 keys beside two operands are at the limit: a softcap spills 10", {
        ("dq", _SMALL): Tile(64, 32, 4, 2),
    }),
    *_rows("sm_80", 16, "mma keeps both operands in registers: narrower tiles of keys", {
        ("forward", _MIDDLE): Tile(128, 64, 8, 3),
        ("forward", _LARGE): Tile(64, 32, 8, 2),
        ("dq", _MIDDLE): Tile(64, 64, 8, 2),
        ("dq", _LARGE): Tile(64, 32, 8, 2),
        ("dkdv", _SMALL): Tile(64, 64, 4, 2),
        ("dkdv", _MIDDLE): Tile(32, 64, 8, 2),
        ("dkdv", _LARGE): Tile(32, 32, 8, 1),
    }),
    *_rows("sm_86", 16, "as sm_80: 128 queries spill 8", {
        ("forward", _SMALL): Tile(64, 64, 4, 2),
    }),
    *_rows("sm_86", 16, "so small a head that the compiler wants 3 blocks of 64 queries: 1 spill", {
        ("dkdv", _TINY): Tile(32, 64, 4, 2),
    }),
    *_rows("sm_86", 16, "99 KB of shared memory", {
        ("forward", _MIDDLE): Tile(128, 32, 8, 2),
        ("forward", _LARGE): Tile(64, 32, 8, 1),
        ("dq", _SMALL): Tile(64, 64, 4, 2),
        ("dq", _MIDDLE): Tile(64, 32, 8, 2),
        ("dq", _LARGE): Tile(32, 32, 8, 1),
        ("dkdv", _SMALL): Tile(64, 64, 4, 2),
        ("dkdv", _MIDDLE): Tile(32, 64, 8, 2),
        ("dkdv", _LARGE): Tile(16, 32, 8, 1),
    }),
    *_rows("gfx942", 16, "8 warps may take 256 registers each: 32 queries spill 4 to 8", {
        ("dkdv", _MIDDLE): Tile(16, 64, 8, 1),
    }),
    *_rows("gfx942", 16, "likewise: 32 keys spill 106 to 157", {
        ("dq", _LARGE): Tile(64, 16, 8, 1),
    }),
    *_rows("gfx942", 16, "64 KB of LDS, 64 threads a warp", {
        ("forward", _SMALL): Tile(128, 64, 4, 1),
        ("forward", _MIDDLE): Tile(128, 32, 4, 1),
        ("forward", _LARGE): Tile(64, 32, 8, 1),
        ("dq", _SMALL): Tile(64, 64, 4, 1),
        ("dq", _MIDDLE): Tile(64, 32, 4, 1),
        ("dkdv", _SMALL): Tile(32, 64, 4, 1),
        ("dkdv", _LARGE): Tile(16, 32, 8, 1),
    }),
    *_rows("gfx942", 32, "4 warps may take 512 registers each: with 8, and so 256, heads of 256 spill 109 and 177", {
        ("dq", _LARGE): Tile(16, 16, 4, 1),
        ("dkdv", _LARGE): Tile(16, 32, 4, 1),
    }),
    *(
        row
        for name in ("sm_90", "sm_100", "sm_80", "sm_86", "gfx942")
        for row in _rows(name, 32, "float32 goes through plain multiply-adds: small tiles, two bytes become four",
                         _SINGLE)
    ),
)  # fmt: skip


def tile_for(
    architecture: Architecture, kernel: Kernel, head_dim: int, bits: int, descriptors: bool = True
) -> Tile:
    """The tile of the table for a launch, with or without descriptors; float64 and heads beyond 256 never come here."""
    wanted = architecture.name, kernel, bits
    for row in ROWS:
        fits = head_dim <= row.head_dim and (descriptors or not row.tile.descriptors)
        if fits and (row.architecture, row.kernel, row.bits) == wanted:
            return row.tile
    raise ValueError(f"no {kernel} kernel for heads of {head_dim}, {bits} bits, on {architecture.name}")
