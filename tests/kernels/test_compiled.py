"""Kernels compiled ahead of time for GPUs that are not there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def compiled(tmp_path: Path, *options: str) -> tuple[int, list[dict]]:
    """The table's program in a process of its own: here triton interprets."""
    out = tmp_path / "rows.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "bytegen.kernels.compiled", "--json", str(out), *options],
        capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "0"}, timeout=900,
    )  # fmt: skip
    assert out.exists(), done.stderr[-2000:]
    return done.returncode, [json.loads(line) for line in out.read_text().splitlines()[1:]]


@pytest.mark.slow
def test_small_kernels_compile_for_hopper_and_for_amd(tmp_path: Path) -> None:
    code, rows = compiled(
        tmp_path, "--architecture", "sm_90", "--architecture", "gfx942", "--kernel", "sample"
    )
    assert code == 0
    assert [row["spills"] for row in rows] == [0] * 4


def test_a_spill_and_a_missing_tensor_core_are_complaints() -> None:
    from bytegen.kernels.compiled import table

    row = {"kernel": "forward_kernel", "architecture": "sm_90", "bits": 16, "registers": 255, "spills": 3,
           "shared": 300_000, "tensor_core": "mma.sync", "bulk_copies": False}  # fmt: skip
    assert len(table.complaints(row)) == 3
    assert table.complaints({"error": "OutOfResources: x"}) == ["OutOfResources: x"]
