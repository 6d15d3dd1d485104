"""Kernels compiled ahead of time: the table that is kept holds to the sources, and shows neither spills nor misfits."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")
from bytegen.kernels.architectures import ARCHITECTURES
from bytegen.kernels.attention.fused.configs import Kernel, tile_for

ATTENTION = ("forward_kernel", "dq_kernel", "dkdv_kernel")
TABLE = Path(__file__).parents[2] / "benchmarks" / "compiled.jsonl"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    """The table's program in a process of its own: here triton interprets."""
    return subprocess.run(
        [sys.executable, "-m", "bytegen.kernels.compiled", *options],
        capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "0"}, timeout=900,
    )  # fmt: skip


def kept() -> list[dict[str, Any]]:
    """The rows of the table, built by `make compiled`."""
    return [json.loads(line) for line in TABLE.read_text().splitlines()]


@pytest.mark.slow
def test_every_row_that_the_sources_ask_for_is_there_and_no_other() -> None:
    import triton

    if {row["triton"] for row in kept()} != {triton.__version__}:
        pytest.skip(f"the table is of another triton than {triton.__version__}, which is installed")
    done = run("--check", "--json", str(TABLE))
    assert " 0 missing, 0 of other sources, 0 with a complaint" in done.stdout, (
        f"{done.stdout}{done.stderr}\nmake compiled builds it anew"
    )
    assert done.returncode == 0


@pytest.mark.slow
def test_a_row_taken_out_and_a_row_that_spills_fail_the_check(tmp_path: Path) -> None:
    import triton

    first, spilling, *rest = kept()
    if first["triton"] != triton.__version__:
        pytest.skip(f"the table is of another triton than {triton.__version__}, which is installed")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (spilling | {"spills": 1}, *rest)))
    done = run("--check", "--json", str(path))
    assert " 1 missing, 0 of other sources, 1 with a complaint" in done.stdout, done.stdout
    assert done.returncode == 1


def test_no_row_of_the_table_has_a_complaint() -> None:
    from bytegen.kernels.compiled import table

    assert {f"{row['kernel']} {row['architecture']} {row['head_dim']} {row['dtype']}": table.complaints(row)
            for row in kept() if table.complaints(row)} == {}  # fmt: skip


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_nothing_spills_and_products_of_16_bits_take_the_newest_tensor_core_instruction(
    architecture: str,
) -> None:
    newest = {"sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma", "gfx942": "mfma"}.get(
        architecture, "mma.sync"
    )
    rows = [row for row in kept() if row["architecture"] == architecture]
    assert {row["spills"] for row in rows} == {0}
    attention = [row for row in rows if row["kernel"] in ATTENTION and row["dtype"] != "float32"]
    assert attention
    for row in attention:
        assert newest in row["tensor_core"], row


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_every_tile_that_a_launch_may_take_is_in_the_table(architecture: str) -> None:
    compiled = {
        (row["kernel"], 32 if row["dtype"] == "float32" else 16,
         *(row["config"][name] for name in ("BLOCK_Q", "BLOCK_K", "num_warps", "num_stages", "DESCRIPTORS")))
        for row in kept() if row["architecture"] == architecture and row["kernel"] in ATTENTION
    }  # fmt: skip
    kernels: tuple[Kernel, ...] = ("forward", "dq", "dkdv")
    for kernel in kernels:
        for head_dim in (16, 32, 64, 96, 128, 256):
            for bits, descriptors in ((16, True), (16, False), (32, True)):
                tile = tile_for(ARCHITECTURES[architecture], kernel, head_dim, bits, descriptors)
                assert (f"{kernel}_kernel", bits, *tile[:5]) in compiled, (kernel, head_dim, tile)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_every_kernel_and_dtype_is_compiled_for_every_architecture(architecture: str) -> None:
    held = {
        (row["kernel"], row["dtype"], row["head_dim"])
        for row in kept()
        if row["architecture"] == architecture
    }
    by_dtype = {"bfloat16": (64, 128, 256), "float16": (128,), "float32": (128, 256)}
    assert held >= {
        (kernel, dtype, dim)
        for kernel in (*ATTENTION, "split_kernel")
        for dtype, dims in by_dtype.items()
        for dim in dims
    }
    assert {kernel for kernel, _, dim in held if not dim} == {
        "sample.sample_kernel", "rms_norm.forward_kernel", "rms_norm.backward_kernel", "swiglu.forward_kernel",
        "swiglu.backward_kernel", "rope.rope_kernel", "rope.norm_backward_kernel", "cross_entropy.forward_kernel",
        "cross_entropy.backward_kernel",
    }  # fmt: skip


