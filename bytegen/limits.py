"""Disks and memories that are too small: one clear line, before the work where it can be known, else when it fails."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from bytegen.errors import UserError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def gigabytes(n_bytes: float) -> str:
    """Return a size for a message: GB of 10**9 bytes, MB where that says more."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def available_memory() -> int | None:
    """Return the bytes that a process can still get without swapping others out; None where nobody says.

    Linux's MemAvailable and free swap (proc(5)), and no more than a cgroup v2 limit leaves, files in its cache aside.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in lines)}
        free = 1024 * (kilobytes["MemAvailable"] + kilobytes["SwapFree"])
    except (OSError, ValueError, KeyError, IndexError):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(stat["inactive_file"]) + int(stat["active_file"]))
    except (OSError, ValueError, KeyError):
        pass  # no cgroup v2 here, or no limit ("max")
    return free


def total_memory() -> int | None:
    """Return the bytes of memory of this machine, or of its cgroup v2 limit; None where nobody says."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        total = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemTotal:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total


def check_memory(needed: int, what: str, advice: str) -> None:
    """Raise UserError when `needed` bytes are more than there are: a killed process says nothing."""
    free = available_memory()
    if free is not None and needed > free:
        raise UserError(f"{what} needs {gigabytes(needed)} of memory; {gigabytes(free)} are free; {advice}")


def check_disk(needed: int, target: Path) -> None:
    """Raise UserError when the disk of `target` has not `needed` bytes left."""
    there = next(path for path in (target, *target.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UserError(f"{target} would take {gigabytes(needed)}; {gigabytes(free)} are free on its disk")


@contextmanager
def memory_errors(what: str, advice: str | Callable[[], str]) -> Iterator[None]:
    """Turn the errors of an allocation that failed into a UserError; advice that takes work may come as a function."""

    def told() -> UserError:
        return UserError(f"{what} ran out of memory; {advice if isinstance(advice, str) else advice()}")

    try:
        yield
    except MemoryError:
        raise told() from None
    except RuntimeError as error:
        # torch has an exception of its own for CUDA only; its CPU allocator raises RuntimeError.
        if "allocate memory" in str(error) or "out of memory" in str(error):
            raise told() from None
        raise


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn the errors of writing under `target` into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(str(error)) from None
        why = "the disk is full, or a limit was reached: " if error.errno in _NO_ROOM else ""
        raise UserError(f"{target} cannot be written: {why}{error.strerror or error}") from None
    except SafetensorError as error:
        full = any(f"os error {number}" in str(error) for number in _NO_ROOM)
        why = "the disk is full, or a limit was reached: " if full else ""
        raise UserError(f"{target} cannot be written: {why}{error}") from None
