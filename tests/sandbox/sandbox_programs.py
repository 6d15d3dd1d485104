"""Small programs for the tests of the sandbox: hand-written machine code, and C compiled by zig or gcc."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

BASE = 0x400000
CODE = BASE + 120
EXIT = bytes.fromhex("b83c0000000f05")  # exit(edi)
R, W, X = 4, 2, 1


def code(*parts: str | bytes | int) -> bytes:
    """Bytes from hex strings, bytes, and ints as 32-bit little-endian words."""
    out = b""
    for part in parts:
        if isinstance(part, str):
            out += bytes.fromhex(part.replace(" ", ""))
        elif isinstance(part, int):
            out += struct.pack("<I", part & 0xFFFFFFFF)
        else:
            out += part
    return out


def header(phnum: int = 1, entry: int = CODE, e_type: int = 2, machine: int = 62, phoff: int = 64) -> bytes:
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    return ident + struct.pack(
        "<HHIQQQIHHHHHH", e_type, machine, 1, entry, phoff, 0, 0, 64, 56, phnum, 0, 0, 0
    )


def segment(flags: int, offset: int, vaddr: int, filesz: int, memsz: int, p_type: int = 1) -> bytes:
    return struct.pack("<IIQQQQQQ", p_type, flags, offset, vaddr, vaddr, filesz, memsz, 4096)


def program(body: bytes, flags: int = R | X, memsz: int | None = None) -> bytes:
    """An ELF file of one segment with `body` right behind the headers, entered at its first byte."""
    size = 120 + len(body)
    return header() + segment(flags, 0, BASE, size, memsz or size) + body


def run_native(data: bytes, folder: Path, stdin: bytes = b"") -> tuple[int, bytes]:
    """Run one of the tests' own programs on this machine: return code (negative: a signal) and stdout."""
    path = folder / "native"
    path.write_bytes(data)
    path.chmod(0o755)
    done = subprocess.run([path], input=stdin, capture_output=True, timeout=20, check=False, env={})
    return done.returncode, done.stdout


def can_run_native() -> bool:
    return sys.platform == "linux" and os.uname().machine == "x86_64"


def zig_c(source: str, folder: Path, *flags: str) -> bytes:
    """Compile C to a static musl program."""
    (folder / "main.c").write_text(source)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl", "-static"]
    command += [*flags, "main.c", "-o", "main"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return (folder / "main").read_bytes()


def gcc_c(source: str, folder: Path, *flags: str) -> bytes | None:
    """Compile C to a static glibc program; None where gcc or a static glibc is missing."""
    if shutil.which("gcc") is None:
        return None
    (folder / "main.c").write_text(source)
    done = subprocess.run(
        ["gcc", *flags, "main.c", "-o", "main", "-lm"], cwd=folder, capture_output=True, check=False
    )
    return (folder / "main").read_bytes() if done.returncode == 0 else None
