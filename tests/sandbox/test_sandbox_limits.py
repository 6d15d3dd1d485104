"""Programs that loop, flood, eat memory, fork or hang: each ends with the limit it passed."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_programs import EXIT, R, W, X, code, program

from bytegen.errors import UserError
from bytegen.sandbox import run, run_many
from bytegen.sandbox.linux.names import NAMES

EXIT_0 = code("31ff") + EXIT
ENDLESS = {
    "a loop": code("ebfe"),
    "system calls": code("b827000000 0f05 ebf7"),
    "rdtsc": code("0f31 ebfc"),
    "refused calls": code("b839000000 0f05 ebf7"),
    "a repeated instruction": code("b964000000 48c7c600004000 f3ac ebf0"),
    "code that rewrites itself": code("fe0501000000 b800000000 ebf3"),
    "divisions": code("b864000000 99 b907000000 f7f9 ebf1"),
    "sleeps": code("6a00 6a01 4889e7 31f6 b823000000 0f05 ebf5"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_program_is_stopped_by_either_limit(name: str) -> None:
    data = program(ENDLESS[name], R | W | X)
    counted = run(data, max_instructions=3000, timeout=30)
    assert (counted.limit, counted.instructions) == ("instructions", 3000)
    timed = run(data, max_instructions=1 << 60, timeout=0.3)
    assert timed.limit == "time"
    assert not timed.ok


@pytest.mark.parametrize("name", ["pause", "poll", "futex"])
def test_program_that_would_wait_for_ever_is_out_of_time_at_once(name: str) -> None:
    body = {
        "pause": code("b822000000 0f05"),
        "poll": code("31ff 31f6 48c7c2ffffffff b807000000 0f05"),
        "futex": code("6a05 4889e7 31f6 ba05000000 4d31d2 b8ca000000 0f05"),
    }[name]
    result = run(program(body + EXIT_0), timeout=60)
    assert result.limit == "time"
    assert result.instructions < 20


@given(st.integers(0, 300), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_flood_fills_the_limit_on_output_and_no_more(limit: int, piece: int) -> None:
    body = code("b801000000 bf01000000 be00004000 ba", piece, "0f05 ebe8")
    result = run(program(body), max_output=limit, isolated=False)
    assert result.limit == "output"
    assert len(result.stdout) == limit


def test_memory_beyond_the_limit_is_refused_and_the_program_goes_on() -> None:
    body = (
        code("b809000000 31ff be00000040 ba03000000 41ba22000000 49c7c0ffffffff 4531c9 0f05 89c7 f7df") + EXIT
    )
    result = run(program(body), memory=16 << 20)
    assert result.exit_code == 12  # ENOMEM
    assert result.limit is None
    assert run(program(body), memory=2 << 30).exit_code == 0


def test_program_that_dies_of_refused_memory_is_out_of_memory() -> None:
    grab = code("b809000000 31ff be00001000 ba03000000 41ba22000000 49c7c0ffffffff 4531c9 0f05")
    body = grab + code("c60001 ebd8")
    result = run(program(body), memory=64 << 20)
    assert result.limit == "memory"
    assert result.fault is not None
    assert result.syscall_count > 50


def test_break_that_cannot_grow_stays() -> None:
    body = code("b80c000000 31ff 0f05 4889c3 488db8000000 10 b80c000000 0f05 4829d8 89c7") + EXIT
    assert run(program(body), memory=16 << 20).exit_code == 0


def test_huge_bss_is_out_of_memory() -> None:
    result = run(program(EXIT_0, R | W | X, memsz=1 << 40))
    assert (result.limit, result.instructions) == ("memory", 0)


@pytest.mark.parametrize(
    "name", ["fork", "vfork", "clone", "execve", "open", "openat", "socket", "ptrace", "mount"]
)
def test_system_call_to_the_outside_is_refused_and_recorded(name: str) -> None:
    number = {value: key for key, value in NAMES.items()}[name]
    result = run(program(code("b8", number, "0f05 89c7 f7df") + EXIT))
    assert result.exit_code == 38
    assert result.refused == (name,)
    assert (result.syscalls[0].name, result.syscalls[0].result) == (name, -38)


@pytest.mark.parametrize("number", [335, 423, 500, 0x7FFFFFFF, 0xFFFFFFFF])
def test_unknown_system_call_is_refused(number: int) -> None:
    result = run(program(code("b8", number, "0f05 89c7 f7df") + EXIT))
    assert result.exit_code == 38
    assert result.refused == (f"syscall_{number}",)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 334),
    st.lists(
        st.one_of(
            st.integers(0, 64),
            st.sampled_from((0x400000, 0x400FFF, 0x401000, 0x7FFFFFFFE000, 1 << 47, (1 << 64) - 1, 1 << 63)),
            st.integers(0, (1 << 64) - 1),
        ),
        min_size=6,
        max_size=6,
    ),
)
def test_no_arguments_of_a_system_call_bring_the_sandbox_down(number: int, arguments: list[int]) -> None:
    loads = ("48bf", "48be", "48ba", "49ba", "49b8", "49b9")
    body = b"".join(
        code(op) + value.to_bytes(8, "little") for op, value in zip(loads, arguments, strict=True)
    )
    result = run(program(body + code("b8", number, "0f05") + EXIT_0), isolated=False, memory=64 << 20)
    assert result.syscall_count in (1, 2)
    assert result.exit_code is not None or result.fault is not None or result.limit is not None


def test_sleep_passes_virtual_time_only() -> None:
    body = code("6a00 68", 3600, "4889e7 31f6 b823000000 0f05") + EXIT_0
    result = run(program(body), timeout=5)
    assert result.exit_code == 0
    assert result.slept_ns == 3600 * 10**9
    assert result.seconds < 5


def test_same_arguments_same_result_and_nothing_left_from_other_programs() -> None:
    """Random numbers, registers and memory of one run do not depend on the runs before it on the same machine."""
    probe = program(
        code(
            "4883ec40 4889e7 be20000000 31d2 b83e010000 0f05 0f1145f0"
            "4889e6 ba40000000 bf01000000 b801000000 0f05"
        )[: -0 or None].replace(code("0f1145f0"), b"")
        + EXIT_0
    )
    dirty = program(
        code("48c7c0ffffffff 66480f6ec0 d9e8 d9eb 9d fd", "c7042537130000")[:20]
        + code("b809000000 bf00001000 be00100000 ba07000000 41ba32000000 0f05 c70001020304 31ff")
        + EXIT,
        R | W | X,
    )
    first = run(probe, isolated=False)
    assert first.exit_code == 0
    assert len(first.stdout) == 64
    for _ in range(3):
        run(dirty, isolated=False)
        assert run(probe, isolated=False) == first
    assert run(probe) == first
    assert run(probe, seed=1).stdout != first.stdout


def test_memory_of_the_last_program_is_gone() -> None:
    write = program(code("b809000000 bf00001000 be00100000 ba03000000 41ba32000000 0f05 c60042 31ff") + EXIT)
    read = program(code("8b3c2500001000") + EXIT)
    assert run(write, isolated=False).exit_code == 0
    fault = run(read, isolated=False).fault
    assert fault is not None
    assert (fault.kind, fault.address) == ("read", 0x100000)


def test_many_runs_keep_their_order_and_their_errors() -> None:
    jobs = [{"data": program(code("bf", i) + EXIT)} for i in range(40)]
    jobs.insert(7, {"data": b"not a program"})
    expected = [i if i < 7 else i - 1 for i in range(41)]
    with ThreadPoolExecutor(2) as pool:
        for results in (run_many(jobs), run_many(jobs, pool, chunk=3)):
            for i, result in enumerate(results):
                if i == 7:
                    assert isinstance(result, UserError)
                else:
                    assert not isinstance(result, UserError)
                    assert result.exit_code == expected[i]


@pytest.mark.parametrize("bad", [{"timeout": 0}, {"max_instructions": 0}, {"memory": -1}, {"max_output": -1}])
def test_limit_that_makes_no_sense_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        run(program(EXIT_0), **bad)  # type: ignore[arg-type]
