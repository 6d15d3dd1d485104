"""Judges of a plan's memory: torch's own accounting of this library's model, on tensors without storage.

Fake tensors on the CPU go through the operators as they would on a GPU (`on_gpu`): each operator is its fake, which
allocates what the Triton kernel does, and autograd saves what it saves there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.checkpoint import checkpoint

import bytegen.model
from bytegen.config import ModelConfig
from bytegen.kernels import backend, cross_entropy
from bytegen.model import ByteLM
from bytegen.train.optim import make_optimizers

CPU = torch.device("cpu")


@st.composite
def configs(draw: Any, conv: bool = True) -> ModelConfig:
    """Small shapes with every option of a config."""
    n_kv_heads = draw(st.sampled_from([1, 2]))
    return ModelConfig(
        dim=draw(st.sampled_from([32, 48, 64])), n_layers=draw(st.integers(2, 3)),
        n_heads=n_kv_heads * draw(st.integers(1, 3)), n_kv_heads=n_kv_heads,
        head_dim=draw(st.sampled_from([8, 16, 32])), ffn_dim=draw(st.sampled_from([40, 96, 160])),
        pattern=draw(st.sampled_from(["LG", "L", "G", "GLL"])), window=draw(st.sampled_from([8, 100])),
        vocab_size=draw(st.sampled_from([32, 320])), max_positions=8192, qkv_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()), tied=draw(st.booleans()),
        conv_taps=draw(st.sampled_from([0, 2, 4])) if conv else 0, mtp_heads=draw(st.sampled_from([0, 0, 1, 3])),
    )  # fmt: skip


def _always(tensor: Tensor) -> bool:
    """Instead of a mock, which would keep every tensor that it is called with."""
    return True


@contextmanager
def on_gpu() -> Iterator[None]:
    """Operators are chosen as for tensors on a GPU; nothing is computed, for the tensors are fake."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(backend, "takes_triton", _always))
        stack.enter_context(mock.patch.object(backend, "is_auto", partial(bool, 0)))
        stack.enter_context(FakeTensorMode())
        yield


