"""The kernel's side of one process: its state, and the way from a system call to its handler and back."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from unicorn import x86_const as x86

from bytegen.sandbox.engine import Engine
from bytegen.sandbox.linux import abi
from bytegen.sandbox.linux.names import name_of
from bytegen.sandbox.memory import AddressSpace
from bytegen.sandbox.result import Ended, Syscall

_WORD = (1 << 64) - 1
_NEGATIVE = 1 << 63
MAX_RECORDED = 1000
_LATEST = 1 << 62  # nanoseconds; virtual time stops there


class Failed(Exception):
    """A system call fails with this errno."""

    def __init__(self, errno: int) -> None:
        super().__init__(errno)
        self.errno = errno


@dataclass
class Process:
    """State that system calls read and change.

    `clock` is the wall clock at the start in nanoseconds since 1970. Virtual time then advances by sleeps, by
    1 ns an instruction and by 1 us a system call. `fds` maps file descriptors to 0 (stdin), 1 (stdout) or 2
    (stderr).
    """

    engine: Engine
    space: AddressSpace
    executed: Callable[[], int]
    stdin: bytes
    max_output: int
    seed: int
    clock: int
    path: bytes
    brk_start: int = 0
    brk: int = 0
    stdin_position: int = 0
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    fds: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 1, 2: 2})
    slept_ns: int = 0
    calls: int = 0
    syscalls: list[Syscall] = field(default_factory=list)
    refused: dict[str, None] = field(default_factory=dict)
    signal_actions: dict[int, bytes] = field(default_factory=dict)
    signal_mask: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def system_call(self, handlers: dict[int, Callable[..., int]]) -> None:
        """Serve the call in the registers: run its handler, record it, set rax, rcx and r11 as SYSCALL does.

        Raises Ended where the call does not return.
        """
        engine = self.engine
        number, *registers = engine.call_registers()
        number &= 0xFFFF_FFFF
        self.calls += 1
        handler = handlers.get(number)
        name = name_of(number)
        result: int | None = None
        args = tuple(registers[: handler.__code__.co_argcount - 1] if handler else registers)
        try:
            if handler is None:
                self.refused.setdefault(name)
                result = -abi.ENOSYS
            else:
                result = handler(self, *args)
        except Failed as failure:
            result = -failure.errno
            if failure.errno == abi.ENOSYS:
                self.refused.setdefault(name)
        finally:
            if len(self.syscalls) < MAX_RECORDED:
                self.syscalls.append(Syscall(number, name, args, result))
        engine.set(x86.UC_X86_REG_RAX, result)
        engine.set(x86.UC_X86_REG_RCX, engine.rip + 2)
        engine.set(x86.UC_X86_REG_R11, engine.get(x86.UC_X86_REG_EFLAGS))

    @property
    def elapsed_ns(self) -> int:
        """Virtual time since the start."""
        return min(self.slept_ns + self.executed() + 1000 * self.calls, _LATEST)

    def sleep(self, nanoseconds: int) -> None:
        """Let virtual time pass."""
        self.slept_ns = min(self.slept_ns + nanoseconds, _LATEST)

    def load(self, address: int, size: int) -> bytes:
        """All `size` bytes of the program's memory. Raises Failed with EFAULT."""
        data = self.space.load(address, size)
        if len(data) < size:
            raise Failed(abi.EFAULT)
        return data

    def store(self, address: int, data: bytes) -> None:
        """Write all of `data` to the program's memory. Raises Failed with EFAULT."""
        if self.space.store(address, data) < len(data):
            raise Failed(abi.EFAULT)

    def load_string(self, address: int, most: int = 4096) -> bytes:
        """A zero-terminated string, without its end. Raises Failed with EFAULT."""
        data = self.space.load(address, most)
        end = data.find(b"\0")
        if end < 0:
            raise Failed(abi.EFAULT)
        return data[:end]

    def load_timespec(self, address: int) -> int:
        """A struct timespec as nanoseconds. Raises Failed with EFAULT or EINVAL."""
        seconds, nanoseconds = struct.unpack("<qq", self.load(address, 16))
        if seconds < 0 or not 0 <= nanoseconds < 1_000_000_000:
            raise Failed(abi.EINVAL)
        return min(seconds * 1_000_000_000 + nanoseconds, _LATEST)

    def file(self, descriptor: int) -> int:
        """What a file descriptor stands for: 0, 1 or 2. Raises Failed with EBADF."""
        kind = self.fds.get(descriptor & 0xFFFF_FFFF)
        if kind is None:
            raise Failed(abi.EBADF)
        return kind

    def output(self, kind: int, data: bytes) -> None:
        """Append to stdout (1) or stderr (2). Raises Ended where the limit on output is passed, which is then
        filled.
        """
        room = self.max_output - len(self.stdout) - len(self.stderr)
        stream = self.stdout if kind == 1 else self.stderr
        stream += data[:room]
        if len(data) > room:
            raise Ended(limit="output")


def signed(value: int) -> int:
    """A register as a signed 64-bit number."""
    value &= _WORD
    return value - (1 << 64) if value & _NEGATIVE else value


def signed_int(value: int) -> int:
    """The low half of a register as a C int."""
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value & 0x8000_0000 else value
