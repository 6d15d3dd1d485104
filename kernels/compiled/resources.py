"""What a compiled kernel takes of a GPU, read from the binary by the makers' own tools."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import triton

from bytegen.kernels.architectures import Architecture


class Resources(NamedTuple):
    """Of one kernel: registers a thread, spills (stores to local memory), shared bytes a block, tensor cores."""

    registers: int
    spills: int
    shared: int
    tensor_core: list[str]  # the names of the instructions
    bulk_copies: bool  # whether tiles come by TMA


def _tool(name: str) -> str:
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def resources(kernel: Any, architecture: Architecture) -> Resources:
    """Read a kernel that `triton.compile` made."""
    shared = int(kernel.metadata.shared)
    if architecture.backend == "hip":
        return _of_amd(kernel.asm["amdgcn"], shared)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(kernel.asm["cubin"])
        usage = _run([_tool("cuobjdump"), "--dump-resource-usage", str(path)])
        code = _run([_tool("nvdisasm"), "-c", str(path)])
    registers = max(int(x) for x in re.findall(r"REG:(\d+)", usage))
    spills = len(re.findall(r"\bSTL\b", code))
    ptx = kernel.asm["ptx"]
    found = [name for name in ("tcgen05.mma", "wgmma.mma_async", "mma.sync") if name in ptx]
    return Resources(registers, spills, shared, found, "cp.async.bulk.tensor" in ptx)


def _of_amd(assembly: str, shared: int) -> Resources:
    def field(name: str) -> int:
        return max((int(x) for x in re.findall(rf"\.{name}:\s+(\d+)", assembly)), default=0)

    found = ["mfma"] if "v_mfma" in assembly else []
    return Resources(field("vgpr_count"), field("vgpr_spill_count"), shared, found, False)
