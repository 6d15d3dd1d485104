"""What a training step keeps between forward and backward, byte for byte as the kernels and autograd of this library.

Attention keeps q, k, v, o and the log-sum-exp; RMSNorm its input and one float32 a row; SwiGLU gate and up; rotary
embedding nothing but its tables, or, where it norms heads, q and k before it; cross-entropy the logits in their own
dtype and one float32 a row. Linear layers keep their inputs: one tensor for all that read it, or, under autocast, a
copy each. All sizes are in bytes for `rows` tokens on one device; `key_rows` are the keys and values that attention
holds there: more than `rows` where context parallelism brought those of neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

from bytegen.config import ModelConfig
from bytegen.planning.precision import Precision

_ROW_FLOAT = 4  # float32: rstd of a norm, log-sum-exp of a head
BATCH_ROW = 8 + 8 + 4 + 1
"""Bytes a token of a batch: id, target, weight, whether it is a parameter (see `train.data.Batch`)."""


@dataclass(frozen=True)
class BlockBytes:
    """One layer: what the forward keeps by its user, and the most that its backward needs on top of that."""

    norms: int
    convolution: int
    projections: int
    attention: int
    ffn: int
    backward: int

    @property
    def saved(self) -> int:
        """All that the forward keeps, its input included."""
        return self.norms + self.convolution + self.projections + self.attention + self.ffn


def widths(config: ModelConfig) -> tuple[int, int]:
    """Return the values of a token's queries, and of its keys (or values)."""
    return config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim


def block_bytes(
    config: ModelConfig, precision: Precision, rows: int, key_rows: int | None = None
) -> BlockBytes:
    """Return what one layer takes for `rows` tokens."""
    key_rows = rows if key_rows is None else key_rows
    q, kv = widths(config)
    wide, thin = precision.stream, precision.compute
    stream, ffn = config.dim * wide * rows, config.ffn_dim * thin * rows
    product_input = config.dim * thin * rows
    taps = config.conv_taps if config.conv_taps > 1 else 0

    norms = 2 * (stream + _ROW_FLOAT * rows)
    # The input of every tap (the first is the norm's output), and a mask a tap that looks back.
    convolution = taps * stream + max(0, taps - 1) * rows
    projections = 3 * product_input if precision.casts else stream
    before_norm = (q * rows + kv * rows) * thin if config.qk_norm else 0
    heads = (2 * q * rows + 2 * kv * key_rows) * thin
    attention = before_norm + heads + _ROW_FLOAT * config.n_heads * rows
    ffn_saved = (2 * product_input if precision.casts else stream) + 3 * ffn

    cast = product_input if precision.casts else 0
    # The gradient of the stream is held throughout. At the gate: its gradient, up's and that of their product, whose
    # own value has gone.
    at_ffn = stream + 2 * ffn
    at_down = stream + cast + ffn
    # By now the feed-forward's and its norm's have gone.
    gone = ffn_saved + stream + _ROW_FLOAT * rows
    d_heads = (q * rows + 2 * kv * key_rows) * thin + _ROW_FLOAT * config.n_heads * rows
    at_attention = stream + q * rows * thin + d_heads - gone
    # A tap: gradients of the sum, of the product, of its mask, of the padding, and the sum of what came before.
    at_taps = (6 * stream if taps else 2 * stream) - gone - attention
    return BlockBytes(
        norms=norms, convolution=convolution, projections=projections, attention=attention, ffn=ffn_saved,
        backward=max(at_ffn, at_down, at_attention, at_taps),
    )  # fmt: skip


@dataclass(frozen=True)
class EndBytes:
    """What is not in a layer: shared by all (rotary tables), kept to the end (logits, losses), and the last norm."""

    shared: int
    kept: int
    norm: int
    backward: int


def end_bytes(config: ModelConfig, precision: Precision, rows: int) -> EndBytes:
    """Return what the ends of the model take for `rows` tokens: tables, batch, last norm and loss."""
    tables = config.head_dim * precision.stream * rows
    logits = config.vocab_size * precision.compute * rows + 2 * _ROW_FLOAT * rows
    norm = config.dim * (precision.stream + precision.compute) * rows + _ROW_FLOAT * rows
    # The gradient of the logits, and of the row of the batch that they are, or of what they came from.
    d_logits = config.vocab_size * precision.compute
    backward = (d_logits + max(d_logits, config.dim * precision.stream)) * rows
    return EndBytes(shared=tables + BATCH_ROW * rows, kept=logits, norm=norm, backward=backward)


def mtp_bytes(config: ModelConfig, precision: Precision, rows: int) -> int:
    """Return what the forward of all multi-token prediction heads keeps until their backward, asked at every token.

    Each keeps the hidden states that it reads, what SiLU reads, what the unembedding reads, its logits, one float32 a
    row, and of a row its place, target and weight (see `train.losses`).
    """
    read = precision.compute if precision.casts else precision.stream
    values = config.dim * (2 * read + precision.compute) + config.vocab_size * precision.compute
    return config.mtp_heads * (values + _ROW_FLOAT + 8 + 8 + 4) * rows
