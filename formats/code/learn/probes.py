"""A fixed set of strings whose answers tell one capstone from another: its version string does not."""

from __future__ import annotations

import hashlib

_COUNT = 20_000


def probe_strings(machine: str) -> list[bytes]:
    """The strings: SHA-256 of machine and number, cut to 15 bytes (4 on AArch64)."""
    size = 4 if machine == "aarch64" else 15
    return [hashlib.sha256(f"{machine} {i}".encode()).digest()[:size] for i in range(_COUNT)]


def probe_hash(machine: str) -> str:
    """SHA-256 of capstone's answers (size and mnemonic of the first instruction) to the probe strings."""
    import capstone

    modes = {
        "x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
        "i386": (capstone.CS_ARCH_X86, capstone.CS_MODE_32),
        "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
    }
    machine_code = capstone.Cs(*modes[machine])
    digest = hashlib.sha256()
    for string in probe_strings(machine):
        answer = next(machine_code.disasm_lite(string, 0, 1), None)
        digest.update(repr(answer and (answer[1], answer[2])).encode())
    return digest.hexdigest()
