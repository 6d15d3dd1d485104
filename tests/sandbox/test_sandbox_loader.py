"""What the loader maps and refuses, judged by the kernel's own exec (stopped before the first instruction)."""

import ctypes
import os
import signal
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_programs import BASE, CODE, EXIT, R, W, X, code, header, program, segment

from bytegen.errors import UserError
from bytegen.sandbox import run, run_many
from bytegen.sandbox.linux.system import Linux
from bytegen.sandbox.machine import Machine
from bytegen.sandbox.memory import OutOfMemory, effective

HELLO = program(code("b801000000 bf01000000 488d3510000000 ba05000000 0f05 31ff") + EXIT + b"hello")
MACHINE = Machine()


def load(data: bytes) -> Machine:
    MACHINE.reset(256 << 20)
    Linux(MACHINE, data, stdin=b"", argv=[b"p"], env=[], max_output=0, seed=0, clock=0)
    return MACHINE


def exec_stopped(path: Path) -> dict[int, tuple[int, bytes]] | None:
    """Pages (permissions, content) below 2 GiB after the kernel's exec; None where it refuses or kills.

    The child is traced, stops at the exec and is killed there: none of its instructions runs.
    """
    libc = ctypes.CDLL(None)
    child = os.fork()
    if child == 0:
        try:
            libc.personality(0x0040000)  # no randomisation
            if libc.ptrace(0, 0, 0, 0) == 0:
                os.execve(path, [b"p"], {})
        finally:
            os._exit(127)
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status):
        return None
    pages: dict[int, tuple[int, bytes]] | None = {}
    try:
        if os.WSTOPSIG(status) != signal.SIGTRAP:
            return None
        with open(f"/proc/{child}/maps") as maps, open(f"/proc/{child}/mem", "rb", buffering=0) as memory:
            for line in maps:
                span, flags = line.split()[:2]
                start, end = (int(x, 16) for x in span.split("-"))
                prot = sum(bit for letter, bit in zip("rwx", (1, 2, 4), strict=True) if letter in flags)
                for address in range(start, end if end < 1 << 31 else start, 4096):
                    memory.seek(address)
                    try:
                        content = memory.read(4096)
                    except OSError:  # past the end of the file
                        content = b""
                    assert pages is not None
                    pages[address] = (prot, content)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return pages


def kernel_can_judge() -> bool:
    return (
        sys.platform == "linux" and os.uname().machine == "x86_64" and not hasattr(sys, "pypy_version_info")
    )


judged = pytest.mark.skipif(not kernel_can_judge(), reason="needs Linux on x86-64 as the judge")


def ours(data: bytes) -> dict[int, tuple[int, bytes]] | None:
    try:
        machine = load(data)
    except (UserError, OutOfMemory):
        return None
    pages = {}
    for area in machine.space.areas:
        for address in range(area.start, area.end if area.end < 1 << 31 else area.start, 4096):
            content = b"" if area.absent else machine.engine.read(address, 4096)
            pages[address] = (effective(area.prot), content)
    return pages


def readable(pages: dict[int, tuple[int, bytes]]) -> dict[int, tuple[int, bytes]]:
    return {
        address: (effective(prot), content if prot else b"") for address, (prot, content) in pages.items()
    }


