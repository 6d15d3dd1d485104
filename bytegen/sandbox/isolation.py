"""Runs programs in a worker process: one that brings the emulator down does not take the caller with it.

Unicorn aborts on a few malformed instructions (`lock btr ecx, ebp` is one): about one random byte string in
3,000. A worker is kept from run to run, one for each thread.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from bytegen.errors import UserError
from bytegen.sandbox.result import Fault, Result
from bytegen.sandbox.wire import receive, send, unpack_result

_GRACE = 10.0  # seconds past its limit on time that a worker may take before it is killed
_SCRIPT = "import sys; sys.path[:] = sys.argv[1:]; from bytegen.sandbox.worker import main; main()"

_kept = threading.local()


class Worker:
    """One worker process. Not for two threads at a time."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        path = [entry or str(Path.cwd()) for entry in sys.path]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, *path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._poll = None
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(cast(BinaryIO, self._process.stdout), select.POLLIN)

    def run(
        self,
        data: bytes,
        *,
        stdin: bytes,
        argv: Sequence[bytes],
        env: Sequence[bytes],
        timeout: float,
        **options: Any,
    ) -> Result:
        """As `bytegen.sandbox.run`. Raises UserError as it does, BrokenPipeError where the worker died."""
        pipe, answers = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        try:
            send(pipe, {"arguments": len(argv), "timeout": timeout, **options}, [data, stdin, *argv, *env])
            if not self._wait(timeout + _GRACE):
                raise EOFError
            answer, blobs = receive(answers)
        except (EOFError, OSError):
            raise BrokenPipeError from None
        if "error" in answer:
            raise UserError(answer["error"])
        return unpack_result(answer, blobs)

    def _wait(self, seconds: float) -> bool:
        """Whether an answer begins, or the worker ends, within `seconds`; always True without poll."""
        if self._poll is None:
            return True
        return bool(self._poll.poll(min(seconds * 1000, 1 << 30)))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # what was still buffered for a dead worker
                    continue


def run_isolated(data: bytes, *, timeout: float, **options: Any) -> Result:
    """As `bytegen.sandbox.run`, in this thread's worker.

    A program that ends the worker has a fault of the kind `emulator`.
    """
    began = time.perf_counter()
    worker: Worker | None = getattr(_kept, "worker", None)
    if worker is None or worker.owner != os.getpid():  # a forked child must not share its parent's pipes
        worker = Worker()
    _kept.worker = None
    try:
        result = worker.run(data, timeout=timeout, **options)
    except UserError:
        _kept.worker = worker
        raise
    except BrokenPipeError:
        worker.close()
        seconds = time.perf_counter() - began
        if seconds > timeout + _GRACE:
            return Result(b"", b"", None, None, "time", 0, seconds=seconds)
        return Result(b"", b"", None, Fault("emulator failure", "SIGKILL", 0), None, 0, seconds=seconds)
    except BaseException:
        worker.close()
        raise
    _kept.worker = worker
    return result