def test_gluon_s_rows_have_partitions_with_registers_of_their_own_and_exponentials_under_products() -> None:
    rows = [row for row in kept() if row["kernel"] == "hopper_forward_kernel"]
    assert {(row["head_dim"], row["dtype"]) for row in rows} == {
        (64, "bfloat16"), (128, "bfloat16"), (128, "float16"), (256, "bfloat16")}  # fmt: skip
    for row in rows:
        assert row["architecture"] == "sm_90"
        assert row["bulk_copies"]
        assert {240, 24} <= set(row["register_limits"])
        # Of 65,536 registers: what partitions give back is what others take.
        assert row["registers"] * 384 <= 65_536
        assert not row["serialized"]
        assert row["overlapped"] == 1.0


def test_what_keeps_partitions_from_overlapping_is_a_complaint() -> None:
    from bytegen.kernels.compiled import table

    row = next(row for row in kept() if row["kernel"] == "hopper_forward_kernel")
    assert table.complaints(row) == []
    for fault, message in (
        ({"bulk_copies": False}, "tiles do not come by TMA"),
        ({"register_limits": [168]}, "register limits [168] where 240 and 24 belong"),
        ({"serialized": True}, "products wait for each other"),
        ({"overlapped": 0.5}, "50% of the exponentials run under a product"),
    ):
        assert table.complaints(row | fault) == [message]


@pytest.mark.parametrize(
    ("code", "share"),
    [
        ("HGMMA; HGMMA; DEPBAR1; MUFU; MUFU; DEPBAR0; HGMMA", 1.0),
        ("HGMMA; HGMMA; DEPBAR1; DEPBAR0; MUFU; MUFU; HGMMA", 0.0),
        (
            "HGMMA; DEPBAR0; MUFU; HGMMA; DEPBAR1; MUFU; MUFU; MUFU; DEPBAR0; MUFU",
            0.75,
        ),  # the first tile does not count
        ("HGMMA; DEPBAR0; MUFU", 0.0),
    ],
)
def test_exponentials_are_counted_between_the_wait_for_scores_and_that_for_the_output(
    code: str, share: float
) -> None:
    from bytegen.kernels.compiled.resources import overlap

    for name in "01":
        code = code.replace(f"DEPBAR{name}", f"WARPGROUP.DEPBAR.LE gsb0, 0x{name}")
    assert (
        overlap(code.replace("MUFU", "MUFU.EX2 R1, R2").replace("HGMMA", "HGMMA.64x128x16.F32 R24")) == share
    )


_READ_TOO_EARLY = """
from types import SimpleNamespace
from bytegen.kernels.architectures import ARCHITECTURES
from bytegen.kernels.compiled import capture, resources
from bytegen.kernels.compiled.jobs import jobs
job = next(job for job in jobs(["sm_90"]) if job.kernel == "hopper_forward_kernel")
hopper = ARCHITECTURES["sm_90"]
asm = capture.compile_launch(job.launch, hopper).asm
early = asm["ptx"].replace("wgmma.wait_group.sync.aligned \t1;", "wgmma.wait_group.sync.aligned \t2;")
early = early.replace("wgmma.wait_group.sync.aligned 1;", "wgmma.wait_group.sync.aligned 2;")
assert early != asm["ptx"]
for ptx in (asm["ptx"], early):
    print(resources.specialized(SimpleNamespace(asm={"ptx": ptx}), hopper).serialized)
"""


@pytest.mark.slow
def test_the_assembler_sees_scores_that_are_read_before_they_were_waited_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _READ_TOO_EARLY],
        capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "0"}, timeout=300,
    )  # fmt: skip
    assert done.stdout.split() == ["False", "True"], done.stderr


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
           "spills": 3, "shared": 300_000, "tensor_core": ["mma.sync"], "bulk_copies": False, "config": {}}  # fmt: skip
    assert len(table.complaints(row)) == 3
    fine: dict[str, Any] = {"spills": 0, "shared": 0, "kernel": "split_kernel"}
    assert table.complaints(row | fine | {"config": {"ROWS": 16}}) == []
    assert table.complaints(row | fine | {"config": {"ROWS": 64}}) == [
        "mma.sync where wgmma.mma_async belongs"
    ]
    assert table.complaints(row | fine | {"architecture": "gfx942"}) == ["mma.sync where mfma belongs"]
    assert (
        table.complaints(row | fine | {"architecture": "sm_86", "dtype": "float32", "tensor_core": []}) == []
    )
    assert table.complaints({"error": "OutOfResources: x"}) == ["OutOfResources: x"]
