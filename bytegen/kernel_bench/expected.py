"""Expected times of compiled kernels on a card that is not there: more than a bound, less than a measurement.

From the compile table (`benchmarks/compiled.jsonl`): tiles, registers, shared memory. Attention is counted by the tiles
that a kernel visits, masked corners and scores computed twice included. Where one block fills a processor, products,
exponentials and the other arithmetic of a tile follow one another; where two or more share it, the slowest hides the
rest. Decoding moves what its loads in flight allow (Little's law). What is assumed stands in the constants below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from bytegen.cards import CARDS
from bytegen.kernel_bench.estimate import CHOICES, Sizes, Work
from bytegen.kernel_bench.occupancy import PROCESSORS, Processor, blocks_at_once

Row = dict[str, Any]

BANDWIDTH = 0.9
"""Share of the data sheet's bandwidth that copies reach."""

LATENCY = 0.7e-6
"""Seconds from a load to its bytes, memory under load."""

LAUNCH = 2.5e-6
"""Seconds that a kernel of a CUDA graph takes beyond its work: start, first loads, end."""

STEP = 80e-9
"""Seconds of one of sampling's steps that wait for each other: a load, an exponential, a sum over a warp or block."""

IN_TURN = 640 / 989
"""Share of the peak of products that two warpgroups in turn keep up: FlashAttention-3's on an H100 (Shah et al.)."""

# Per score: products of D multiply-adds, float32 operations beside the exponential.
_SCORES = {"forward_kernel": (2, 4.5), "dq_kernel": (3, 3.5), "dkdv_kernel": (4, 4.0)}


class Expected(NamedTuple):
    """Seconds, and what a reader wants to know of how they come about."""

    seconds: float
    why: str


def row_of(rows: Sequence[Row], kernel: str, architecture: str, head_dim: int, variant: str) -> list[Row]:
    """The rows of the compile table for a kernel in bfloat16; two where dK and dV have a launch each."""
    wanted = {"kernel": kernel, "architecture": architecture, "head_dim": head_dim, "variant": variant}
    wanted["dtype"] = "bfloat16"
    found = [row for row in rows if wanted.items() <= row.items() and "error" not in row]
    if not found:
        raise LookupError(f"no row for {kernel}, heads of {head_dim}, {variant}, on {architecture}")
    return found


def visited_pairs(length: int, window: int | None, block_q: int, block_k: int) -> int:
    """Pairs of query and key in the tiles that causal attention visits, masked ones included; per head."""
    pairs = 0
    for row0 in range(0, length, block_q):
        low = 0 if window is None else max(row0 - window + 1, 0) // block_k * block_k
        high = math.ceil(min(row0 + block_q, length) / block_k) * block_k
        pairs += block_q * (high - low)
    return pairs


def scores_seconds(row: Row, processor: Processor, head_dim: int, pairs: float) -> float:
    """Seconds that all processors take for that many scores of one compiled attention kernel."""
    products, lanes = _SCORES[row["kernel"]]
    if row["config"].get("WANT_DV") is False:
        products = 3  # scores, dP, dK
    elif row["config"].get("WANT_DK") is False:
        products = 2  # scores, dV
    parts = (
        products * 2 * head_dim / processor.products / processor.sustained,
        1 / processor.exponentials,
        lanes / processor.lanes,
    )
    cycles = sum(parts) if blocks_at_once(row, processor) < 2 else max(parts)
    return pairs * cycles / (processor.count * processor.clock)


