"""A plan's memory of generation against what caches, weights and steps take."""

from __future__ import annotations

import importlib
from unittest import mock

import pytest
import torch
from accounting import CPU, configs, fake_model, on_gpu, total
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed._tools.mem_tracker import MemTracker

from bytegen import cache
from bytegen.cache import Cache
from bytegen.config import ModelConfig, preset
from bytegen.decoding import Engine
from bytegen.planning import decoding
from bytegen.planning.decoding import cache_bytes, generation_memory, growth_bytes, step_bytes, weight_bytes
from bytegen.planning.search import most_files, reserve_bytes
from bytegen.weights import empty_model


def test_the_constants_are_those_of_the_cache_and_the_engine() -> None:
    assert decoding._GROWTH == cache.GROWTH
    lm = empty_model(preset("nano"))
    assert Engine(lm, max_length=8, backend="torch").chunk == decoding.CHUNK


@settings(max_examples=60, deadline=None)
@given(
    config=configs(), batch=st.integers(1, 3), length=st.integers(1, 8000), chunk=st.sampled_from([1, 16, 64]),
    share=st.floats(0, 1), dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)  # fmt: skip
def test_caches_take_exactly_what_is_planned(
    config: ModelConfig, batch: int, length: int, chunk: int, share: float, dtype: torch.dtype
) -> None:
    caches = Cache(config, batch=batch, max_length=length, chunk=chunk, dtype=dtype, device="meta")
    position = max(chunk, int(share * length))
    caches._furthest = position - chunk  # as if so many were fed; there is nothing to ask on this device
    caches.positions = torch.full((batch,), position - chunk)
    caches.reserve(chunk)
    sizes = {"batch": batch, "chunk": chunk, "size": dtype.itemsize}
    assert caches.nbytes() == cache_bytes(config, length, position=position, **sizes)
    if position == length:
        assert caches.nbytes() == cache_bytes(config, length, **sizes)


@settings(max_examples=20, deadline=None)
@given(config=configs())
def test_weights_take_what_is_planned(config: ModelConfig) -> None:
    lm = empty_model(config)
    n = sum(p.numel() for p in lm.parameters())
    assert weight_bytes(config, "float32") == 4 * n
    assert weight_bytes(config, "bfloat16") == 2 * n
    int8 = 0
    for name, p in lm.named_parameters():
        matrix = p.dim() == 2 and name != "embed.weight" and not name.endswith("conv.weight")
        int8 += p.numel() + 4 * p.shape[0] if matrix else 2 * p.numel()
    assert weight_bytes(config, "int8") == int8
    held = [p.numel() for name, p in lm.named_parameters() if p.dim() == 2 and name != "embed.weight"
            and not name.endswith("conv.weight")]  # fmt: skip
    assert decoding.widened(config) == (sum(held), max(held))


def _unasked(*_: object) -> None:
    """Instead of a check that asks for the values of positions, and of a mock, which would keep the tensors."""


@settings(max_examples=5, deadline=None)
@given(config=configs(), batch=st.integers(1, 3))
def test_a_step_takes_what_is_planned(config: ModelConfig, batch: int) -> None:
    attention = importlib.import_module("bytegen.kernels.attention.decode")
    with on_gpu(), mock.patch.object(attention, "_check_capacity", _unasked):
        lm = fake_model(config)
        caches = Cache(config, batch=batch, max_length=2000, chunk=decoding.CHUNK)
        tokens = torch.zeros(batch, decoding.CHUNK, dtype=torch.int64)
        rings = [ring.data for layer in caches.layers for ring in layer.rings()]
        tracker = MemTracker()
        tracker.track_external(lm, *rings, tokens)
        with tracker, torch.no_grad():
            standing = tracker.get_tracker_snapshot("current")[CPU]["Total"]
            lm.step(tokens, caches)
            measured = total(tracker)
    planned = step_bytes(config, batch=batch, size=4)
    assert standing + planned == pytest.approx(measured, rel=0.05)
    assert planned == pytest.approx(measured - standing, rel=0.2)


def test_a_doubling_buffer_is_copied_beside_the_caches() -> None:
    config = preset("nano")
    kv = config.n_kv_heads * config.head_dim
    assert growth_bytes(config, 1000) == 0  # it never doubles
    assert growth_bytes(config, 5000, batch=2, size=2) == 2 * 2 * kv * (5000 + decoding.CHUNK)


def test_the_least_that_is_cached_is_far_below_an_all_global_cache() -> None:
    """34 GB at 131,072 positions and bfloat16 is what CWM's own cache takes; rings of its window need 10."""
    config = preset("cwm-32b")
    rings = cache_bytes(config, 131_072, size=2)
    everything = 131_072 * 2 * config.n_layers * config.n_kv_heads * config.head_dim * 2
    assert everything == pytest.approx(34.4e9, rel=0.01)
    assert rings == pytest.approx(10.2e9, rel=0.02)


@settings(max_examples=30, deadline=None)
@given(
    length=st.integers(1, 160_000),
    memory=st.integers(0, 200),
    precision=st.sampled_from(["bfloat16", "int8"]),
)
def test_the_most_files_fit_and_one_more_does_not(length: int, memory: int, precision: str) -> None:
    config = preset("7b")

    def needed(batch: int) -> int:
        found = generation_memory(config, length, batch=batch, precision=precision).total
        return found + reserve_bytes(found, 1)

    most = most_files(config, length, memory * 10**9, precision)
    assert most == 0 or needed(most) <= memory * 10**9
    assert most == 1024 or needed(most + 1) > memory * 10**9
