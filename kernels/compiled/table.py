"""The table of what the shipped kernels take of each GPU: built, kept as JSON lines, compared with the sources."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import triton

from bytegen.kernels.architectures import ARCHITECTURES
from bytegen.kernels.compiled.capture import compile_launch
from bytegen.kernels.compiled.jobs import Job
from bytegen.kernels.compiled.resources import resources

HERE = Path(__file__).parent


def sources_hash() -> str:
    """SHA-256 over the sources of the kernels and their configurations: what the table was made from."""
    folder = HERE.parent
    paths = sorted(p for p in folder.rglob("*.py") if "fused" in p.parts or p.name == "fused.py")
    digest = hashlib.sha256()
    for path in [*paths, folder / "architectures.py"]:
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def key(job: Job) -> dict[str, Any]:
    """What names a row."""
    return {
        name: getattr(job, name)
        for name in ("kernel", "architecture", "variant", "head_dim", "bits", "config")
    }


def rows(jobs: Iterable[Job]) -> Iterator[dict[str, Any]]:
    """Compile each job; a row holds its name and what it takes, or the compiler's error."""
    for job in jobs:
        architecture = ARCHITECTURES[job.architecture]
        row = key(job)
        try:
            row |= resources(compile_launch(job.launch, architecture), architecture)._asdict()
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        yield row


def complaints(row: dict[str, Any]) -> list[str]:
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
    if row["kernel"] in ("forward_kernel", "dq_kernel", "dkdv_kernel") and row["bits"] == 16:
        want = {"sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma", "gfx942": "mfma"}.get(
            architecture.name, "mma.sync"
        )
        if row["tensor_core"] != want:
            found.append(f"{row['tensor_core'] or 'no tensor core'} where {want} belongs")
    return found


def write(path: Path, found: list[dict[str, Any]]) -> None:
    """Write the rows as JSON lines, the first of which names versions and sources."""
    head = {"triton": triton.__version__, "sources_sha256": sources_hash(), "rows": len(found)}
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in [head, *found]))
    partial.replace(path)


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The head and the rows of a written table."""
    head, *found = (json.loads(line) for line in path.read_text().splitlines())
    return head, found
