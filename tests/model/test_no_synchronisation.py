"""A decode step asks the device for no value: on a GPU each such question waits for everything before it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bytegen.cache import GROWTH, Cache
from bytegen.config import ModelConfig
from bytegen.errors import UserError
from bytegen.kernels import backend
from bytegen.model import ByteLM

CONFIG = ModelConfig(dim=16, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=8, ffn_dim=24, pattern="LG", window=5,
                     qk_norm=True, conv_taps=2, vocab_size=320)  # fmt: skip


class NoValues(TorchDispatchMode):
    """Raises where a tensor's value would come to the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masked = func.overloadpacket in (
            torch.ops.aten.index,
            torch.ops.aten.index_put,
            torch.ops.aten.index_put_,
        )
        if masked:  # how many elements a mask selects is a value too
            masked = any(i is not None and i.dtype == torch.bool for i in args[1])
        if masked or func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_values() -> Iterator[None]:
    """Inside the block no tensor becomes a number or a list (`tolist` is unseen by a dispatch mode)."""
    refuse = mock.Mock(side_effect=AssertionError("a list waits for the device"))
    with mock.patch.object(Tensor, "tolist", refuse), NoValues():
        yield


def test_the_guard_sees_what_would_wait() -> None:
    for ask in (Tensor.item, lambda x: x.tolist(), bool, int, lambda x: torch.zeros(1)[x > 0]):
        with pytest.raises(AssertionError, match="waits"), no_values():
            ask(torch.ones(1))


@pytest.mark.parametrize("ragged", [False, True])
def test_a_decode_step_asks_the_device_for_no_value(ragged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():  # a check that is made of tensors on a CPU alone
        monkeypatch.setattr("bytegen.kernels.attention.decode._check_capacity", lambda *_: None)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lm = ByteLM(CONFIG).to(device)
    cache = Cache(CONFIG, batch=2, max_length=64, chunk=4, device=device)
    tokens = torch.randint(0, 256, (2, 9), device=device)
    counts = torch.tensor([1, 2], device=device) if ragged else None
    with backend.use("triton"):
        lm.prefill(tokens, cache)
        with no_values():
            for _ in range(3):
                lm.step(tokens[:, :2], cache, counts)
    assert cache.positions.tolist() == ([12, 15] if ragged else [15, 15])


def test_sequences_that_advance_less_than_their_chunks_fill_the_cache_to_its_end() -> None:
    """The count of the host runs ahead of them; it is set right before it refuses a step or doubles a buffer."""
    cache = Cache(CONFIG, batch=2, max_length=2 * GROWTH, chunk=16)
    for _ in range(GROWTH - 16):
        cache.reserve(16)
        cache.advance(16, torch.tensor([1, 0]))
    assert cache.layers[1].keys.capacity == GROWTH
    for _ in range(GROWTH + 16):
        cache.reserve(16)
        cache.advance(16, torch.tensor([1, 0]))
    assert cache.positions.tolist() == [2 * GROWTH, 0]
    cache.advance(1)
    with pytest.raises(UserError, match="past the 2048"):
        cache.reserve(16)


def test_a_cache_counts_from_where_it_is_put() -> None:
    cache = Cache(CONFIG, batch=2, max_length=GROWTH, chunk=16)
    cache.seek(GROWTH)
    cache.reserve(16)
    assert cache.layers[1].keys.capacity == GROWTH + 16
    cache.advance(1)
    with pytest.raises(UserError, match="past the 1024"):
        cache.reserve(16)
