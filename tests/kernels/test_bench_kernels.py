"""`bytegen bench kernels` on a CPU, at sizes of a test: every row is labelled, checked or absent with its reason."""

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen.cli.bench_kernels import kernels_bench
from bytegen.errors import UserError
from bytegen.kernel_bench import apart, cases, peers
from bytegen.kernel_bench.estimate import Sizes
from bytegen.kernels import decode_attention

Bench = Callable[..., tuple[Result, list[dict[str, Any]]]]


def _no_flex(*_: object) -> object:
    raise RuntimeError("no compiler\nfor it")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    """Runs the command at small sizes, without FlexAttention (its compilation takes a minute); gives its rows."""
    monkeypatch.setattr(cases, "CPU", Sizes(48, 16, 2, 1, 8, 32, 16, (1, 3)))
    monkeypatch.setattr(peers, "_flex", _no_flex)

    def run(*options: str) -> tuple[Result, list[dict[str, Any]]]:
        path = tmp_path / "rows.jsonl"
        done = CliRunner().invoke(
            kernels_bench, ["--device", "cpu", "--seconds", "0.01", "--json", str(path), *options]
        )
        return done, [json.loads(line) for line in path.read_text().splitlines()]

    return run


def test_attention_is_timed_beside_its_twin_and_sdpa_and_what_cannot_run_says_why(bench: Bench) -> None:
    done, rows = bench("--only", "attention", "--length", "48", "--length", "20")
    assert done.exit_code == 0, done.output
    names = Counter((row["kind"], row["label"], row["length"], row["implementation"]) for row in rows)
    assert set(names.values()) == {1}
    peers_of = {
        "local": {"bytegen", "FlexAttention", "SDPA with a mask"},
        "global": {"bytegen", "blockwise twin", "FlexAttention", "SDPA"},
    }
    for kind in ("attention forward", "attention backward"):
        for label, expected in peers_of.items():
            for length in (20, 48):
                assert {name for *case, name in names if case == [kind, label, length]} == expected
    for row in rows:
        if row["implementation"] == "FlexAttention":
            assert row["absent"] == "RuntimeError: no compiler"
        else:
            assert row["right"]
            assert row["p20"] <= row["seconds"] <= row["p80"]
    assert "no GPU here" in done.output
    assert "local, 20 tokens" in done.output


def test_steps_over_a_ring_and_the_whole_past_are_held_to_float64_with_their_peers(bench: Bench) -> None:
    done, rows = bench("--only", "decode")
    assert done.exit_code == 0, done.output
    assert set(Counter((row["label"], row["implementation"]) for row in rows).values()) == {1}
    assert {row["label"] for row in rows} == {
        "local, batch 1, 1 new", "local, batch 1, 16 new", "local, batch 8, 1 new", "global, batch 1, 1 new",
        "global, batch 1, 16 new"}  # fmt: skip
    assert all(row["right"] for row in rows)


def test_draws_of_another_generator_are_not_checked_and_say_so(bench: Bench) -> None:
    done, rows = bench("--only", "sampling")
    assert done.exit_code == 0, done.output
    assert [row["implementation"] for row in rows if "right" not in row] == ["torch calls"] * 2
    assert "not checked" in done.output


@pytest.mark.parametrize("fault", ["wrong", "absent"])
def test_a_result_of_ours_that_is_wrong_or_missing_fails_the_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def faulty(q: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if q.dtype == torch.float32 and fault == "absent":
            raise ValueError("does not fit")
        return decode_attention(q, *args, **options) * (1.01 if q.dtype == torch.float32 else 1.0)

    monkeypatch.setattr(cases, "decode_attention", faulty)
    done, rows = bench("--only", "decode")
    assert isinstance(done.exception, UserError)
    assert "wrong or absent" in str(done.exception)
    ours = [row for row in rows if row["implementation"] == "bytegen"]
    if fault == "absent":
        assert {row["absent"] for row in ours} == {"ValueError: does not fit"}
    else:
        assert not any(row["right"] for row in ours)


def test_a_row_measured_in_a_process_of_its_own_is_one_like_the_others_or_absent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin stands for what is measured so on a Hopper: same inputs, right. Without a Hopper Gluon says why."""

    def with_others(*args: Any) -> Any:
        forward, backward = pair(*args)
        for name, chosen in (("twin, apart", "torch"), ("bytegen, Gluon", "gluon")):
            request = apart.Request(chosen, *args[:3], "float32", "cpu")
            forward.entries.append(cases.Apart(name, request))
        return forward, backward

    pair = cases._attention_pair
    monkeypatch.setattr(cases, "_attention_pair", with_others)
    done, rows = bench("--only", "attention", "--length", "48")
    assert done.exit_code == 0, done.output
    ours, twins, refused = (
        [row for row in rows if row["kind"] == "attention forward" and row["implementation"] == name]
        for name in ("bytegen", "twin, apart", "bytegen, Gluon")
    )
    assert len(twins) == len(refused) == 2
    for row, like in zip(twins, ours, strict=True):
        assert row.keys() == like.keys()
        assert row["right"]
        assert row["relative_error"] < 1e-6
        assert row["p20"] <= row["seconds"] <= row["p80"]
    for row in refused:
        assert "backend 'gluon' takes tensors on a Hopper GPU (sm_90); got cpu" in row["absent"]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import time; time.sleep(60)", "no result within 2 s"),
        ("import os; os.abort()", "exit code -6: it said nothing"),
        (
            "raise RuntimeError('an illegal memory access')",
            "exit code 1: RuntimeError: an illegal memory access",
        ),
        (
            "import atexit, sys; atexit.register(print, 'leaked', file=sys.stderr); raise ValueError('wrong')",
            "exit code 1: ValueError: wrong",
        ),
        ("print('something else')", "exit code 0: it said nothing"),
    ],
)
def test_a_process_that_hangs_or_crashes_is_ended_and_says_why(program: str, message: str) -> None:
    with pytest.raises(apart.ChildError, match=message):
        apart.result_of([sys.executable, "-c", program], limit=2.0)


@settings(max_examples=40, deadline=None)
@given(
    window=st.none() | st.integers(1, 12),
    n_new=st.integers(1, 5),
    past=st.integers(0, 40),
    slack=st.integers(0, 3),
    seed=st.integers(0, 100),
)
def test_sdpa_on_a_cache_is_the_same_attention(
    window: int | None, n_new: int, past: int, slack: int, seed: int
) -> None:
    """The peer does the work that ours does, before and after a ring wraps."""
    torch.manual_seed(seed)
    capacity = slack + (past + n_new if window is None else window + n_new - 1)
    q = torch.randn(2, n_new, 4, 8, dtype=torch.float64)
    k, v = (torch.randn(2, capacity, 2, 8, dtype=torch.float64) for _ in range(2))
    start = torch.full((2,), past)
    got = peers.sdpa_on_cache(q, k, v, start, window)()
    torch.testing.assert_close(got, decode_attention(q, k, v, start, window=window))
