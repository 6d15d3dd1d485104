"""`bytegen bench long` and `bytegen bench decode`: small files and small shapes, and what their rows promise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bytegen.cache import Cache
from bytegen.cli import bench_decode
from bytegen.cli.bench_decode import FILES, random_model, whole_file
from bytegen.cli.bench_long import PARTS, cache_sizes
from bytegen.cli.main import cli
from bytegen.config import PRESETS
from bytegen.model import ByteLM
from bytegen.weights import save_model


def bench(*arguments: str | Path) -> list[dict]:
    done = CliRunner().invoke(cli, ["bench", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in Path(arguments[-1]).read_text().splitlines()]


@pytest.mark.parametrize("drafts", ["--drafts", "--no-drafts"])
def test_a_file_has_the_length_asked_for_and_the_row_says_what_it_took(tmp_path: Path, drafts: str) -> None:
    torch.manual_seed(0)
    save_model(ByteLM(PRESETS["nano"]), tmp_path / "model")
    out = tmp_path / "file"
    options = ["--bytes", "777", "--model", tmp_path / "model", drafts, "-o", out]
    (row,) = bench("long", "anything", *options, "--json", tmp_path / "rows")
    assert row["bytes"] == out.stat().st_size == 777
    assert row["problems"] == []
    assert row["kernel_accepts"] in (True, None)
    assert row["drafts"] == (drafts == "--drafts") == (row["drafted"] > 0)
    assert len(row["seconds_at_parts"]) == PARTS
    assert row["seconds_at_parts"] == sorted(row["seconds_at_parts"])
    # The config counts float32; the decoder may hold float16, and makes buffers for some positions more.
    assert row["cache_bytes_as_it_is"] / 2 <= row["cache_bytes"] < 1.2 * row["cache_bytes_all_global"]
    assert row["cache_bytes_as_it_is"] < row["cache_bytes_all_global"]
    assert {"cpu", "cores", "versions", "commit", "date"} <= set(row)


@given(st.integers(1, 160_000), st.integers(1, 300))
def test_all_global_caches_are_what_a_model_of_global_layers_would_hold(positions: int, chunk: int) -> None:
    config = PRESETS["packaged"]
    sizes = cache_sizes(config, positions, chunk)
    conv = config.n_layers * config.dim * (config.conv_taps - 1 + chunk)
    keys = 2 * config.n_kv_heads * config.head_dim * positions * config.n_layers
    assert sizes["all_global"] == 4 * (keys + conv)
    assert sizes["as_it_is"] <= sizes["all_global"]


def test_decoding_of_a_shape_is_timed_deep_into_its_context(tmp_path: Path) -> None:
    options = ["--shape", "nano", "--context", "300", "--device", "cpu", "--seconds", "0.01", "--files", "2"]
    rows = bench("decode", *options, "--batch", "1", "--batch", "3", "--json", tmp_path / "rows")
    *stepped, written = rows
    assert [row["batch"] for row in stepped] == [1, 3]
    for row in stepped:
        assert len(row["step_seconds_eager"]) == 3
        assert row["dtype"] == "torch.bfloat16"
        config = PRESETS["nano"]
        cache = Cache(config, batch=row["batch"], max_length=300, chunk=1, dtype=torch.bfloat16)
        cache.seek(299)
        cache.reserve(1)
        assert 0.95 * row["cache_bytes"] <= cache.nbytes() <= 1.05 * row["cache_bytes"]
        steps = -(-FILES // row["batch"]) * 300
        least, most = min(row["step_seconds_eager"]), max(row["step_seconds_eager"])
        assert steps * least <= row["seconds_for_files"] <= steps * most * (1 + 1e-9)
    assert written["files"] == 2
    assert written["bytes"] == 600
    assert all({"beside", "gpu", "commit"} <= set(row) for row in rows)


@given(st.floats(0, 1), st.floats(0, 1e-4), st.integers(3, 10_000))
def test_the_time_of_a_file_is_the_sum_of_steps_that_grow_evenly(
    least: float, growth: float, context: int
) -> None:
    exact = sum(least + growth * i for i in range(context))
    ends = [least, least + growth * (context - 1) / 2, least + growth * (context - 1)]
    assert whole_file(ends, context) == pytest.approx(exact)


def test_random_models_have_finite_logits() -> None:
    for name in ("nano", "7b"):
        config = PRESETS[name]
        if name == "7b":  # its kinds of weights, at sizes for a test
            config = type(config)(**{**vars(config), "dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2,
                                     "head_dim": 8, "ffn_dim": 48})  # fmt: skip
        lm = random_model(config, torch.device("cpu"), torch.float32)
        with torch.no_grad():
            logits = lm(torch.arange(40).unsqueeze(0))
        assert bool(logits.isfinite().all())
        assert float(logits.std()) > 0.1


def test_what_memory_does_not_hold_is_said_and_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["decode", "--shape", "nano", "--context", "3000", "--device", "cpu", "--seconds", "0.01"]
    weights = PRESETS["nano"].n_params() * 2
    monkeypatch.setattr(bench_decode, "memory_left", lambda _: weights)
    (row,) = bench(*options, "--batch", "9", "--json", tmp_path / "rows")
    assert "are free" in row["absent"]
    assert "bytes_per_second" not in row
    monkeypatch.setattr(bench_decode, "memory_left", lambda _: weights - 1)
    done = CliRunner().invoke(cli, ["bench", *options])
    assert done.exit_code == 2
    assert "smaller --shape" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["long", "--bytes", "5"], "smallest"),
        (["long", "--bytes", "200000"], "context"),
        (["long", "-o", "nowhere/file"], "folder"),
        (["decode", "--shape", "9t"], "no preset '9t'"),
        (["decode", "--shape", "nano", "--context", "200000"], "163840 positions"),
        (["decode", "--shape", "nano", "--device", "abacus"], "abacus"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], word: str) -> None:
    done = CliRunner().invoke(cli, ["bench", *arguments])
    assert done.exit_code == 2
    assert word in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
