"""System calls on the three standard streams: they behave as pipes, and stdin holds all of its bytes from the
start.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from bytegen.sandbox.linux import abi
from bytegen.sandbox.linux.process import Failed, Process, signed, signed_int
from bytegen.sandbox.memory import PAGE
from bytegen.sandbox.result import Ended

_IOV_MAX = 1024
_MAX_FDS = 1024
_S_IFIFO = 0o010600
_POLLIN, _POLLOUT, _POLLNVAL = 0x001, 0x004, 0x020
_CHUNK = 1 << 16


def _check_range(buffer: int, count: int) -> int:
    """access_ok, then the cap on one transfer: how much of `count` is moved. Raises Failed with EFAULT."""
    if buffer + count >= 1 << 63:
        raise Failed(abi.EFAULT)
    return min(count, abi.MAX_RW_COUNT)


def read(process: Process, fd: int, buffer: int, count: int) -> int:
    """read(2): what is left of stdin, up to `count` bytes; 0 at its end.

    As from a pipe: a page's worth that cannot be stored whole is not read at all.
    """
    if process.file(fd) != 0:
        raise Failed(abi.EBADF)
    count = _check_range(buffer, count)
    data = process.stdin[process.stdin_position : process.stdin_position + count]
    done = process.space.store(buffer, data)
    if done < len(data):
        done -= done % PAGE
        if not done:
            raise Failed(abi.EFAULT)
    process.stdin_position += done
    return done


def write(process: Process, fd: int, buffer: int, count: int) -> int:
    """write(2) to stdout or stderr. As to a pipe: a page's worth that cannot be loaded whole is not written
    at all.
    """
    kind = process.file(fd)
    if kind == 0:
        raise Failed(abi.EBADF)
    count = _check_range(buffer, count)
    done = 0
    while done < count:
        size = min(_CHUNK, count - done)
        data = process.space.load(buffer + done, size)
        if len(data) < size:
            data = data[: len(data) - len(data) % PAGE]
        process.output(kind, data)
        done += len(data)
        if len(data) < size:
            break
    if count and not done:
        raise Failed(abi.EFAULT)
    return done


def _vectors(process: Process, address: int, count: int) -> list[tuple[int, int]]:
    count = signed_int(count)
    if not 0 <= count <= _IOV_MAX:
        raise Failed(abi.EINVAL)
    pairs = list(struct.iter_unpack("<QQ", process.load(address, 16 * count)))
    if any(size >= 1 << 63 for _, size in pairs):
        raise Failed(abi.EINVAL)
    return [(base, size) for base, size in pairs]


def _vectored(call: Callable[..., int], process: Process, fd: int, address: int, count: int) -> int:
    process.file(fd)
    total = 0
    for base, size in _vectors(process, address, count):
        try:
            done = call(process, fd, base, size)
        except Failed:
            if total:
                return total
            raise
        total += done
        if done < size:
            break
    return total


def readv(process: Process, fd: int, vectors: int, count: int) -> int:
    """readv(2)."""
    return _vectored(read, process, fd, vectors, count)


def writev(process: Process, fd: int, vectors: int, count: int) -> int:
    """writev(2)."""
    return _vectored(write, process, fd, vectors, count)


def close(process: Process, fd: int) -> int:
    """close(2)."""
    process.file(fd)
    del process.fds[fd & 0xFFFF_FFFF]
    return 0


def _duplicate(process: Process, fd: int, lowest: int) -> int:
    kind = process.file(fd)
    new = next((n for n in range(lowest, _MAX_FDS) if n not in process.fds), None)
    if new is None:
        raise Failed(abi.EMFILE)
    process.fds[new] = kind
    return new


def dup(process: Process, fd: int) -> int:
    """dup(2)."""
    return _duplicate(process, fd, 0)


def dup2(process: Process, fd: int, new: int) -> int:
    """dup2(2)."""
    kind, new = process.file(fd), new & 0xFFFF_FFFF
    if new >= _MAX_FDS:
        raise Failed(abi.EBADF)
    process.fds[new] = kind
    return new


def dup3(process: Process, fd: int, new: int, flags: int) -> int:
    """dup3(2)."""
    if (fd ^ new) & 0xFFFF_FFFF == 0 or flags & 0xFFFF_FFFF & ~0o2000000:
        raise Failed(abi.EINVAL)
    return dup2(process, fd, new)


def fcntl(process: Process, fd: int, command: int, argument: int) -> int:
    """fcntl(2): F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL."""
    kind = process.file(fd)
    command &= 0xFFFF_FFFF
    if command in (0, 1030):
        if argument >= _MAX_FDS:
            raise Failed(abi.EINVAL)
        return _duplicate(process, fd, argument)
    if command == 3:
        return 0 if kind == 0 else 1  # O_RDONLY, O_WRONLY
    if command in (1, 2, 4):
        return 0
    raise Failed(abi.EINVAL)


def _status(kind: int) -> bytes:
    """struct stat of a pipe (asm/stat.h), 144 bytes."""
    head = struct.pack("<QQQIIIiQqqq", 12, 100 + kind, 1, _S_IFIFO, abi.UID, abi.UID, 0, 0, 0, 4096, 0)
    return head.ljust(144, b"\0")


def fstat(process: Process, fd: int, status: int) -> int:
    """fstat(2): every stream is a pipe."""
    process.store(status, _status(process.file(fd)))
    return 0


def newfstatat(process: Process, fd: int, path: int, status: int, flags: int) -> int:
    """newfstatat(2) of a descriptor itself (AT_EMPTY_PATH); there are no files: any other path does not
    exist.
    """
    if flags & 0x1000 and process.load_string(path) == b"":
        return fstat(process, fd, status)
    process.load_string(path)
    raise Failed(abi.ENOENT)


def ioctl(process: Process, fd: int, request: int) -> int:
    """ioctl(2): no stream is a terminal. FIONREAD tells how much of stdin is left."""
    kind = process.file(fd)
    request &= 0xFFFF_FFFF
    if request == 0x541B and kind == 0:
        process.store(
            process.engine.call_registers()[3], struct.pack("<i", len(process.stdin) - process.stdin_position)
        )
        return 0
    raise Failed(abi.ENOTTY)


def lseek(process: Process, fd: int) -> int:
    """lseek(2): pipes do not seek."""
    process.file(fd)
    raise Failed(abi.ESPIPE)


def fsync(process: Process, fd: int) -> int:
    """fsync(2) and fdatasync(2): not on pipes."""
    process.file(fd)
    raise Failed(abi.EINVAL)


def _wait(process: Process, nanoseconds: int | None) -> None:
    """Nothing is ready and never will be: the time-out passes, or the program hangs."""
    if nanoseconds is None:
        raise Ended(limit="time")
    process.sleep(nanoseconds)


def _poll(process: Process, address: int, count: int, nanoseconds: int | None) -> int:
    count &= 0xFFFF_FFFF
    if count > _MAX_FDS:
        raise Failed(abi.EINVAL)
    ready = 0
    for index in range(count):
        fd, events, _ = struct.unpack("<ihh", process.load(address + 8 * index, 8))
        revents = 0
        if fd >= 0:
            kind = process.fds.get(fd)
            revents = _POLLNVAL if kind is None else events & (_POLLIN if kind == 0 else _POLLOUT)
        process.store(address + 8 * index + 6, struct.pack("<h", revents))
        ready += revents != 0
    if not ready:
        _wait(process, nanoseconds)
    return ready


def poll(process: Process, fds: int, count: int, timeout: int) -> int:
    """poll(2): stdin is always readable, output always writable."""
    milliseconds = signed_int(timeout)
    return _poll(process, fds, count, None if milliseconds < 0 else milliseconds * 1_000_000)


def ppoll(process: Process, fds: int, count: int, timeout: int) -> int:
    """ppoll(2)."""
    return _poll(process, fds, count, process.load_timespec(timeout) if timeout else None)


def _select(process: Process, count: int, sets: tuple[int, int, int], nanoseconds: int | None) -> int:
    count = signed_int(count)
    if count < 0:
        raise Failed(abi.EINVAL)
    size = -(-min(count, _MAX_FDS) // 64) * 8
    ready = 0
    for address, kinds in zip(sets, ((0,), (1, 2), ()), strict=True):
        if not address:
            continue
        asked = int.from_bytes(process.load(address, size), "little") & (1 << min(count, _MAX_FDS)) - 1
        answer = 0
        for fd in range(asked.bit_length()):
            if asked >> fd & 1 and process.file(fd) in kinds:
                answer |= 1 << fd
        process.store(address, answer.to_bytes(size, "little"))
        ready += answer.bit_count()
    if not ready:
        _wait(process, nanoseconds)
    return ready


def select(process: Process, count: int, reading: int, writing: int, failing: int, timeout: int) -> int:
    """select(2)."""
    nanoseconds = None
    if timeout:
        seconds, microseconds = struct.unpack("<qq", process.load(timeout, 16))
        if seconds < 0 or microseconds < 0:
            raise Failed(abi.EINVAL)
        nanoseconds = seconds * 1_000_000_000 + microseconds * 1000
    return _select(process, count, (reading, writing, failing), nanoseconds)


def pselect6(process: Process, count: int, reading: int, writing: int, failing: int, timeout: int) -> int:
    """pselect6(2)."""
    nanoseconds = process.load_timespec(timeout) if timeout else None
    return _select(process, count, (reading, writing, failing), nanoseconds)


def readlink(process: Process, path: int, buffer: int, size: int) -> int:
    """readlink(2): only /proc/self/exe exists."""
    if signed(size) <= 0:
        raise Failed(abi.EINVAL)
    if process.load_string(path) != b"/proc/self/exe":
        raise Failed(abi.ENOENT)
    target = process.path[:size]
    process.store(buffer, target)
    return len(target)


def readlinkat(process: Process, _directory: int, path: int, buffer: int, size: int) -> int:
    """readlinkat(2): only /proc/self/exe exists."""
    return readlink(process, path, buffer, size)


HANDLERS: dict[int, Callable[..., int]] = {
    0: read,
    1: write,
    3: close,
    5: fstat,
    7: poll,
    8: lseek,
    16: ioctl,
    19: readv,
    20: writev,
    23: select,
    32: dup,
    33: dup2,
    72: fcntl,
    74: fsync,
    75: fsync,
    89: readlink,
    262: newfstatat,
    267: readlinkat,
    270: pselect6,
    271: ppoll,
    292: dup3,
}
