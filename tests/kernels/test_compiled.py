"""Kernels compiled ahead of time: the table that is kept holds to the sources, and shows neither spills nor misfits."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")
TABLE = Path(__file__).parents[2] / "benchmarks" / "compiled.jsonl"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    """The table's program in a process of its own: here triton interprets."""
    return subprocess.run(
        [sys.executable, "-m", "bytegen.kernels.compiled", *options],
        capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "0"}, timeout=900,
    )  # fmt: skip


def kept() -> list[dict[str, Any]]:
    """The rows of the table, built by `make compiled`."""
    if not TABLE.exists():
        pytest.skip("benchmarks/compiled.jsonl is not there: make compiled builds it (no GPU needed)")
    return [json.loads(line) for line in TABLE.read_text().splitlines()]


@pytest.mark.slow
def test_every_row_is_of_the_sources_configurations_and_triton_that_are_here() -> None:
    import triton

    if {row["triton"] for row in kept()} != {triton.__version__}:
        pytest.skip(f"the table is of another triton than {triton.__version__}, which is installed")
    done = run("--check", "--json", str(TABLE))
    assert " 0 of other sources, " in done.stdout, f"{done.stdout}{done.stderr}\nmake compiled builds it anew"


def test_no_row_of_the_table_has_a_complaint() -> None:
    from bytegen.kernels.compiled import table

    assert {f"{row['kernel']} {row['architecture']} {row['head_dim']} {row['dtype']}": table.complaints(row)
            for row in kept() if table.complaints(row)} == {}  # fmt: skip


def test_the_table_holds_hopper_in_bfloat16_at_every_head_dimension() -> None:
    held = {(row["kernel"], row["head_dim"]) for row in kept()
            if (row["architecture"], row["dtype"]) == ("sm_90", "bfloat16")}  # fmt: skip
    kernels = ("forward_kernel", "dq_kernel", "dkdv_kernel", "split_kernel")
    missing = {(kernel, dim) for kernel in kernels for dim in (64, 128, 256)} - held
    if missing:
        pytest.skip(f"not compiled yet, make compiled does: {sorted(missing)}")


def test_every_spill_that_is_let_stand_has_a_row_and_a_reason() -> None:
    from bytegen.kernels.compiled import table

    held = {(row["kernel"], row["architecture"], row["head_dim"], row["dtype"]): row for row in kept()}
    for key, (most, reason) in table.SPILLS.items():
        assert most
        assert reason
        assert held[key]["spills"] <= most


@pytest.mark.slow
def test_a_piece_of_the_table_is_compiled_and_then_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    options = ("--architecture", "sm_90", "--kernel", "sample", "--json", str(path))
    assert "1 rows, 0 compiled now, 0 missing" not in run(*options, "--seconds", "-1").stdout
    assert path.read_text() == ""
    first = run(*options)
    assert "1 rows, 1 compiled now, 0 missing" in first.stdout, first.stderr
    assert first.returncode == 0
    row = json.loads(path.read_text())
    assert row["spills"] == 0
    assert "1 rows, 0 compiled now, 0 missing" in run(*options, "--seconds", "-1").stdout
    path.write_text(json.dumps(row | {"sha256": "0" * 64}) + "\n")
    assert "1 missing, 1 of other sources" in run(*options, "--check").stdout


def test_a_spill_and_a_missing_tensor_core_are_complaints() -> None:
    from bytegen.kernels.compiled import table

    row = {"kernel": "forward_kernel", "architecture": "sm_90", "dtype": "float16", "head_dim": 64, "registers": 255,
           "spills": 3, "shared": 300_000, "tensor_core": ["mma.sync"], "bulk_copies": False}  # fmt: skip
    assert len(table.complaints(row)) == 3
    assert table.complaints({"error": "OutOfResources: x"}) == ["OutOfResources: x"]
