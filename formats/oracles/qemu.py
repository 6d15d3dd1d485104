"""QEMU's user-mode loader as a judge for machines that this one is not: stopped before the first instruction.

With `-g` qemu maps the file (and its interpreter), then waits for a debugger before it runs anything. The
debugger here asks once where the program stands and kills it (GDB remote serial protocol). Nothing of the
file ever runs.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from bytegen.formats.oracles.kernel import ExecResult

_PROGRAMS = {"elf64-aarch64": "qemu-aarch64", "elf32-i386": "qemu-i386", "elf64-x86_64": "qemu-x86_64"}
_ROOTS = {"elf64-aarch64": ("/usr/aarch64-linux-gnu",), "elf32-i386": (), "elf64-x86_64": ()}
_PAUSE = 0.01


def library_roots(format: str) -> tuple[str, ...]:
    """Folders that stand for the root of that machine's file system."""
    return _ROOTS.get(format, ())


def qemu_command(format: str) -> list[str] | None:
    """The emulator for a format, with the folder of that machine's libraries; None where it is missing."""
    program = shutil.which(_PROGRAMS.get(format, ""))
    if program is None:
        return None
    root = next((root for root in _ROOTS[format] if os.path.isdir(root)), None)
    return [program, *(("-L", root) if root else ())]


def qemu_accepts(program: str | os.PathLike[str] | bytes, format: str, timeout: float = 20.0) -> ExecResult:
    """Asks QEMU's loader whether it would start a program (a path, or the file's bytes) of that format.

    `entry` and `entry_executable` are None: the debugger's protocol does not tell. Raises FileNotFoundError
    where there is no emulator for the format.
    """
    command = qemu_command(format)
    if command is None:
        raise FileNotFoundError(f"no emulator for {format}: {_PROGRAMS.get(format, 'none known')}")
    with tempfile.TemporaryDirectory(prefix="bytegen-qemu-") as folder:
        path = Path(os.fspath(program)) if not isinstance(program, bytes) else Path(folder) / "program"
        if isinstance(program, bytes):
            path.write_bytes(program)
            path.chmod(0o700)
        gate = os.path.join(folder, "gdb")
        child = subprocess.Popen(
            [*command, "-g", gate, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"LC_ALL": "C"},
        )
        try:
            return _ask(child, gate, time.monotonic() + timeout)
        finally:
            child.kill()
            child.wait()
            if child.stderr is not None:
                child.stderr.close()


def _ask(child: subprocess.Popen[bytes], gate: str, deadline: float) -> ExecResult:
    with socket.socket(socket.AF_UNIX) as debugger:
        debugger.settimeout(max(0.1, deadline - time.monotonic()))
        while True:
            try:
                debugger.connect(gate)
                break
            except OSError:
                if child.poll() is not None:
                    assert child.stderr is not None
                    said = child.stderr.read().decode(errors="replace").strip().splitlines()
                    return ExecResult(False, said[-1][:200] if said else f"exit {child.returncode}")
                if time.monotonic() > deadline:
                    return ExecResult(False, "no answer in time")
                time.sleep(_PAUSE)
        try:
            debugger.sendall(b"$?#3f")
            answer = b""
            while b"#" not in answer:
                part = debugger.recv(4096)
                if not part:
                    return ExecResult(False, "the emulator closed the connection")
                answer += part
            debugger.sendall(b"+$k#6b")
        except OSError as error:
            return ExecResult(False, f"no answer: {error}")
    stopped = answer.lstrip(b"+").startswith((b"$T05", b"$S05"))
    return ExecResult(stopped, "loads" if stopped else answer.decode(errors="replace"))
