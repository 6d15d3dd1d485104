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


class Specialized(NamedTuple):
    """What a kernel of asynchronous products and partitions came out as."""

    register_limits: list[int]  # that partitions set for themselves
    serialized: bool  # whether the assembler waits for each product, which it does where it finds a hazard
    overlapped: float  # of the exponentials of the loops, the share that runs while a product is in flight


def specialized(kernel: Any, architecture: Architecture) -> Specialized:
    """Read a kernel with partitions: its PTX, what the assembler says of it, the order of its instructions."""
    from triton.backends.nvidia.compiler import get_ptxas

    ptx = kernel.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        text, binary = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        text.write_text(ptx)
        command = [get_ptxas(architecture.target).path, "-v", f"--gpu-name=sm_{architecture.target}a"]
        said = subprocess.run(
            [*command, str(text), "-o", str(binary)], check=True, capture_output=True, text=True
        )
        code = _run([_tool("nvdisasm"), "-c", str(binary)])
    # From the disassembly: where the assembler ignores them (C7508), the PTX still has them.
    limits = sorted({int(x, 16) for x in re.findall(r"USETMAXREG\.\S+ (?:UP\d, )?0x([0-9a-f]+)", code)})
    return Specialized(limits, "wgmma.mma_async instructions are serialized" in said.stderr, overlap(code))


_MOMENTS = re.compile(r"WARPGROUP\.DEPBAR\.LE gsb0, 0x(\d)|\b(MUFU\.EX2)\b|\b(HGMMA)\b")


def overlap(code: str) -> float:
    """Of the exponentials after a wait that leaves a product in flight, the share before the wait that leaves none.

    `code` is a disassembly; those between two such waits and the next product belong to one step of a loop.
    """
    during = after = 0
    pending, within = False, False
    for match in _MOMENTS.finditer(code):
        left, exponential, product = match.groups()
        if left is not None:
            pending = left != "0"
            within = within or pending
        elif product:
            within = False
        elif exponential and within:
            during, after = during + pending, after + (not pending)
    return during / max(1, during + after)


def _of_amd(assembly: str, shared: int) -> Resources:
    def field(name: str) -> int:
        return max((int(x) for x in re.findall(rf"\.{name}:\s+(\d+)", assembly)), default=0)

    found = ["mfma"] if "v_mfma" in assembly else []
    return Resources(field("vgpr_count"), field("vgpr_spill_count"), shared, found, False)
