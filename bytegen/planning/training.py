"""The memory of one GPU at each moment of a training step: FSDP over all GPUs, context parallelism over some.

FSDP2 (`fully_shard` of every layer and of the whole) leaves a share of parameters, gradients and moments on each GPU,
gathers one layer while the next is on its way, and holds one layer's gradients while they are reduced. Context
parallelism divides every sequence; a local layer then takes window - 1 keys and values from its neighbour, a global one
gathers all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bytegen.config import ModelConfig
from bytegen.planning.activations import BATCH_ROW, block_bytes, end_bytes, mtp_bytes
from bytegen.planning.optimizers import Optimizer, matrices, state_bytes, step_bytes
from bytegen.planning.precision import Precision

_WIDE = 4  # gradients are float32, as the parameters that they update; so are those on their way to shards


@dataclass(frozen=True)
class Moment:
    """A moment of the step: its name, and the bytes of each part on one GPU."""

    name: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a step's sequences lie on GPUs: `data` groups share out `batch` sequences, `context` GPUs each of them."""

    length: int
    batch: int = 1
    data: int = 1
    context: int = 1

    @property
    def gpus(self) -> int:
        """GPUs in all; parameters are sharded over every one."""
        return self.data * self.context

    @property
    def sequences(self) -> int:
        """Sequences that a GPU has a share of."""
        return -(-self.batch // self.data)

    @property
    def rows(self) -> int:
        """Tokens of a GPU."""
        return self.sequences * -(-self.length // self.context)

    def key_rows(self, window: int | None) -> int:
        """Keys (and values) that a layer of this window holds on a GPU while it attends."""
        own = -(-self.length // self.context)
        seen = self.length if window is None else min(self.length, own + window - 1)
        return self.sequences * (own if self.context == 1 else seen)


def end_params(config: ModelConfig) -> int:
    """Return the parameters outside the layers: embedding, last norm, head, multi-token prediction heads."""
    return config.dim + config.vocab_size * config.dim * (1 if config.tied else 2) + config.mtp_params()


def block_params(config: ModelConfig) -> int:
    """Return the parameters of one layer."""
    return (config.n_params() - end_params(config)) // config.n_layers


def training_moments(
    config: ModelConfig, layout: Layout, precision: Precision, optimizer: Optimizer, *, recompute: bool,
    on_gpu: bool = True,
) -> list[Moment]:  # fmt: skip
    """Return the moments at which one GPU may hold the most, from the second step on.

    `recompute` keeps only the input of every layer and computes the rest again in the backward
    (torch.utils.checkpoint a layer). Without `on_gpu` the optimiser's products are in float32, as on a CPU.
    """
    gpus, n = layout.gpus, config.n_layers
    block, ends = block_params(config), end_params(config)
    products = sum(rows * columns for rows, columns in matrices(config))
    head, down = config.vocab_size * config.dim, config.dim * config.ffn_dim
    of_window = {
        w: block_bytes(config, precision, layout.rows, layout.key_rows(w)) for w in set(config.windows())
    }
    blocks = [of_window[w] for w in config.windows()]
    end = end_bytes(config, precision, layout.rows)
    stream = config.dim * precision.stream * layout.rows
    kept = [stream if recompute else b.saved for b in blocks]
    standing = {
        "parameters": -(-config.n_params() * precision.parameter // gpus),
        "optimiser state": -(-state_bytes(config, optimizer) // gpus),
    }

    def gathered(layers: int, gradients: int = 0, leaving: int = 0) -> int:
        """Whole layers and the ends, `gradients` of one, `leaving` layers of them in float32; nothing on one GPU."""
        if gpus == 1:
            return 0
        return precision.compute * (layers * block + ends + gradients) + leaving * _WIDE * block

    def copies(layers: int, with_head: bool) -> int:
        """What autocast makes on one GPU of so many layers' matrices, and of the heads."""
        copied = layers * products + (head + config.mtp_params() if with_head else 0)
        return precision.compute * copied if precision.casts and gpus == 1 else 0

    def at(name: str, activations: int, gradients: int, whole: int, update: int = 0) -> Moment:
        shard = -(-gradients * _WIDE // gpus)
        parts = {
            "gradients": shard,
            "activations": activations,
            "whole and cast weights": whole,
            "update": update,
        }
        return Moment(name, standing | parts)

    full = end.shared + end.kept + end.norm + sum(kept) + mtp_bytes(config, precision, layout.rows)
    left = 0 if recompute else n
    moments = [
        at("the end of the forward", full, 0, copies(n, True) + gathered(2)),
        at("the backward of the head", full + end.backward, head, copies(left, True) + gathered(2)),
    ]
    before = end.shared + end.kept + sum(kept)
    for i in reversed(range(n)):
        before -= kept[i]
        done = ends + (n - 1 - i) * block
        own = down if gpus == 1 else 0  # the first of its layer's gradients, whole where they are sharded
        # The layer that comes next is on its way here, the gradients of the one before it on theirs.
        layers, leaving = 1 + (i > 0), int(i < n - 1)
        whole = copies(1 if recompute else i + 1, False) + gathered(layers, down, leaving)
        inside = before + blocks[i].saved + blocks[i].backward
        moments.append(at(f"the backward of layer {i}", inside, done + own, whole))
        if gpus > 1:
            whole = gathered(layers, block, leaving + 1)
            moments.append(at(f"the gradients of layer {i}", before + 2 * stream, done, whole))
    losses = BATCH_ROW * layout.rows + end.kept
    update = step_bytes(config, optimizer, gpus=gpus, on_gpu=on_gpu)
    moments.append(at("the update", losses, config.n_params(), 0, update))
    return moments


def training_peak(moments: Sequence[Moment]) -> Moment:
    """Return the moment that holds the most."""
    return max(moments, key=lambda moment: moment.total)
