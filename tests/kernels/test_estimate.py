"""Least times on a card, against cases worked out by hand."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bytegen.cli.bench_kernels import kernels_bench
from bytegen.kernel_bench import estimate
from bytegen.kernel_bench.estimate import CARDS, Sizes, Work, bounded

TINY = Sizes(length=10, window=4, heads=2, kv_heads=1, dim=8, tokens=3, width=16, batches=(5,))


def test_global_attention_counts_a_triangle_of_pairs() -> None:
    # 10 * 11 / 2 = 55 pairs, 2 heads, two products of 8 multiply-adds; q, o 160 elements each, k, v 80 each.
    assert estimate.attention_forward(TINY, 10, None, 2) == Work(
        55 * 2 * 2 * 8 * 2, (160 + 160 + 80 + 80) * 2
    )


def test_local_attention_counts_its_window_and_the_short_rows_before_it() -> None:
    # 1 + 2 + 3 + 7 * 4 = 34 pairs.
    assert estimate.attention_forward(TINY, 10, 4, 4) == Work(34 * 2 * 2 * 8 * 2, 480 * 4)


def test_the_backward_makes_five_products_and_moves_eight_tensors() -> None:
    # q, o, dO, dQ of 160 elements; k, v, dK, dV of 80.
    assert estimate.attention_backward(TINY, 10, None, 2) == Work(55 * 2 * 5 * 8 * 2, (4 * 160 + 4 * 80) * 2)


def test_a_decode_step_reads_the_keys_and_values_that_are_seen() -> None:
    assert estimate.decode(TINY, 1, 1, None, 2) == Work(2 * 10 * 2 * 8 * 2, 2 * 10 * 8 * 2)
    # Three new ones with a window of 4 see 6 positions between them.
    assert estimate.decode(TINY, 8, 3, 4, 2).moved == 8 * 2 * 6 * 8 * 2


def test_the_small_operations_move_what_they_read_and_write() -> None:
    assert {name: work.moved for name, work in estimate.small(TINY, 2).items()} == {
        "rms_norm + residual": 4 * 3 * 16 * 2,  # x, residual, y, h
        "swiglu": 3 * 3 * 16 * 2,
        "rope": 2 * 3 * (2 + 1) * 8 * 2,
        "cross_entropy": 3 * 320 * 2,
    }
    assert estimate.sampling(5).moved == 5 * 257 * 4


@pytest.mark.parametrize(
    ("work", "seconds", "bound"),
    [(Work(989e12, 1.0), 1.0, "compute"), (Work(1.0, 6.7e12), 2.0, "memory"), (Work(0.0, 3.35e6), 1e-6, "memory")],
)  # fmt: skip
def test_the_slower_of_products_and_bytes_bounds_the_time(work: Work, seconds: float, bound: str) -> None:
    one = bounded("kind", "label", work, CARDS["h100"])
    assert one.seconds == pytest.approx(seconds)
    assert one.bound == bound


def test_the_command_knows_the_cards_of_the_table() -> None:
    card = next(option for option in kernels_bench.params if option.name == "card")
    assert isinstance(card.type, click.Choice)
    assert set(card.type.choices) == set(CARDS)


def test_the_command_prints_the_decode_steps_that_the_reference_works_out(tmp_path: Path) -> None:
    """4 KV heads of 128 would read 294 MB in 88 us; the benchmark's 8 heads take twice both."""
    path = tmp_path / "rows.jsonl"
    done = CliRunner().invoke(kernels_bench, ["--estimate", "--only", "decode", "--json", str(path)])
    assert done.exit_code == 0, done.output
    assert "nothing was run" in done.output
    rows = {row["label"]: row for row in map(json.loads, path.read_text().splitlines())}
    assert rows["global, batch 1, 1 new"]["bytes"] == 2 * 143_360 * 8 * 128 * 2
    assert rows["global, batch 1, 1 new"]["seconds"] == pytest.approx(2 * 87.66e-6, rel=1e-3)
    assert rows["local, batch 1, 1 new"]["seconds"] == pytest.approx(2 * 5.008e-6, rel=1e-3)
