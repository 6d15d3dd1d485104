"""System calls on memory: the break, anonymous mappings, permissions."""

from __future__ import annotations

from collections.abc import Callable

from bytegen.sandbox.linux import abi
from bytegen.sandbox.linux.loader import MMAP_TOP
from bytegen.sandbox.linux.process import Failed, Process
from bytegen.sandbox.memory import (
    MMAP_MIN_ADDR,
    PAGE,
    READ,
    TASK_SIZE,
    WRITE,
    OutOfMemory,
    page_down,
    page_up,
)


def brk(process: Process, address: int) -> int:
    """brk(2): the new break, or the old one where it cannot move there."""
    space, old = process.space, process.brk
    if not process.brk_start <= address < TASK_SIZE:
        return old
    have, want = page_up(old), page_up(address)
    if want > have:
        if space.overlaps(have, want - have):
            return old
        try:
            space.map(have, want - have, READ | WRITE)
        except OutOfMemory:
            return old
    elif want < have:
        space.unmap(want, have - want)
    process.brk = address
    return address


def mmap(process: Process, address: int, size: int, prot: int, flags: int, fd: int, offset: int) -> int:
    """mmap(2), anonymous only: there are no files to map."""
    if offset % PAGE or size == 0:
        raise Failed(abi.EINVAL)
    if flags & abi.MAP_TYPE not in (abi.MAP_SHARED, abi.MAP_PRIVATE, abi.MAP_SHARED | abi.MAP_PRIVATE):
        raise Failed(abi.EINVAL)
    if not flags & abi.MAP_ANONYMOUS:
        process.file(fd)
        raise Failed(abi.ENODEV)
    if size > TASK_SIZE:
        raise Failed(abi.ENOMEM)
    size = page_up(size)
    space = process.space
    if flags & (abi.MAP_FIXED | abi.MAP_FIXED_NOREPLACE):
        start = address
        _check_fixed(start, size)
        if flags & abi.MAP_FIXED_NOREPLACE and space.overlaps(start, size):
            raise Failed(abi.EEXIST)
    else:
        start = _place(process, page_down(address), size)
    _map(process, start, size, prot & abi.PROT_ALL)
    return start


def _check_fixed(start: int, size: int) -> None:
    if start % PAGE:
        raise Failed(abi.EINVAL)
    if start > TASK_SIZE - size:
        raise Failed(abi.ENOMEM)
    if start < MMAP_MIN_ADDR:
        raise Failed(abi.EPERM)


def _place(process: Process, hint: int, size: int) -> int:
    space = process.space
    if MMAP_MIN_ADDR <= hint <= TASK_SIZE - size and not space.overlaps(hint, size):
        return hint
    start = space.gap_below(MMAP_TOP, size)
    if start is None:
        raise Failed(abi.ENOMEM)
    return start


def _map(process: Process, start: int, size: int, prot: int) -> None:
    try:
        process.space.map(start, size, prot)
    except OutOfMemory:
        raise Failed(abi.ENOMEM) from None


def munmap(process: Process, address: int, size: int) -> int:
    """munmap(2)."""
    if address % PAGE or size == 0 or size > TASK_SIZE or address > TASK_SIZE - size:
        raise Failed(abi.EINVAL)
    process.space.unmap(address, page_up(size))
    return 0


def mprotect(process: Process, address: int, size: int, prot: int) -> int:
    """mprotect(2)."""
    if address % PAGE or prot & ~abi.PROT_ALL:
        raise Failed(abi.EINVAL)
    if size == 0:
        return 0
    if size > TASK_SIZE or address > TASK_SIZE - page_up(size):
        raise Failed(abi.ENOMEM)
    if not process.space.protect(address, page_up(size), prot):
        raise Failed(abi.ENOMEM)
    return 0


def mremap(process: Process, old: int, old_size: int, new_size: int, flags: int, new: int) -> int:
    """mremap(2) of one area: shrinks in place, grows in place where there is room, else moves if it may."""
    if old % PAGE or new_size == 0 or flags & ~(abi.MREMAP_MAYMOVE | abi.MREMAP_FIXED):
        raise Failed(abi.EINVAL)
    if flags & abi.MREMAP_FIXED and not flags & abi.MREMAP_MAYMOVE:
        raise Failed(abi.EINVAL)
    if max(old_size, new_size) > TASK_SIZE:
        raise Failed(abi.ENOMEM)
    old_size, new_size = page_up(old_size), page_up(new_size)
    space = process.space
    area = space.find(old)
    if area is None or old_size == 0 or old + old_size > area.end:
        raise Failed(abi.EFAULT)
    prot = area.prot
    if not flags & abi.MREMAP_FIXED:
        if new_size <= old_size:
            if new_size < old_size:
                space.unmap(old + new_size, old_size - new_size)
            return old
        extra = new_size - old_size
        if old + new_size <= TASK_SIZE and not space.overlaps(old + old_size, extra):
            _map(process, old + old_size, extra, prot)
            return old
        if not flags & abi.MREMAP_MAYMOVE:
            raise Failed(abi.ENOMEM)
        new = _place(process, 0, new_size)
    else:
        _check_fixed(new, new_size)
        if new < old + old_size and old < new + new_size:
            raise Failed(abi.EINVAL)
    content = process.engine.read(old, min(old_size, new_size))
    _map(process, new, new_size, prot)
    space.poke(new, content)
    space.unmap(old, old_size)
    return new


def madvise(process: Process, address: int, size: int, advice: int) -> int:
    """madvise(2): MADV_DONTNEED clears private pages; other advice is taken and ignored."""
    if address % PAGE or size > TASK_SIZE:
        raise Failed(abi.EINVAL)
    size = page_up(size)
    if not process.space.covers(address, size):
        raise Failed(abi.ENOMEM)
    if advice & 0xFFFF_FFFF == 4:
        for area in process.space.areas:
            start, end = max(area.start, address), min(area.end, address + size)
            if start < end and not area.absent and area.prot & WRITE:
                process.space.poke(start, bytes(end - start))
    return 0


HANDLERS: dict[int, Callable[..., int]] = {
    9: mmap,
    10: mprotect,
    11: munmap,
    12: brk,
    25: mremap,
    28: madvise,
}
