"""How programs die: each hand-written program also runs on this machine's processor, and the signals must agree."""

import signal
from pathlib import Path

import pytest
from sandbox_programs import BASE, CODE, EXIT, R, W, X, can_run_native, code, program, run_native

from bytegen.sandbox import run

# name: (code, kind of fault)
FAULTS = {
    "hlt": ("90 f4", "privileged instruction"),
    "cli": ("fa", "privileged instruction"),
    "in": ("e410", "privileged instruction"),
    "out": ("ee", "privileged instruction"),
    "mov to cr3": ("0f22d8", "privileged instruction"),
    "rdmsr": ("0f32", "privileged instruction"),
    "lgdt": ("0f011424", "privileged instruction"),
    "iretq": ("48cf", "privileged instruction"),
    "sysret": ("0f07", "privileged instruction"),
    "rdpmc": ("0f33", "privileged instruction"),
    "ud2": ("90 0f0b", "invalid instruction"),
    "lock nop": ("f090", "invalid instruction"),
    "push es": ("06", "invalid instruction"),
    "int3": ("90 cc", "breakpoint"),
    "int 3": ("cd03", "breakpoint"),
    "int1": ("f1", "single step"),
    "trap flag": ("6800010000 9d 90 90", "single step"),
    "int 4": ("cd04", "int 0x4"),
    "int 0": ("cd00", "int 0x0"),
    "int 6": ("cd06", "int 0x6"),
    "int 0xff": ("cdff", "int 0xff"),
    "div by zero": ("31c9 f7f1", "divide"),
    "idiv overflow": ("31c0 ba00000080 b9ffffffff f7f9", "divide"),
    "idiv overflow, r9d": ("31c0 ba00000080 41b9ffffffff 41f7f9", "divide"),
    "idiv overflow, memory": ("31c0 ba00000080 c70424ffffffff f73c24", "divide"),
    "idiv overflow, 16 bits": ("31c0 66ba0080 b9ffffffff 66f7f9", "divide"),
    "idiv overflow, many prefixes": ("31c0 66ba0080 b9ffffffff 6666666666 66f7f9", "divide"),
    "idiv overflow, 64 bits": ("31c0 48ba0000000000000080 48c7c1ffffffff 48f7f9", "divide"),
    "idiv overflow, 8 bits": ("66b80080 b1ff f6f9", "divide"),
    "read null": ("488b042500000000", "read"),
    "write null": ("4889042500000000", "write"),
    "write code": ("488904250000" + "4000", "write"),
    "read kernel": ("48c7c0000000ff 488b00", "read"),
    "read non-canonical": ("48b80000000000000080 488b00", "read"),
    "read an alias of the program": ("48b80000400000000080 488b00", "read"),
    "jump to null": ("31c0 ffe0", "fetch"),
    "jump to the stack": ("6a00 4889e0 ffe0", "fetch"),
    "jump non-canonical": ("48b80000000000000080 ffe0", "fetch"),
    "return to null": ("6a00 c3", "fetch"),
    "endless recursion": ("e8fbffffff", "write"),
    "too deep": ("b900002000 50 ffc9 75fb", "write"),
    "unmaps itself": ("b80b000000 bf00004000 be00100000 0f05 90", "fetch"),
    "takes its own execute permission": ("b80a000000 bf00004000 be00100000 ba01000000 0f05 90", "fetch"),
    "aborts": ("b827000000 0f05 89c7 be06000000 b83e000000 0f05", "signal"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_the_processors(name: str, tmp_path: Path) -> None:
    text, kind = FAULTS[name]
    data = program(code(text))
    result = run(data)
    assert result.fault is not None
    assert result.exit_code is None
    assert result.fault.kind == kind
    if can_run_native():
        returncode, _ = run_native(data, tmp_path)
        assert result.fault.signal == signal.Signals(-returncode).name


# Programs that must not fault, with the exit code the processor gives.
SURVIVORS = {
    "stack within its limit": code("b900000800 50 ffc9 75fb 31ff") + EXIT,
    "writes far down the stack": code("488dac2400008fff 48c7450001000000 31ff") + EXIT,
    "rewrites its own immediate": code("c605010000002a bf07000000") + EXIT,
    "signed division": code("b864000000 99 b907000000 f7f9 89c7") + EXIT,
    "unaligned": code("8b442401 31ff") + EXIT,
    "bss of a read-only segment": code("c704250020400007000000 8b3c2500204000") + EXIT,
    "zero after the file": code("8b3c25f00f4000") + EXIT,
    "write beyond its page": code("b801000000 bf01000000 bef00f4000 ba64000000 0f05 89c7") + EXIT,
    "write of everything": code("b801000000 bf01000000 be00004000 48c7c2ffffffff 0f05 89c7") + EXIT,
    "write of nothing mapped": code("b801000000 bf01000000 31f6 ba04000000 0f05 89c7") + EXIT,
    "munmap of a hole": code("b80b000000 bf00005000 be00100000 0f05 89c7") + EXIT,
}


@pytest.mark.parametrize("name", SURVIVORS)
@pytest.mark.skipif(not can_run_native(), reason="needs a Linux x86-64 processor as the judge")
def test_survivor_exits_as_on_the_processor(name: str, tmp_path: Path) -> None:
    data = program(SURVIVORS[name], R | X if "bss" in name or "after" in name else R | W | X, 0x3000)
    result = run(data)
    assert (result.exit_code, result.stdout) == run_native(data, tmp_path), str(result)


def test_fault_says_where_and_what() -> None:
    fault = run(program(code("90 4889042500004000"))).fault
    assert fault is not None
    assert (fault.kind, fault.address, fault.ip, fault.signal) == ("write", BASE, CODE + 1, "SIGSEGV")
    assert fault.code == code("4889042500004000")
    assert fault.disassembly == "mov qword ptr [0x400000], rax"
    assert str(fault) == (
        "SIGSEGV: write of address 0x400000 at 0x400079: "
        "mov qword ptr [0x400000], rax [48 89 04 25 00 00 40 00]"
    )


def test_avx_is_an_invalid_instruction_rather_than_a_wrong_result() -> None:
    fault = run(program(code("c5f857c0"))).fault
    assert fault is not None
    assert (fault.signal, fault.ip) == ("SIGILL", CODE)


def test_int_0x80_is_refused_by_name() -> None:
    fault = run(program(code("b801000000 cd80"))).fault
    assert fault is not None
    assert (fault.kind, fault.signal, fault.ip) == ("int 0x80", "SIGSEGV", CODE + 5)


def test_program_that_aborts_the_emulator_leaves_the_caller_alive() -> None:
    crash = run(program(code("f00fb3e9") + code("31ff") + EXIT))
    assert crash.fault is not None  # `lock btr ecx, ebp`: invalid on a processor, an abort inside Unicorn
    assert not crash.ok
    assert run(program(code("31ff") + EXIT)).exit_code == 0


def test_page_past_the_end_of_the_file_is_sigbus() -> None:
    from sandbox_programs import header, segment

    body = code("8b042500204000")
    data = header() + segment(R | X, 0, BASE, 0x3000, 0x3000) + body
    fault = run(data).fault
    assert fault is not None
    assert (fault.kind, fault.signal, fault.address) == ("bus", "SIGBUS", 0x402000)
