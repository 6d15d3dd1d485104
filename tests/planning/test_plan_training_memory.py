"""A plan's memory of training against torch's accounting: what autograd saves, and the peak of whole steps."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from accounting import configs, peak_of_sharded_step, peak_of_step, saved_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen.config import ModelConfig, preset
from bytegen.planning.activations import BATCH_ROW, block_bytes, end_bytes, mtp_bytes
from bytegen.planning.optimizers import OPTIMIZERS, matrix_params, state_bytes
from bytegen.planning.precision import AUTOCAST, FLOAT32, SHARDED_BFLOAT16, Precision
from bytegen.planning.training import Layout, block_params, end_params, training_moments, training_peak
from bytegen.weights import empty_model

WITHIN = 0.05


@settings(max_examples=8, deadline=None)
@given(
    config=configs(), rows=st.sampled_from([1, 64, 500]),
    precision=st.sampled_from([FLOAT32, AUTOCAST, SHARDED_BFLOAT16]),
)  # fmt: skip
def test_what_the_forward_keeps_is_what_autograd_saves(
    config: ModelConfig, rows: int, precision: Precision
) -> None:
    block, end = block_bytes(config, precision, rows), end_bytes(config, precision, rows)
    # Ids and targets are saved; the losses themselves, weights and marks of a batch are not. Autocast's weights are.
    planned = config.n_layers * block.saved + end.shared - BATCH_ROW * rows + 16 * rows + end.kept - 4 * rows
    planned += end.norm + mtp_bytes(config, precision, rows)
    if precision.casts:
        planned += precision.compute * (matrix_params(config) + config.vocab_size * config.dim)
    dtype = torch.bfloat16 if precision is SHARDED_BFLOAT16 else torch.float32
    assert planned == saved_bytes(config, rows, dtype=dtype, autocast=precision.casts)


def cases(count: int, seed: int) -> list[tuple[ModelConfig, int]]:
    """Shapes and rows, the same every time: a step under the tracker takes seconds."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        n_kv = draw.choice([1, 2])
        config = ModelConfig(
            dim=draw.choice([32, 64]), n_layers=2, n_heads=n_kv * draw.choice([1, 2, 3]),
            n_kv_heads=n_kv, head_dim=draw.choice([8, 16, 32]), ffn_dim=draw.choice([40, 96, 160]),
            pattern=draw.choice(["LG", "L", "GLL"]), window=draw.choice([8, 100]), vocab_size=draw.choice([32, 320]),
            max_positions=8192, qkv_bias=draw.random() < 0.5, qk_norm=draw.random() < 0.5, tied=draw.random() < 0.5,
            conv_taps=draw.choice([0, 2, 4]), mtp_heads=draw.choice([0, 3]),
        )  # fmt: skip
        found.append((config, draw.choice([64, 1024])))
    return found


@pytest.mark.parametrize(
    ("case", "autocast", "recompute", "optimizer"),
    [
        (case, *flags)
        for case, flags in zip(
            cases(4, 11),
            [(False, False, "muon"), (False, True, "adamw"), (True, False, "adamw"), (True, True, "muon")],

            strict=True,
        )
    ],
)  # fmt: skip
def test_the_peak_of_a_step_is_that_of_torchs_tracker(
    case: tuple[ModelConfig, int], autocast: bool, recompute: bool, optimizer: str
) -> None:
    config, rows = case
    moments = training_moments(
        config, Layout(length=rows), AUTOCAST if autocast else FLOAT32, optimizer, recompute=recompute, on_gpu=False
    )  # fmt: skip
    measured = peak_of_step(config, rows, autocast=autocast, recompute=recompute, optimizer=optimizer)
    assert training_peak(moments).total == pytest.approx(measured, rel=WITHIN)


@pytest.fixture(scope="module")
def four_ranks() -> Iterator[int]:
    """A process group of four whose collectives do nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    yield 4
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("case", "bfloat16", "recompute", "context"),
    [
        (case, *flags)
        for case, flags in zip(
            cases(3, 5),
            [(True, True, True), (False, False, True), (True, False, False)],
            strict=True,
        )
    ],
)
def test_a_shard_of_a_step_is_that_of_torchs_tracker(
    case: tuple[ModelConfig, int], bfloat16: bool, recompute: bool, context: bool, four_ranks: int
) -> None:
    config, rows = dataclasses.replace(case[0], mtp_heads=0), case[1]
    layout = (
        Layout(length=rows * four_ranks, context=four_ranks)
        if context
        else Layout(length=rows, batch=four_ranks, data=four_ranks)
    )
    assert (layout.gpus, layout.rows) == (four_ranks, rows)
    precision = SHARDED_BFLOAT16 if bfloat16 else FLOAT32
    moments = training_moments(config, layout, precision, "adamw", recompute=recompute)
    measured = peak_of_sharded_step(
        config, rows, ranks=four_ranks, bfloat16=bfloat16, recompute=recompute, context=context
    )
    assert training_peak(moments).total == pytest.approx(measured, rel=WITHIN)


@given(config=configs())
@settings(max_examples=20, deadline=None)
def test_parameters_and_moments_are_those_of_the_model(config: ModelConfig) -> None:
    lm = empty_model(config)
    parts = (*lm.blocks.named_parameters(), *lm.mtp.named_parameters("mtp"))
    two = {name: p.numel() for name, p in parts if p.dim() == 2}
    inner = sum(count for name, count in two.items() if not name.endswith("conv.weight"))
    assert matrix_params(config) == inner
    assert block_params(config) * config.n_layers == sum(p.numel() for p in lm.blocks.parameters())
    assert end_params(config) + block_params(config) * config.n_layers == config.n_params()
    assert state_bytes(config, "adamw") - state_bytes(config, "muon") == 4 * inner


@given(
    length=st.integers(1, 5000), batch=st.integers(1, 4), context=st.integers(1, 8), window=st.integers(1, 3000)
)  # fmt: skip
def test_a_gpu_holds_its_own_keys_at_least_and_the_sequence_at_most(
    length: int, batch: int, context: int, window: int
) -> None:
    layout = Layout(length=length, batch=batch, context=context)
    own, local, whole = layout.rows, layout.key_rows(window), layout.key_rows(None)
    assert own <= local <= max(own, whole)
    assert local - own <= batch * (window - 1)
    assert whole == (own if context == 1 else batch * length)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("recompute", [False, True])
def test_more_gpus_never_take_more_of_each(optimizer: str, recompute: bool) -> None:
    config = preset("7b")
    needed = [
        training_peak(
            training_moments(
                config, Layout(length=143_360, context=gpus), SHARDED_BFLOAT16, optimizer, recompute=recompute
            )
        ).total
        for gpus in (2, 4, 8, 16, 32)
    ]
    assert needed == sorted(needed, reverse=True)
