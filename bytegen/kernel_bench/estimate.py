"""What a card's data sheet allows: bytes, FLOPs and the least time of every case, where no GPU is at hand.

`bytegen bench kernels --estimate` prints it. These times are bounds, not predictions: a kernel takes longer than the
slower of its products at the dense peak and its bytes at the peak bandwidth, each moved once. Beside them stands, where
the compile table is given, what `expected` makes of the compiled kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from bytegen.cards import CARDS, Card
from bytegen.kernels.attention.ops import seen_pairs

__all__ = ["CARDS", "Card"]

CHOICES = 257
"""Bytes and the end of the file: what sampling chooses from."""


class Work(NamedTuple):
    """FLOPs (of unmasked pairs) and bytes that must be moved at least."""

    flops: float
    moved: float


@dataclass(frozen=True)
class Sizes:
    """How large: a card's, or what two cores of a CPU get through."""

    length: int
    window: int
    heads: int
    kv_heads: int
    dim: int
    tokens: int
    width: int
    batches: tuple[int, ...]


def attention_forward(sizes: Sizes, length: int, window: int | None, size: int) -> Work:
    """Two products a pair; q, k, v read and o written, `size` bytes an element."""
    flops = 4.0 * sizes.heads * sizes.dim * seen_pairs(length, window, [0, length])
    return Work(flops, float(2 * (sizes.heads + sizes.kv_heads) * length * sizes.dim * size))


def attention_backward(sizes: Sizes, length: int, window: int | None, size: int) -> Work:
    """Five products a pair; q, k, v, o, dO read and dQ, dK, dV written."""
    forward = attention_forward(sizes, length, window, size)
    return Work(2.5 * forward.flops, 2 * forward.moved)


def decode(sizes: Sizes, batch: int, n_new: int, window: int | None, size: int) -> Work:
    """`n_new` positions after a past of length - n_new: the keys and values that one of them sees are read once."""
    seen = sizes.length if window is None else window + n_new - 1
    flops = 4.0 * batch * n_new * sizes.heads * sizes.dim * seen
    return Work(flops, 2.0 * batch * seen * sizes.kv_heads * sizes.dim * size)


def sampling(batch: int) -> Work:
    """Logits in float32, read once."""
    return Work(0.0, float(batch * CHOICES * 4))


def small(sizes: Sizes, size: int) -> dict[str, Work]:
    """The small operations by name: tensors of [tokens, width] read and written."""
    row = float(sizes.tokens * sizes.width * size)
    heads = float(sizes.tokens * (sizes.heads + sizes.kv_heads) * sizes.dim * size)
    return {
        "rms_norm + residual": Work(0.0, 4 * row),
        "swiglu": Work(0.0, 3 * row),
        "rope": Work(0.0, 2 * heads),
        "cross_entropy": Work(0.0, float(sizes.tokens * 320 * size)),
    }


def decode_shapes(sizes: Sizes) -> Iterator[tuple[int | None, int, int]]:
    """(window, batch, new positions) of the decode cases; whole pasts of a batch do not fit a card."""
    for window in (sizes.window, None):
        for batch, n_new in ((1, 1), (1, 16), (8, 1)):
            if window is not None or batch == 1:
                yield window, batch, n_new


def decode_label(window: int | None, batch: int, n_new: int) -> str:
    """What a decode case goes by, in estimates and in measured rows."""
    return f"{'global' if window is None else 'local'}, batch {batch}, {n_new} new"


class Estimate(NamedTuple):
    """One case on one card: the least seconds, which peak sets them, and what is expected of the compiled kernels."""

    kind: str
    label: str
    work: Work
    seconds: float
    bound: str  # "compute" or "memory"
    expected: float | None = None  # seconds
    why: str = ""


def bounded(kind: str, label: str, work: Work, card: Card) -> Estimate:
    """The slower of products at the peak and bytes at the bandwidth (the roofline, Williams et al. 2009)."""
    compute, memory = work.flops / card.flops, work.moved / card.bandwidth
    return Estimate(
        kind, label, work, max(compute, memory), "compute" if compute > memory else "memory"
    )  # fmt: skip


def estimates(
    sizes: Sizes, card: str, lengths: list[int], rows: list[dict[str, Any]] | None = None
) -> Iterator[Estimate]:
    """Every case of the benchmark at these sizes in bfloat16, on a card of `CARDS`.

    `rows` of the compile table give expected times too; LookupError where one that is needed is not among them.
    """
    from bytegen.kernel_bench import expected
    from bytegen.kernel_bench.occupancy import PROCESSORS

    def case(kind: str, label: str, work: Work, predict: Any) -> Estimate:
        least = bounded(kind, label, work, CARDS[card])
        if rows is None:
            return least
        seconds, why = predict()
        return least._replace(expected=seconds, why=why)

    for length in lengths or [sizes.length]:
        for window in (sizes.window, None):
            if window is None or window < length:
                label = f"{'global' if window is None else 'local'}, {length} tokens"
                for kind, count in (("forward", attention_forward), ("backward", attention_backward)):
                    work = count(sizes, length, window, 2)
                    predict = partial(
                        expected.attention, rows or [], card, sizes, length, window, kind == "backward", work
                    )
                    yield case(f"attention {kind}", label, work, predict)
                if rows is not None and PROCESSORS[card].architecture == "sm_90":
                    work = attention_forward(sizes, length, window, 2)
                    predict = partial(expected.attention_in_turn, rows, card, sizes, length, window, work)
                    yield case("attention forward", f"{label}, Gluon", work, predict)
    for window, batch, n_new in decode_shapes(sizes):
        work = decode(sizes, batch, n_new, window, 2)
        predict = partial(expected.decode, rows or [], card, sizes, batch, n_new, window, work)
        yield case("decode", decode_label(window, batch, n_new), work, predict)
    for batch in sizes.batches:
        work = sampling(batch)
        yield case("sampling", f"batch {batch}", work, partial(expected.sampling, work, card))
    for label, work in small(sizes, 2).items():
        yield case("small", label, work, partial(expected.small, work, card))
