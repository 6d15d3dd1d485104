"""Maps a program as execve does, and builds the stack that it starts with (fs/binfmt_elf.c, Linux 6.x).

Whole pages of the file are mapped: bytes around a segment that share its pages are visible. Where p_memsz
exceeds p_filesz the rest of the last file page is cleared, but only if the page is writable (clear_user fails
quietly otherwise), and the pages after it are anonymous, readable and writable whatever the segment says.
Pages past the end of the file raise SIGBUS.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from bytegen.errors import UserError
from bytegen.sandbox.linux import abi
from bytegen.sandbox.linux.elf import PF_W, PF_X, PHDR_SIZE, Image, Segment
from bytegen.sandbox.memory import EXEC, READ, TASK_SIZE, WRITE, AddressSpace, page_down, page_up

STACK_TOP = TASK_SIZE
STACK_LIMIT = 8 << 20
STACK_START = 32 << 10  # mapped at once; the rest on the first touch, as far as STACK_LIMIT
MMAP_TOP = page_down(STACK_TOP - STACK_LIMIT - (1 << 20))
_HWCAP = 0x0F8B_FBFF  # CPUID.1:EDX of the emulated processor


def load_image(space: AddressSpace, image: Image) -> int:
    """Map all segments; returns the initial break. Raises UserError where Linux kills, OutOfMemory past the
    limit.
    """
    top = 0
    for index, segment in enumerate(image.segments):
        _load_segment(space, image.data, segment, index)
        top = max(top, segment.vaddr + segment.memsz)
    return page_up(top)


def _load_segment(space: AddressSpace, data: bytes, segment: Segment, index: int) -> None:
    start = page_down(segment.vaddr)
    anonymous = start
    if segment.filesz:
        anonymous = page_up(segment.vaddr + segment.filesz)
        offset = page_down(segment.offset)
        present = min(max(page_up(len(data)) - offset, 0), anonymous - start)
        if present:
            space.map(start, present, segment.prot)
            space.poke(start, data[offset : offset + present])
        if present < anonymous - start:
            space.map(start + present, anonymous - start - present, segment.prot, absent=True)
        tail = segment.vaddr + segment.filesz
        if segment.memsz > segment.filesz and segment.flags & PF_W and tail < anonymous:
            if tail - start >= present:
                raise UserError(f"PT_LOAD {index}: p_filesz ends in a page past the end of the file")
            space.poke(tail, bytes(anonymous - tail))
    end = page_up(segment.vaddr + segment.memsz)
    if end > anonymous and segment.memsz:
        space.map(anonymous, end - anonymous, READ | WRITE | (EXEC if segment.flags & PF_X else 0))


def build_stack(
    space: AddressSpace,
    image: Image,
    argv: Sequence[bytes],
    env: Sequence[bytes],
    random: bytes,
) -> int:
    """Map the stack and write argc, argv, envp and the auxiliary vector; returns the initial stack pointer.

    `random` is the 16 bytes of AT_RANDOM. Raises UserError where argv and env exceed a quarter of the stack,
    as Linux does.
    """
    texts = bytearray()
    arguments, environment = [text + b"\0" for text in argv], [text + b"\0" for text in env]
    name = arguments[0] if arguments else b"program\0"
    sizes = sum(len(text) + 8 for text in (*arguments, *environment, name))
    if sizes > STACK_LIMIT // 4:
        raise UserError(f"argv and env take {sizes} bytes: the limit is {STACK_LIMIT // 4}")
    bottom = STACK_TOP - 8 - sum(map(len, (*arguments, *environment, name)))
    pointers: list[int] = []
    for text in (*arguments, *environment, name):
        pointers.append(bottom + len(texts))
        texts += text
    platform = bottom - 16
    entropy = platform - 16
    vector = [
        (abi.AT_HWCAP, _HWCAP),
        (abi.AT_PAGESZ, 4096),
        (abi.AT_CLKTCK, 100),
        (abi.AT_PHDR, image.phdr),
        (abi.AT_PHENT, PHDR_SIZE),
        (abi.AT_PHNUM, image.phnum),
        (abi.AT_BASE, 0),
        (abi.AT_FLAGS, 0),
        (abi.AT_ENTRY, image.entry),
        (abi.AT_UID, abi.UID),
        (abi.AT_EUID, abi.UID),
        (abi.AT_GID, abi.UID),
        (abi.AT_EGID, abi.UID),
        (abi.AT_SECURE, 0),
        (abi.AT_RANDOM, entropy),
        (abi.AT_HWCAP2, 0),
        (abi.AT_EXECFN, pointers[-1]),
        (abi.AT_PLATFORM, platform),
        (abi.AT_NULL, 0),
    ]
    words = [len(arguments), *pointers[: len(arguments)], 0]
    words += [*pointers[len(arguments) : -1], 0, *(word for pair in vector for word in pair)]
    pointer = (entropy - 8 * len(words)) & -16
    mapped = page_up(STACK_TOP - pointer + STACK_START)
    prot = READ | WRITE | (EXEC if image.executable_stack else 0)
    space.map(STACK_TOP - mapped, mapped, prot)
    block = struct.pack(f"<{len(words)}Q", *words).ljust(entropy - pointer, b"\0")
    block += random.ljust(16, b"\0") + b"x86_64\0".ljust(16, b"\0") + bytes(texts)
    space.poke(pointer, block)
    return pointer