@st.composite
def layouts(draw: st.DrawFn) -> bytes:
    """ELF files of one to three segments at odd places, some of them wrong."""
    size = draw(st.integers(200, 9000))
    body = bytes((i * 7 + i // 251) % 256 for i in range(size))
    phdrs, vaddr = [], BASE
    for _ in range(draw(st.integers(1, 3))):
        offset = draw(st.integers(0, size))
        filesz = draw(st.one_of(st.integers(0, max(size - offset, 0)), st.just(0), st.integers(0, 12000)))
        memsz = filesz + draw(st.one_of(st.just(0), st.integers(0, 9000)))
        skew = draw(st.sampled_from((0, 0, 0, 0, 0, 1, 4096)))
        address = vaddr + offset % 4096 + skew
        phdrs.append(segment(draw(st.integers(0, 7)), offset, address, filesz, memsz))
        vaddr = (address + memsz + 4096 * draw(st.integers(0, 2)) + 4095) & -4096
    return (
        (header(len(phdrs)) + b"".join(phdrs)).ljust(size, b"\0")[:120] + body[120:]
        if len(phdrs) == 1
        else (header(len(phdrs)) + b"".join(phdrs) + body)
    )


@judged
@settings(max_examples=50, deadline=None)
@given(data=layouts())
def test_memory_after_loading_is_the_kernels(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "layout"
    path.write_bytes(data)
    path.chmod(0o755)
    expected, found = exec_stopped(path), ours(data)
    path.unlink()
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert {a: p for a, (p, _) in readable(found).items()} == {
            a: p for a, (p, _) in readable(expected).items()
        }
        for address, (prot, content) in readable(found).items():
            if prot:
                assert content == expected[address][1], hex(address)


@judged
@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, 119), st.one_of(st.integers(0, 255), st.sampled_from((0, 1, 2, 3, 0x40, 0xFF)))
        ),
        min_size=1,
        max_size=3,
    )
)
def test_mutated_headers_are_refused_where_the_kernel_refuses(
    changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(HELLO)
    for offset, value in changes:
        data[offset] = value
    path = tmp_path_factory.getbasetemp() / "mutated"
    path.write_bytes(data)
    path.chmod(0o755)
    expected = exec_stopped(path)
    path.unlink()
    refusal = ""
    try:
        load(bytes(data))
    except OutOfMemory:
        return
    except UserError as error:
        refusal = str(error)
    if any(ours in refusal for ours in ("static programs", "ELF32", "the lowest address")):
        return  # not the kernel's refusals, or (the last) not to root
    assert bool(refusal) == (expected is None), refusal


def test_every_truncation_is_one_line_or_a_run() -> None:
    for size in range(len(HELLO)):
        if size >= 120:
            assert not run(HELLO[:size]).limit
        else:
            with pytest.raises(UserError) as caught:
                run(HELLO[:size], isolated=False)
            assert "\n" not in str(caught.value)
    assert run(HELLO).stdout == b"hello"


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(HELLO) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_mutated_files_never_raise_anything_else(changes: list[tuple[int, int]]) -> None:
    data = bytearray(HELLO)
    for offset, value in changes:
        data[offset] = value
    (result,) = run_many([{"data": bytes(data), "max_instructions": 20_000, "timeout": 5}])
    if isinstance(result, UserError):
        assert "\n" not in str(result)
    else:
        assert result.exit_code is not None or result.fault is not None or result.limit is not None
        assert str(result)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not an ELF file: it starts with nothing"),
        (b"MZ\x90\0" + bytes(100), "not an ELF file: it starts with 4d 5a 90 00"),
        (b"#!/bin/sh\n", "not an ELF file"),
        (HELLO[:40], "truncated ELF file: 40 bytes"),
        (HELLO[:100], "1 program headers at 64 do not fit in 100 bytes"),
        (header(machine=183) + bytes(56), r"e_machine at offset 18 is 183 \(AArch64\)"),
        (header(e_type=1) + bytes(56), "e_type at offset 16 is 1"),
        (HELLO[:4] + b"\x01" + HELLO[5:], "ELF32"),
        (header() + segment(R, 0, BASE, 10, 10, p_type=3), "dynamically linked"),
        (header() + segment(R, 0, BASE, 20, 10), "p_filesz 0x14 is larger than p_memsz 0xa"),
        (header() + segment(R, 0, 0x1000, 20, 20), "p_vaddr 0x1000 is below 0x10000"),
        (header() + segment(R, 1, BASE, 20, 20), "differ modulo 4096"),
        (header() + segment(R, 0, 1 << 47, 20, 20), "leaves the address space"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, says: str) -> None:
    with pytest.raises(UserError, match=says):
        run(data)


def test_stack_holds_arguments_environment_and_auxiliary_vector() -> None:
    """The program writes its stack from rsp up; the test walks it as a C library does."""
    body = code("4889e6 ba", 1 << 12, "b801000000 bf01000000 0f05 31ff") + EXIT
    probe = run(program(body), argv=("one", "zwei"), env=("A=1",))
    assert probe.exit_code == 0
    size = next(call.result for call in probe.syscalls if call.name == "write")
    assert size == -14  # less than a page of stack is above rsp, and a pipe takes whole pages or all
    rsp = probe.syscalls[0].args[1]
    assert rsp % 16 == 0
    length = 0x7FFFFFFFF000 - rsp
    body = code("4889e6 ba", length, "b801000000 bf01000000 0f05 31ff") + EXIT
    stack = run(program(body), argv=("one", "zwei"), env=("A=1",)).stdout
    words = struct.unpack(f"<{len(stack) // 8}Q", stack[: len(stack) // 8 * 8])

    def text(address: int) -> bytes:
        return stack[address - rsp : stack.index(b"\0", address - rsp)]

    assert words[0] == 2
    assert [text(words[1]), text(words[2]), words[3]] == [b"one", b"zwei", 0]
    assert [text(words[4]), words[5]] == [b"A=1", 0]
    vector = dict(zip(words[6::2], words[7::2], strict=False))
    pairs = list(zip(words[6::2], words[7::2], strict=False))
    vector = dict(pairs[: [key for key, _ in pairs].index(0)])
    assert vector[6] == 4096
    assert vector[3] == BASE + 64
    assert vector[5] == 1
    assert vector[9] == CODE
    assert text(vector[31]) == b"one"
    assert text(vector[15]) == b"x86_64"
    assert rsp <= vector[25] < rsp + length


def test_position_independent_program_is_moved() -> None:
    body = code("488d3d00000000 48c1ef20 81e7ff000000") + EXIT
    data = header(entry=120, e_type=3) + segment(R | X, 0, 0, 120 + len(body), 120 + len(body)) + body
    assert run(data).exit_code == 0x55
    data = header(entry=120, e_type=3) + segment(R | W | X, 0, 0, 120 + len(body), 120 + len(body)) + body
    assert run(data).exit_code == 0x55
