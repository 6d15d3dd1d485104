"""FLOPs against torch's counter, times against the rates that they come from, rates against benchmark files."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accounting import configs, fake_model, losses, on_gpu, recompute_layers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from bytegen.cards import CARDS
from bytegen.config import ModelConfig, preset
from bytegen.errors import UserError
from bytegen.kernels.attention.ops import seen_pairs as kernel_pairs
from bytegen.planning import Layout, calibration, read_calibration
from bytegen.planning.flops import forward_flops, seen_pairs, training_flops
from bytegen.planning.precision import SHARDED_BFLOAT16
from bytegen.planning.rates import LAUNCH, Rates, assumed
from bytegen.planning.times import generation_seconds, training_seconds


@given(length=st.integers(1, 10_000), window=st.none() | st.integers(1, 12_000))
def test_pairs_are_those_of_the_kernels(length: int, window: int | None) -> None:
    assert seen_pairs(length, window) == kernel_pairs(length, window, [0, length])


@settings(max_examples=30, deadline=None)
@given(config=configs(), length=st.integers(1, 300))
def test_the_flops_of_a_sequence_are_those_of_its_bytes(config: ModelConfig, length: int) -> None:
    assert forward_flops(config, length).total == sum(config.flops_per_byte(i) for i in range(length))


@settings(max_examples=4, deadline=None)
@given(config=configs(conv=False), recompute=st.booleans())
def test_the_flops_of_training_are_those_that_torch_counts(config: ModelConfig, recompute: bool) -> None:
    """Without taps, which are no products of matrices to torch."""
    length = 40
    with on_gpu():
        lm = fake_model(config)
        if recompute:
            recompute_layers(lm)
        counter = FlopCounterMode(display=False)
        with counter:
            tokens = torch.zeros(1, length, dtype=torch.int64)
            nats, _, heads = losses(
                lm, tokens, torch.zeros(length, dtype=torch.int64), torch.ones(length), False
            )
            (nats.sum() + heads).backward()
    assert counter.get_total_flops() == training_flops(config, length, recompute=recompute)


RATES = assumed(CARDS["h100"])
SEVEN = preset("7b")
seconds_7b = partial(training_seconds, SEVEN, precision=SHARDED_BFLOAT16, optimizer="muon", recompute=True)


@pytest.mark.parametrize("field", ["products", "forward", "backward", "bandwidth", "link"])
def test_a_faster_device_never_takes_longer(field: str) -> None:
    value = getattr(RATES, field)
    twice = (2 * value[0], 2 * value[1]) if isinstance(value, tuple) else 2 * value
    faster = dataclasses.replace(RATES, **{field: twice})
    layout = Layout(length=143_360, context=4)
    slow, fast = seconds_7b(layout, rates=RATES), seconds_7b(layout, rates=faster)
    assert fast.total <= slow.total
    changed = {f.name for f in dataclasses.fields(fast) if getattr(fast, f.name) != getattr(slow, f.name)}
    assert changed == {
        "products": {"products", "update"}, "forward": {"attention"}, "backward": {"attention"},
        "bandwidth": {"small", "update"}, "link": {"communication"},
    }[field]  # fmt: skip


def test_products_of_a_step_take_their_flops_over_the_rate() -> None:
    config = dataclasses.replace(preset("nano"), conv_taps=0)
    layout = Layout(length=1000, batch=2)
    rates = dataclasses.replace(
        RATES, forward=(1e30, 1e30), backward=(1e30, 1e30), bandwidth=1e30, products=1e9
    )
    s = training_seconds(config, layout, SHARDED_BFLOAT16, "adamw", rates, recompute=False)
    products = 2 * 3 * forward_flops(config, 1000).products
    assert s.total == pytest.approx(products / 1e9)
    assert s.communication == 0


def test_a_lone_file_waits_for_the_weights_and_many_share_them() -> None:
    one = generation_seconds(SEVEN, 1000, RATES)
    assert one.weights == pytest.approx(1000 * 2 * SEVEN.n_params() / RATES.bandwidth)
    many = generation_seconds(SEVEN, 1000, RATES, batch=16)
    assert many.weights == one.weights
    assert many.attention == pytest.approx(16 * one.attention)
    drafted = generation_seconds(SEVEN, 1000, RATES, bytes_per_step=8)
    assert drafted.weights == pytest.approx(one.weights / 8)
    assert drafted.steps == 125


ROW: dict[str, Any] = {
    "measure": "kernel", "implementation": "bytegen", "memory": 1, "ceiling_flops": 6e14, "ceiling_bandwidth": 3e12,
    "device": "NVIDIA H100 80GB HBM3",
}  # fmt: skip
KINDS = (
    ("attention forward", "flops_per_second", 1e14), ("attention backward", "flops_per_second", 2e14),
    ("decode", "bytes_per_second", 1e12),
)  # fmt: skip


def rows(**changes: Any) -> list[dict[str, Any]]:
    found = []
    for kind, key, value in KINDS:
        for label, factor in (("local, x", 1.0), ("global", 2.0)):
            found.append(ROW | changes | {"kind": kind, "label": label, key: factor * value})
            found.append(found[-1] | {"implementation": "a peer", key: 1.0})
    return found


def test_a_benchmark_of_a_card_gives_its_rates_and_shares_for_others() -> None:
    found = calibration(rows(), "gpu.jsonl")
    assert (found.card, found.device) == ("h100", ROW["device"])
    own = found.rates(CARDS["h100"])
    assert own == Rates(
        name=ROW["device"], source="gpu.jsonl", calibrated=True, products=6e14, forward=(1e14, 2e14),
        backward=(2e14, 4e14), bandwidth=3e12, cache=(1e12, 2e12), link=own.link, network=own.network, launch=LAUNCH,
        step=0.0, host=0.0,
    )  # fmt: skip
    other = found.rates(CARDS["b200"])
    assert not other.calibrated
    assert other.products / CARDS["b200"].flops == pytest.approx(6e14 / CARDS["h100"].flops)
    assert other.cache[1] / CARDS["b200"].bandwidth == pytest.approx(2e12 / CARDS["h100"].bandwidth)


def test_a_benchmark_of_a_cpu_is_its_own_and_leaves_gpus_assumed() -> None:
    found = calibration(rows(memory=None, device="cpu", cpu="Some Processor"), "cpu.jsonl")
    assert (found.card, found.device) == (None, "Some Processor")
    assert found.rates(None).calibrated
    assert found.rates(None).launch == 0
    assert found.cache == (3e12, 3e12)  # as memory gives, for the decoder in C
    assert found.rates(CARDS["h100"]) == RATES


def test_rows_of_the_engine_say_what_steps_and_files_cost_beside_the_weights() -> None:
    row = {"bench": "generate", "batch": 1, "drafts": False, "params": 10**9, "bytes_per_second": 500.0,
           "bytes_per_step": 2.0, "model": 0.75}  # fmt: skip
    others = [row | {"drafts": True, "model": 0.1}, row | {"precision": "int8", "model": 0.1}]
    found = calibration([*rows(), row, *others], "x")
    assert found.host == pytest.approx(2 / 500 * 0.25)
    assert found.step == pytest.approx(2 / 500 * 0.75 - 2 * 1e9 / ROW["ceiling_bandwidth"])
    one = generation_seconds(SEVEN, 100, found.rates(CARDS["h100"]), batch=3)
    assert one.host == pytest.approx(100 * 3 * found.host)
    assert one.launches == pytest.approx(100 * (found.step + SEVEN.n_layers * LAUNCH))


@pytest.mark.parametrize(
    ("text", "word"),
    [("", "no row of"), ("{", "line 1"), ("[]", "line 1"), (json.dumps(ROW) + "\nnope", "line 2"),
     (json.dumps(ROW | {"ceiling_flops": True}), "no row of"), ("\xff", "cannot be read")],
)  # fmt: skip
def test_a_file_that_is_no_benchmark_is_refused(text: str, word: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=word) as refused:
        read_calibration(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_calibration(tmp_path / "none")
