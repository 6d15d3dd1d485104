"""The Linux kernel as a judge: execve under ptrace, stopped before the first instruction.

The child asks to be traced, stops itself, and is let go into execve with PTRACE_O_EXITKILL set, so that it
dies with the parent whatever happens. When the new image is in place the kernel stops it with SIGTRAP before
its first instruction (ptrace(2)); there it is looked at and killed. Nothing of the file ever runs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from bytegen.formats.errors import FormatError

_PTRACE_TRACEME, _PTRACE_CONT, _PTRACE_SETOPTIONS = 0, 7, 0x4200
_PTRACE_O_EXITKILL = 0x0010_0000
_PR_SET_PDEATHSIG = 1
_STACK_BYTES = 8 << 20
_CHILD_FAILED = 127


@dataclass(frozen=True)
class ExecResult:
    """What the kernel made of a file.

    `accepted` is True when execve succeeded and the process stood before its first instruction. Otherwise
    `outcome` is the errno's name ("ENOEXEC", ...) or the signal's ("SIGSEGV", ...). `entry` is the address of
    the first instruction (of the interpreter, for a dynamic file), and `entry_executable` says whether
    executable memory is mapped there; both are None where /proc does not tell.
    """

    accepted: bool
    outcome: str
    entry: int | None = None
    entry_executable: bool | None = None


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.execve.restype = ctypes.c_int
    libc.execve.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(ctypes.c_char_p)]
    return libc


@cache
def runs_here(format: str) -> bool:
    """Whether this machine's kernel starts programs of an ELF format: asked once, with the least there is."""
    heads = {
        "elf64-x86_64": (64, "<HHIQQQIHHHHHH", 62, "<II6Q"),
        "elf32-i386": (32, "<HHIIIIIHHHHHH", 3, "<8I"),
        "elf64-aarch64": (64, "<HHIQQQIHHHHHH", 183, "<II6Q"),
    }
    if format not in heads or not sys.platform.startswith("linux"):
        return False
    bits, ehdr, machine, phdr = heads[format]
    size, entry_size = 16 + struct.calcsize(ehdr), struct.calcsize(phdr)
    total, base = size + entry_size + 16, 0x400000
    head = struct.pack(ehdr, 2, machine, 1, base + total - 16, size, 0, 0, size, entry_size, 1, 0, 0, 0)
    load = (
        (1, 5, 0, base, base, total, total, 4096) if bits == 64 else (1, 0, base, base, total, total, 5, 4096)
    )
    ident = b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
    try:
        return kernel_accepts(ident + head + struct.pack(phdr, *load) + bytes(16)).accepted
    except FormatError:
        return False


def kernel_accepts(program: str | os.PathLike[str] | bytes) -> ExecResult:
    """Asks this machine's kernel whether it would start `program` (a path, or the file's bytes).

    The answer holds for this kernel and its processor: a file for another machine gives ENOEXEC. Raises
    FormatError where there is no Linux or ptrace is forbidden, and OSError when a path cannot be opened.
    """
    if not sys.platform.startswith("linux"):
        raise FormatError(f"the kernel's exec can be asked on Linux only, this is {sys.platform}")
    if not isinstance(program, bytes):
        with open(program, "rb") as file:
            program = file.read()
    # A copy in memory, so that the answer is about the bytes: not about permissions or a mount's options.
    with os.fdopen(os.memfd_create("program"), "wb", buffering=0) as copy:
        copy.write(program)
        return _trace_exec(copy.fileno())


def _trace_exec(handle: int) -> ExecResult:
    libc = _libc()
    path = f"/proc/self/fd/{handle}".encode()
    argv = (ctypes.c_char_p * 2)(b"program", None)
    envp = (ctypes.c_char_p * 1)(None)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _become(libc, path, argv, envp, writer)
    try:
        os.close(writer)
        return _watch(libc, child, reader)
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


def _become(libc: ctypes.CDLL, path: bytes, argv: ctypes.Array, envp: ctypes.Array, writer: int) -> None:
    """The child's side: never returns. Execs only once it is certain that the parent traces it."""
    try:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for limit, value in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_CPU, 1),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_STACK, _STACK_BYTES),
        ):
            with suppress(ValueError, OSError):
                resource.setrlimit(limit, (value, value))
        if libc.ptrace(_PTRACE_TRACEME, 0, None, None) != 0:
            os.write(writer, f"ptrace {ctypes.get_errno()}".encode())
            os._exit(_CHILD_FAILED)
        os.kill(os.getpid(), signal.SIGSTOP)
        libc.execve(path, argv, envp)
        os.write(writer, f"execve {ctypes.get_errno()}".encode())
    finally:
        os._exit(_CHILD_FAILED)


def _watch(libc: ctypes.CDLL, child: int, reader: int) -> ExecResult:
    """The parent's side: waits for the stop before the exec, then for what the exec comes to."""
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status):
        raise FormatError(
            f"the kernel could not be asked: {_told(reader) or 'the child died before the exec'}"
        )
    if libc.ptrace(_PTRACE_SETOPTIONS, child, None, _PTRACE_O_EXITKILL) != 0:
        raise FormatError(f"the kernel could not be asked: ptrace: {os.strerror(ctypes.get_errno())}")
    libc.ptrace(_PTRACE_CONT, child, None, None)
    _, status = os.waitpid(child, 0)
    if os.WIFSTOPPED(status):
        stopped_by = os.WSTOPSIG(status)
        if stopped_by != signal.SIGTRAP:
            return ExecResult(False, signal.Signals(stopped_by).name)
        entry = _program_counter(child)
        return ExecResult(True, "loads", entry, None if entry is None else _is_executable(child, entry))
    if os.WIFSIGNALED(status):
        return ExecResult(False, signal.Signals(os.WTERMSIG(status)).name)
    return ExecResult(False, _told(reader) or f"exit {os.WEXITSTATUS(status)}")


def _told(reader: int) -> str:
    """The errno that the child wrote, by name; "ptrace: ..." when it could not be traced."""
    call, _, number = os.read(reader, 64).decode().partition(" ")
    if not number:
        return ""
    name = errno.errorcode.get(int(number), f"errno {number}")
    return name if call == "execve" else f"{call}: {name}"


def _program_counter(child: int) -> int | None:
    # proc(5): the last field of /proc/PID/syscall of a stopped process is its program counter.
    try:
        with open(f"/proc/{child}/syscall") as file:
            return int(file.read().split()[-1], 16)
    except (OSError, ValueError, IndexError):
        return None


def _is_executable(child: int, address: int) -> bool | None:
    try:
        with open(f"/proc/{child}/maps") as file:
            for line in file:
                span, permissions = line.split(maxsplit=2)[:2]
                low, high = (int(part, 16) for part in span.split("-"))
                if low <= address < high:
                    return "x" in permissions
    except OSError:
        return None
    return False
