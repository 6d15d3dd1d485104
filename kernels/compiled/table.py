"""The table of what the shipped kernels take of each GPU: built in pieces, kept as JSON lines, held to the sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import triton

from bytegen.kernels.architectures import ARCHITECTURES
from bytegen.kernels.compiled.capture import compile_launch, fingerprint
from bytegen.kernels.compiled.jobs import Job
from bytegen.kernels.compiled.resources import resources, specialized

Row = dict[str, Any]

_ATTENTION = ("forward_kernel", "dq_kernel", "dkdv_kernel", "hopper_forward_kernel")
_TENSOR_CORE = {"sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma", "gfx942": "mfma"}


def key(job: Job) -> Row:
    """What names a row; equal keys are the same code."""
    return {
        "kernel": job.kernel,
        "architecture": job.architecture,
        "dtype": job.dtype,
        "head_dim": job.head_dim,
        "variant": job.variant,
        "config": job.config,
        "triton": triton.__version__,
        "sha256": fingerprint(job.launch),
    }


def compiled(job: Job) -> Row:
    """Compile a job: its row holds what names it and what it takes, or the compiler's error."""
    architecture = ARCHITECTURES[job.architecture]
    try:
        kernel = compile_launch(job.launch, architecture)
        row = key(job) | resources(kernel, architecture)._asdict()
        return row | specialized(kernel, architecture)._asdict() if _has_partitions(job.kernel) else row
    except Exception as error:
        return key(job) | {"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"}


def kept(rows: list[Row], job: Job) -> Row | None:
    """The row of a job among `rows`, where it is of these sources, this configuration and this triton."""
    wanted = key(job)
    return next((row for row in rows if all(row.get(name) == value for name, value in wanted.items())), None)


def _has_partitions(kernel: str) -> bool:
    return kernel == "hopper_forward_kernel"


def tensor_core(row: Row) -> str | None:
    """The instruction that a row's products belong on: of 16 bits, in attention and decoding; else None."""
    if row["kernel"] not in (*_ATTENTION, "split_kernel") or row["dtype"] == "float32":
        return None
    # A tile of queries of one new position is too low for a warp group's instruction, which takes 64 rows.
    low = row["architecture"] in ("sm_90", "sm_100") and row["config"].get("ROWS", 64) < 64
    return "mma.sync" if low else _TENSOR_CORE.get(row["architecture"], "mma.sync")


def complaints(row: Row) -> list[str]:
    """What a row breaks: it compiles, spills nothing, fits, and uses the tensor cores it should."""
    if "error" in row:
        return [row["error"]]
    found = []
    architecture = ARCHITECTURES[row["architecture"]]
    if row["spills"]:
        found.append(f"{row['spills']} spills")
    if row["shared"] > architecture.shared_bytes:
        found.append(
            f"{row['shared']} bytes of shared memory; {architecture.name} has {architecture.shared_bytes}"
        )
    wanted = tensor_core(row)
    if wanted is not None and wanted not in row["tensor_core"]:
        found.append(f"{' and '.join(row['tensor_core']) or 'no tensor core'} where {wanted} belongs")
    if _has_partitions(row["kernel"]):
        found += _complaints_of_partitions(row)
    return found


def _complaints_of_partitions(row: Row) -> list[str]:
    """What keeps partitions from working beside each other."""
    found = []
    if not row["bulk_copies"]:
        found.append("tiles do not come by TMA")
    if not {240, 24} <= set(row["register_limits"]):
        found.append(f"register limits {row['register_limits']} where 240 and 24 belong")
    if row["serialized"]:
        found.append("products wait for each other")
    if row["overlapped"] < 0.9:
        found.append(f"{row['overlapped']:.0%} of the exponentials run under a product")
    return found


def write(path: Path, rows: list[Row]) -> None:
    """Write the rows as JSON lines, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
    partial.replace(path)


def read(path: Path) -> list[Row]:
    """The rows of a written table; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