def fake_model(config: ModelConfig, dtype: torch.dtype = torch.float32) -> ByteLM:
    """A model in `dtype`; only inside `on_gpu`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return ByteLM(config)
    finally:
        torch.set_default_dtype(before)


def recompute_layers(lm: ByteLM) -> None:
    """Keep only the layers' inputs."""
    for block in lm.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def losses(
    lm: nn.Module, tokens: Tensor, targets: Tensor, weights: Tensor, autocast: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As `Trainer.losses`, its heads asked at every token: cross-entropy, logits, and the sum of the heads' losses."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        if not lm.config.mtp_heads:  # FSDP gathers the weights of the ends in a call of the whole model alone
            logits, further = lm(tokens)[0], []
        else:
            hidden = lm.hidden(tokens)
            logits = lm.logits(hidden)[0]
            asked = [torch.zeros(len(targets), dtype=torch.int64) for _ in lm.mtp]
            further = [
                (targets[at], weights[at], lm.logits(head(hidden[0][at])))
                for at, head in zip(asked, lm.mtp, strict=True)
            ]
    heads = [(cross_entropy(logits, to) * w).sum() for to, w, logits in further]
    return cross_entropy(logits, targets), logits, sum(heads, torch.zeros(()))


def saved_bytes(config: ModelConfig, rows: int, *, dtype: torch.dtype, autocast: bool) -> int:
    """Bytes of all storages but the weights' that autograd keeps after a forward of `rows` tokens."""
    with on_gpu():
        lm = fake_model(config, dtype)
        own = {p.untyped_storage()._cdata for p in lm.parameters()}
        kept: dict[int, Tensor] = {}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage()._cdata not in own:
                kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            tokens = torch.zeros(1, rows, dtype=torch.int64)
            losses(lm, tokens, torch.zeros(rows, dtype=torch.int64), torch.ones(rows), autocast)
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def optimizers_of(lm: nn.Module, name: str) -> list[torch.optim.Optimizer]:
    """The trainer's, or AdamW over everything; many tensors at a time, as on a GPU."""
    if name == "adamw":
        return [torch.optim.AdamW(lm.parameters(), lr=1e-3, foreach=True)]
    found = make_optimizers(lm, lr=1e-2, embed_lr=1e-3, weight_decay=0.01, momentum=0.95, betas=(0.9, 0.95))
    for group in found[1].param_groups:
        group["foreach"] = True
    return found


def begin(optimizers: list[torch.optim.Optimizer], lm: nn.Module) -> None:
    """Take a step, so that the moments are there, as from the second step on."""
    for p in lm.parameters():
        p.grad = torch.zeros_like(p)
    for each in optimizers:
        each.step()
        each.zero_grad(set_to_none=True)


def peak_of_step(config: ModelConfig, rows: int, *, autocast: bool, recompute: bool, optimizer: str) -> int:
    """Most bytes at once in a training step, weights and moments included, by torch's tracker."""
    with on_gpu():
        lm = fake_model(config)
        if recompute:
            recompute_layers(lm)
        optimizers = optimizers_of(lm, optimizer)
        begin(optimizers, lm)

        batch = [torch.zeros(1, rows, dtype=torch.int64), torch.zeros(rows, dtype=torch.int64), torch.ones(rows),
                 torch.ones(rows, dtype=torch.bool)]  # fmt: skip
        tracker = MemTracker()
        tracker.track_external(lm, *optimizers, *batch)
        with tracker:
            nats, _logits, heads = losses(lm, batch[0], batch[1], batch[2], autocast)
            ((nats * batch[2]).sum() / batch[2].sum() + heads).backward()
            for each in optimizers:
                each.step()
                each.zero_grad(set_to_none=True)
            return total(tracker)


def total(tracker: MemTracker) -> int:
    """The peak of everything, in bytes."""
    return int(tracker.get_tracker_snapshot("peak")[CPU]["Total"])


def gathering(ranks: int, rows: int) -> Callable[..., Tensor]:
    """Attention of a rank in the middle under context parallelism: its own queries, the keys of others with its own.

    A local layer gets window - 1 rows from its neighbour, a global one everything; nothing is sent, room is taken.
    """

    def attend(
        q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, cu_seqlens: None = None
    ) -> Tensor:
        foreign = (ranks - 1) * rows if window is None else min(window - 1, (ranks - 1) * rows)
        k, v = (F.pad(x, (0, 0, 0, 0, foreign, 0)) for x in (k, v))
        o, _ = torch.ops.bytegen.attention(q, k, v, None, None, window, 1.0, 0.0)
        return o

    return attend


def peak_of_sharded_step(
    config: ModelConfig, rows: int, *, ranks: int, bfloat16: bool, recompute: bool, context: bool
) -> int:
    """Most bytes at once on one of `ranks` ranks that FSDP2 shards a model over, by torch's tracker; AdamW.

    A process group of `ranks` must be there whose collectives do nothing.
    """
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    options: dict[str, Any] = {"mesh": init_device_mesh("cpu", (ranks,))}
    if bfloat16:
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    attend = gathering(ranks, rows) if context else bytegen.model.local_attention
    with on_gpu(), mock.patch.object(bytegen.model, "local_attention", attend):
        lm = fake_model(config)
        if recompute:
            recompute_layers(lm)
        for block in lm.blocks:
            fully_shard(block, **options)
        fully_shard(lm, **options)
        adam = torch.optim.AdamW(lm.parameters(), lr=1e-3, foreach=True)
        begin([adam], lm)
        batch = (
            torch.zeros(1, rows, dtype=torch.int64),
            torch.zeros(rows, dtype=torch.int64),
            torch.ones(rows),
        )
        tracker = FSDPMemTracker(lm, adam)
        tracker.track_inputs(batch)
        with tracker:
            nats, _logits, heads = losses(lm, batch[0], batch[1], batch[2], False)
            ((nats * batch[2]).sum() / batch[2].sum() + heads).backward()
            adam.step()
            adam.zero_grad(set_to_none=True)
            return total(tracker)
