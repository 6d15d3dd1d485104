"""Examines untrusted files in a child process with limits: a parser crash must not take the caller down."""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from bytegen.formats.libraries import Imports, to_plain
from bytegen.formats.oracles.examine import Finding, judges

TIMEOUT_SECONDS = 120.0
_CHUNK = 1 << 16
_MOST_FINDINGS_BYTES = 16 << 20


class Examiner:
    """A child process that examines one file after another; started when needed, and anew after it died.

    Safe to use from several threads (one file at a time) and after a fork (a forked process starts its own).
    """

    def __init__(self, timeout: float = TIMEOUT_SECONDS) -> None:
        self.timeout = timeout
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0

    @property
    def child_id(self) -> int | None:
        """The process id of the child, None while there is none."""
        return None if self._child is None else self._child.pid

    def examine(self, data: bytes, format: str, level: str, imports: Imports = "known") -> list[Finding]:
        """The findings of every judge, as `examine.examine` gives them.

        A judge that crashed, ran out of its limits or gave no answer within `timeout` seconds is reported as
        a problem of its own, and so are the judges after it, which were not asked.
        """
        request: dict[str, object] = {"task": "examine", "format": format, "level": level}
        request["imports"] = to_plain(imports)
        lines, reason = self.ask(request, data, _MOST_FINDINGS_BYTES)
        findings: list[Finding] = [json.loads(line) for line in lines]
        return findings if reason is None else findings + _unanswered(findings, judges(format), reason)

    def ask(self, request: dict[str, object], data: bytes, most_bytes: int) -> tuple[list[bytes], str | None]:
        """The lines that answer a request (see `worker`), and how the child failed, None if it did not.

        A child that answers with more than `most_bytes`, or not within `timeout` seconds, is ended.
        """
        with self._lock:
            child = self._start()
            head = json.dumps(request | {"size": len(data)}).encode() + b"\n"
            lines, ended, excess = self._talk(child, head + data, most_bytes)
            if ended:
                return lines, None
            reason = self._stop(child)
            return lines, f"gave an answer of more than {most_bytes} bytes" if excess else reason

    def close(self) -> None:
        """Ends the child process, if there is one."""
        with self._lock:
            if self._child is not None and self._owner == os.getpid():
                self._stop(self._child)

    def _start(self) -> subprocess.Popen[bytes]:
        child = self._child
        if child is not None and self._owner == os.getpid() and child.poll() is None:
            return child
        # The child must find the same modules, and none in the folder it happens to be started from.
        path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path if folder)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "bytegen.formats.oracles.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
            bufsize=0,
        )
        self._owner = os.getpid()
        return self._child

    def _talk(
        self, child: subprocess.Popen[bytes], request: bytes, most_bytes: int
    ) -> tuple[list[bytes], bool, bool]:
        """Sends the request and reads lines up to the empty one; whether that one came, and whether too much."""
        assert child.stdin is not None
        assert child.stdout is not None
        deadline = time.monotonic() + self.timeout
        unsent, answer = memoryview(request), bytearray()
        os.set_blocking(child.stdin.fileno(), False)
        with selectors.DefaultSelector() as ready:
            ready.register(child.stdin, selectors.EVENT_WRITE)
            ready.register(child.stdout, selectors.EVENT_READ)
            while not (answer == b"\n" or answer.endswith(b"\n\n")) and len(answer) <= most_bytes:
                events = ready.select(max(0.0, deadline - time.monotonic()))
                if not events:
                    break
                for key, _ in events:
                    if key.fileobj is child.stdout:
                        part = os.read(key.fd, _CHUNK)
                        if not part:
                            return bytes(answer).split(b"\n")[:-1], False, False
                        answer += part
                        continue
                    with suppress(BrokenPipeError):
                        unsent = unsent[os.write(key.fd, unsent[:_CHUNK]) :]
                    if not unsent:
                        ready.unregister(key.fileobj)
        lines = bytes(answer).split(b"\n")[:-1]
        ended = bool(lines) and not lines[-1]
        return [line for line in lines if line], ended, len(answer) > most_bytes

    def _stop(self, child: subprocess.Popen[bytes]) -> str:
        """Ends the child and says how it had ended, or that it had not."""
        with suppress(subprocess.TimeoutExpired):
            child.wait(0.5)  # a dead child's pipe closes a moment before its status is there
        if child.returncode is None:
            child.kill()
            child.wait()
            reason = f"gave no answer within {self.timeout:g} s"
        elif child.returncode < 0:
            reason = f"was ended by {signal.Signals(-child.returncode).name}"
        else:
            reason = f"ended with exit code {child.returncode}"
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        self._child = None
        return reason


def _unanswered(findings: list[Finding], asked: Sequence[str], reason: str) -> list[Finding]:
    silent = [judge for judge in asked if judge not in {finding["judge"] for finding in findings}]
    missing: list[Finding] = []
    for position, judge in enumerate(silent):
        message = (
            f"the judge's process {reason}" if position == 0 else "not asked, the judge before it failed"
        )
        problem: dict[str, object] = {"judge": judge, "message": message, "offset": None, "field": ""}
        missing.append({"judge": judge, "problems": [problem], "facts": {}})
    return missing


_shared = Examiner()
atexit.register(_shared.close)


def examine_isolated(data: bytes, format: str, level: str, imports: Imports = "known") -> list[Finding]:
    """Examines a file in this process's one shared child (see `Examiner`)."""
    return _shared.examine(data, format, level, imports)


def annotate_isolated(
    data: bytes, request: dict[str, object], most_bytes: int
) -> tuple[list[bytes], str | None]:
    """The lines of a file's account from the shared child, and how it failed, None if it did not."""
    return _shared.ask(request | {"task": "annotate"}, data, most_bytes)
