"""Small pieces of machine code for this host, which hooks run in place of Python functions."""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys


def host_machine() -> str:
    """The host's instruction set: `x86_64`, `aarch64` or what `platform.machine` calls it."""
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())


class NativeCode:
    """Machine code in executable memory; `address` is None where the host has none of it or forbids it.

    `code` holds the bytes by instruction set. The memory is never writable and executable at once.
    """

    def __init__(self, code: dict[str, bytes]) -> None:
        self.address: int | None = None
        machine = host_machine()
        if machine not in code or not sys.platform.startswith(("linux", "darwin", "freebsd")):
            return
        try:
            self._memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            self._memory.write(code[machine])
            address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
            protect = ctypes.CDLL(None).mprotect
            protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
            if protect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC) == 0:
                self.address = address
        except (OSError, AttributeError, ValueError):
            return
