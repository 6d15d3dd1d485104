"""Least times on a card, against cases worked out by hand."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bytegen.cli.bench_kernels import kernels_bench
from bytegen.cli.kernel_estimates import read_rows
from bytegen.errors import UserError
from bytegen.kernel_bench import cases, estimate, expected
from bytegen.kernel_bench.estimate import CARDS, Sizes, Work, bounded
from bytegen.kernel_bench.occupancy import PROCESSORS, blocks_at_once

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
    card = next(option for option in kernels_bench.params if option.name == "cards")
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


TABLE = Path(__file__).parents[2] / "benchmarks" / "compiled.jsonl"
PAGE = Path(__file__).parents[2] / "docs" / "kernels-estimate.md"
ALL_CARDS = [option for card in CARDS for option in ("--card", card)]


def compiled_row(registers: int, shared: int, warps: int, kernel: str = "forward_kernel") -> dict[str, Any]:
    return {"kernel": kernel, "registers": registers, "shared": shared, "config": {"num_warps": warps}}


@pytest.mark.parametrize(
    ("card", "row", "blocks"),
    [
        ("h100", compiled_row(32, 0, 4), 16),  # 2,048 threads
        ("h100", compiled_row(64, 0, 4), 8),  # 65,536 registers
        ("h100", compiled_row(225, 164_864, 8), 1),
        ("h100", compiled_row(243, 114_688, 4), 2),  # 228 KB, of which CUDA takes 1 a block
        ("a100", compiled_row(243, 114_688, 4), 1),  # 164 KB
        ("mi300x", compiled_row(128, 16_384, 8), 2),  # 512 registers of each of four SIMDs, 64 threads a warp
        ("mi300x", compiled_row(136, 16_384, 8), 1),
        ("mi300x", compiled_row(64, 32_768, 4), 2),  # 64 KB of LDS
    ],
)
def test_the_scarcest_of_registers_shared_memory_and_threads_says_how_many_blocks_run_at_once(
    card: str, row: dict[str, Any], blocks: int
) -> None:
    assert blocks_at_once(row, PROCESSORS[card]) == blocks


def test_the_clocks_that_the_data_sheets_imply_are_those_of_the_cards() -> None:
    ghz = {"h100": 1.83, "h200": 1.83, "b200": 1.86, "a100": 1.41, "mi300x": 2.1}
    assert set(PROCESSORS) == set(CARDS) == set(ghz)
    for card, processor in PROCESSORS.items():
        assert processor.clock / 1e9 == pytest.approx(ghz[card], rel=0.01)


@given(
    length=st.integers(1, 200), window=st.none() | st.integers(1, 250),
    block_q=st.sampled_from([1, 16, 32]), block_k=st.sampled_from([1, 16, 64]),
)  # fmt: skip
def test_the_pairs_visited_are_those_of_the_tiles_that_hold_a_pair_that_is_seen(
    length: int, window: int | None, block_q: int, block_k: int
) -> None:
    seen = {
        (i, j) for i in range(length) for j in range(0 if window is None else max(0, i - window + 1), i + 1)
    }
    tiles = {(i // block_q, j // block_k) for i, j in seen}
    assert expected.visited_pairs(length, window, block_q, block_k) == len(tiles) * block_q * block_k


def test_a_forward_on_an_h100_is_expected_within_a_fifth_of_what_triton_measured_there() -> None:
    """Triton's own flash attention, heads of 128, 16,384 tokens: 477 TFLOP/s (pytorch/benchmark, pull request 2391)."""
    seconds = expected.scores_seconds(compiled_row(225, 164_864, 8), PROCESSORS["h100"], 128, 1e9)
    assert 4 * 128 * 1e9 / seconds == pytest.approx(477e12, rel=0.2)


@pytest.mark.parametrize("card", list(CARDS))
def test_nothing_is_expected_to_beat_its_bound_or_to_take_less_than_a_launch(card: str) -> None:
    ones = list(estimate.estimates(cases.GPU, card, [], read_rows(TABLE)))
    assert {one.kind for one in ones} == {
        "attention forward",
        "attention backward",
        "decode",
        "sampling",
        "small",
    }
    for one in ones:
        assert one.expected is not None
        assert one.expected > max(one.seconds, expected.LAUNCH)
        assert one.why


def test_the_page_is_what_the_command_makes_of_the_compile_table(tmp_path: Path) -> None:
    """`docs/kernels-estimate.md` names the command that makes it anew."""
    page = tmp_path / "page.md"
    options = ["--estimate", *ALL_CARDS, "--compiled", str(TABLE), "--markdown", str(page)]
    done = CliRunner().invoke(kernels_bench, options)
    assert done.exit_code == 0, done.output
    kept, made = (path.read_text().split("\n") for path in (PAGE, page))
    assert [line for line in kept if not line.startswith("Made by")] == [
        line for line in made if not line.startswith("Made by")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("not json", "not JSON lines"),
        ("{}", "not the compile table"),
        ("", "no row for forward_kernel"),
    ],
)  # fmt: skip
def test_a_compile_table_that_is_none_is_refused_in_one_line(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path, page = tmp_path / "rows.jsonl", tmp_path / "page.md"
    if text is not None:
        path.write_text(text)
    done = CliRunner().invoke(
        kernels_bench, ["--estimate", "--compiled", str(path), "--markdown", str(page)], standalone_mode=False
    )
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not page.exists()


def test_what_an_estimate_takes_is_refused_without_one(tmp_path: Path) -> None:
    done = CliRunner().invoke(kernels_bench, ["--markdown", str(tmp_path / "page.md")], standalone_mode=False)
    assert isinstance(done.exception, UserError)
    assert "add --estimate" in str(done.exception)
