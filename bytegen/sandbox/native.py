"""Runs a program on this machine's own kernel, inside bubblewrap: opt-in, for programs half trusted.

The program sees no files but itself, no network, no other processes, and limits on processor time, memory and
file size. It needs `bwrap` (https://github.com/containers/bubblewrap) on a Linux x86-64 host.
"""

from __future__ import annotations

import os
import platform
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bytegen.errors import UserError
from bytegen.sandbox.linux.elf import read_elf
from bytegen.sandbox.result import Fault, Result, signal_name

_CHUNK = 1 << 16


def run_native(
    data: bytes,
    *,
    stdin: bytes = b"",
    timeout: float = 10.0,
    max_output: int = 1 << 20,
    memory: int = 256 << 20,
) -> Result:
    """Run `data` under bubblewrap; the result has no instruction count and no system calls.

    Raises UserError where the host is not Linux on x86-64, bubblewrap is missing or cannot start, or `data`
    is no program.
    """
    read_elf(data)
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "AMD64"):
        raise UserError("--native needs a Linux x86-64 machine: leave it out to run in the emulator")
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise UserError(
            "--native needs bubblewrap (the command bwrap): install the package bubblewrap, or leave it out"
        )
    with tempfile.TemporaryDirectory(prefix="bytegen-") as folder:
        program = Path(folder) / "program"
        program.write_bytes(data)
        program.chmod(0o555)
        command = [
            bwrap,
            "--unshare-all",
            "--die-with-parent",
            "--new-session",
            "--clearenv",
            "--cap-drop",
            "ALL",
        ]
        command += ["--ro-bind", str(program), "/program", "--chdir", "/", "--", "/program"]
        began = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-I", "-c", _LIMITER, str(memory), str(max(int(timeout + 1), 1)), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            stdout, stderr, limit = _collect(child, stdin, began + timeout, max_output)
        finally:
            _kill(child)
        return _result(child.returncode, stdout, stderr, limit, time.perf_counter() - began)


# Sets the limits in a process of its own (a preexec function is unsafe beside threads), then becomes bwrap.
_LIMITER = """
import os, resource, sys
memory, seconds, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
for kind, value in (("AS", memory), ("CPU", seconds), ("FSIZE", 0), ("CORE", 0), ("NOFILE", 64)):
    resource.setrlimit(getattr(resource, "RLIMIT_" + kind), (value, value))
os.execv(command[0], command)
"""


def _collect(
    child: subprocess.Popen[bytes], stdin: bytes, deadline: float, max_output: int
) -> tuple[bytes, bytes, str | None]:
    """Feed stdin and read both streams until they close or a limit is passed."""
    assert child.stdout is not None
    assert child.stderr is not None
    feeder = threading.Thread(target=_feed, args=(child, stdin), daemon=True)
    feeder.start()
    streams = {child.stdout: bytearray(), child.stderr: bytearray()}
    limit = None
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map() and limit is None:
            left = deadline - time.perf_counter()
            events = selector.select(max(left, 0))
            if not events and left <= 0:
                limit = "time"
            for key, _ in events:
                piece = os.read(key.fd, _CHUNK)
                if not piece:
                    selector.unregister(key.fileobj)
                    continue
                room = max_output - sum(map(len, streams.values()))
                streams[key.fileobj] += piece[:room]  # type: ignore[index]
                if len(piece) > room:
                    limit = "output"
    if limit is None:
        try:
            child.wait(max(deadline - time.perf_counter(), 0.1))
        except subprocess.TimeoutExpired:
            limit = "time"
    return bytes(streams[child.stdout]), bytes(streams[child.stderr]), limit


def _feed(child: subprocess.Popen[bytes], stdin: bytes) -> None:
    assert child.stdin is not None
    try:
        child.stdin.write(stdin)
        child.stdin.close()
    except OSError:  # the program closed its end or died: not an error of ours
        return


def _kill(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()


def _result(code: int, stdout: bytes, stderr: bytes, limit: str | None, seconds: float) -> Result:
    if limit is None and code == 1 and stderr.startswith(b"bwrap: "):
        raise UserError("bubblewrap cannot start here: " + stderr.decode(errors="replace").strip())
    fault = None
    number = (
        -code if code < 0 else code - 128 if 128 < code <= 128 + 64 else 0
    )  # bwrap passes signals on as a shell does
    if limit is None and number:
        fault = Fault("signal", signal_name(number), 0)
    exit_code = code if limit is None and fault is None else None
    return Result(stdout, stderr, exit_code, fault, limit, 0, seconds=seconds)