def attention(
    rows: Sequence[Row], card: str, sizes: Sizes, length: int, window: int | None, backward: bool, work: Work
) -> Expected:
    """Forward, or all kernels of the backward, in bfloat16."""
    processor, variant = PROCESSORS[card], "global" if window is None else "window, documents"
    seconds, held = 0.0, []
    for kernel in ("dq_kernel", "dkdv_kernel") if backward else ("forward_kernel",):
        for row in row_of(rows, kernel, processor.architecture, sizes.dim, variant):
            pairs = (
                visited_pairs(length, window, row["config"]["BLOCK_Q"], row["config"]["BLOCK_K"])
                * sizes.heads
            )
            seconds += scores_seconds(row, processor, sizes.dim, pairs) + LAUNCH
            held.append(f"{row['registers']} registers, {blocks_at_once(row, processor)} at once")
    if backward:  # delta: o and dO read
        seconds += LAUNCH + 4.0 * sizes.heads * length * sizes.dim / (BANDWIDTH * CARDS[card].bandwidth)
    return Expected(max(seconds, moving(work, card)), "; ".join(held))


def attention_in_turn(
    rows: Sequence[Row], card: str, sizes: Sizes, length: int, window: int | None, work: Work
) -> Expected:
    """Forward in Gluon, if it does as well as the kernel whose schedule it has: all is hidden but the products."""
    processor, variant = PROCESSORS[card], "global" if window is None else "window"
    (row,) = row_of(rows, "hopper_forward_kernel", processor.architecture, sizes.dim, variant)
    pairs = visited_pairs(length, window, 2 * row["config"]["ROWS"], row["config"]["BLOCK_K"]) * sizes.heads
    seconds = 4 * sizes.dim * pairs / (IN_TURN * CARDS[card].flops) + LAUNCH
    return Expected(
        max(seconds, moving(work, card)), "as much of the peak as FlashAttention-3; tiles visited"
    )


def moving(work: Work, card: str) -> float:
    """Seconds for bytes alone, all processors at it."""
    return work.moved / (BANDWIDTH * CARDS[card].bandwidth)


def decode(
    rows: Sequence[Row], card: str, sizes: Sizes, batch: int, n_new: int, window: int | None, work: Work
) -> Expected:
    """One step: the split kernel over the keys, the merge of its parts."""
    from bytegen.kernels.attention.fused.decode_launch import splits_for

    processor = PROCESSORS[card]
    variant = "1 new, global" if n_new == 1 else "16 new, window, norm"
    row = row_of(rows, "split_kernel", processor.architecture, sizes.dim, variant)[0]
    block_k, stages = row["config"]["BLOCK_K"], row["config"]["num_stages"]
    keys = sizes.length if window is None else window + n_new - 1
    programs = batch * sizes.kv_heads
    splits = splits_for(programs, keys, block_k, processor.count)
    share = math.ceil(keys / splits / block_k) * block_k
    at_once = min(programs * splits, processor.count * blocks_at_once(row, processor))
    in_flight = at_once * max(1, stages - 1) * 2 * block_k * sizes.dim * 2
    rate = min(BANDWIDTH * CARDS[card].bandwidth, in_flight / LATENCY)
    waves = programs * splits / at_once
    # The last wave may be short, and the last split of a sequence too: all wait for the longest.
    late = math.ceil(waves) / waves * share * splits / keys
    parts = 8.0 * splits * batch * n_new * sizes.heads * sizes.dim if splits > 1 else 0.0
    seconds = work.moved / rate * late + parts / (BANDWIDTH * CARDS[card].bandwidth)
    return Expected(
        seconds + LAUNCH * (1 + (splits > 1)),
        f"{splits} splits, {in_flight / 1e6:.1f} MB in flight of {CARDS[card].bandwidth * LATENCY / 1e6:.1f} needed",
    )


def sampling(work: Work, card: str) -> Expected:
    """One launch; a row's choices are compared 8 at a time, between about eight sums over the row."""
    steps = math.ceil(CHOICES / 8) + 8
    return Expected(LAUNCH + steps * STEP + moving(work, card), f"{steps} steps in a row; bytes do not count")


def small(work: Work, card: str) -> Expected:
    """One launch that moves its bytes."""
    return Expected(LAUNCH + moving(work, card), "one launch")
