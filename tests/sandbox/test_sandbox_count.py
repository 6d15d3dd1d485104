"""The instruction count against independent counts, the limit on it, and the native hooks against an assembler."""

import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_programs import CODE, EXIT, code, program
from unicorn import UC_HOOK_CODE

from bytegen.sandbox import guard, meter, native_code, run
from bytegen.sandbox.machine import Machine


class Counter:
    """Counts by a hook at every instruction: the slow way, independent of blocks."""

    def __init__(self) -> None:
        self.count = 0

    def attach(self, machine: Machine) -> None:
        self.machine = machine
        machine.engine.uc.hook_add(UC_HOOK_CODE, self._step)

    def _step(self, *_: object) -> None:
        self.count += self.machine.live


@st.composite
def loops(draw: st.DrawFn) -> tuple[bytes, int]:
    """Nested straight-line code and counted loops; returns code and the number of instructions it executes."""
    body, total = b"", 0
    for _ in range(draw(st.integers(1, 6))):
        pieces = draw(st.lists(st.sampled_from([code("90"), code("4801c8"), code("488d3410")]), max_size=40))
        inner = b"".join(pieces)
        times = draw(st.integers(1, 300))
        # mov r9d, times; 1: pieces; dec r9d; jnz 1b
        loop = inner + code("41ffc9")
        body += code("41b9", times) + loop + code("0f85", -(len(loop) + 6))
        total += 1 + times * (len(pieces) + 2)
    return body, total


@settings(max_examples=30, deadline=None)
@given(loops())
def test_count_equals_the_closed_form(case: tuple[bytes, int]) -> None:
    body, total = case
    result = run(program(body + code("31ff") + EXIT), isolated=False)
    assert result.exit_code == 0
    assert result.instructions == total + 3


@settings(max_examples=25, deadline=None)
@given(loops(), st.randoms(use_true_random=False))
def test_limit_is_exact_at_any_number(case: tuple[bytes, int], rng: random.Random) -> None:
    body, total = case
    data = program(body + code("31ff") + EXIT)
    for limit in {1, total, total + 2, total + 3, total + 4, rng.randint(1, total + 3)}:
        result = run(data, max_instructions=limit, isolated=False)
        assert result.instructions == min(limit, total + 3)
        assert result.limit == (None if limit >= total + 3 else "instructions")


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=60), st.integers(0, 6))
def test_count_of_arbitrary_code_equals_a_count_at_every_instruction(raw: bytes, ones: int) -> None:
    """A faulting instruction is seen by the slow hook but not completed; a trap (int3) is completed."""
    data = program(code("90") * ones + raw)
    counter = Counter()
    fast = run(data, max_instructions=5000)
    if fast.fault is not None and fast.fault.kind == "emulator failure":
        return
    slow = run(data, max_instructions=5000, observers=[counter], isolated=False)
    assert (fast.ending, fast.instructions, fast.stdout) == (slow.ending, slow.instructions, slow.stdout)
    assert counter.count - fast.instructions in (0, 1)


def test_repeated_string_instructions_count_each_iteration_and_the_last_check() -> None:
    body = code("b9", 3, "be", CODE, "488d7c2480", "f3a4", "31ff") + EXIT
    assert run(program(body), isolated=False).instructions == 3 + (3 + 1) + 3


def test_python_hooks_do_the_same_as_native_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    body = code("b9", 2000, "ffc9 75fc b864000000 99 bb07000000 f7fb 89c7") + EXIT
    data = program(body)
    native = run(data, isolated=False)
    monkeypatch.setattr(meter, "NATIVE_CODE", {})
    monkeypatch.setattr(guard, "NATIVE_CODE", {})
    from bytegen.sandbox import runner

    monkeypatch.setattr(runner, "_take", Machine)
    python = run(data, isolated=False)
    assert python == native
    assert native.exit_code == 14
    assert run(data, max_instructions=777, isolated=False).instructions == 777


def test_rdtsc_is_virtual_time_and_counts_once() -> None:
    body = code("0f31 89c3 0f31 29d8 89c7") + EXIT
    first, second = run(program(body)), run(program(body))
    assert first == second
    assert first.instructions == 7
    assert 0 < (first.exit_code or 0) < 10


@pytest.mark.skipif(sys.platform != "linux", reason="writes a Linux object file")
@pytest.mark.parametrize(
    ("target", "module", "machine"),
    [
        ("x86_64-linux", meter, "x86_64"),
        ("aarch64-linux", meter, "aarch64"),
        ("x86_64-linux", guard, "x86_64"),
    ],
)
def test_native_code_is_what_its_listing_says(tmp_path, target, module, machine) -> None:  # type: ignore[no-untyped-def]
    """Assemble the listing in the module's comments and compare with its bytes."""
    pytest.importorskip("ziglang")
    from elftools.elf.elffile import ELFFile

    mark = "AArch64" if machine == "aarch64" else "rdi = engine"
    lines = open(module.__file__).read().splitlines()  # noqa: SIM115
    at = next(i for i, line in enumerate(lines) if line.startswith("#") and mark in line)
    listing = []
    for line in lines[at + 1 :]:
        if not line.startswith("#"):
            break
        if not line.startswith(("#   ", "# 1:", "# 2:")):
            continue
        text = line[1:].strip()
        listing += text.replace("1: ", "1:;").replace("2: ", "2:;").split(";")
    (tmp_path / "a.s").write_text("\n".join(part.strip() for part in listing) + "\n")
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-c", "a.s", "-o", "a.o"]
    subprocess.run(command, cwd=tmp_path, check=True)
    with open(tmp_path / "a.o", "rb") as file:
        assembled = ELFFile(file).get_section_by_name(".text").data()
    assert assembled == module.NATIVE_CODE[machine]


def test_aarch64_hook_counts_blocks_in_an_emulated_processor() -> None:
    """No AArch64 host is at hand, so its hook runs in Unicorn's AArch64: hit, miss, and out of instructions."""
    import struct

    from unicorn import UC_ARCH_ARM64, UC_MODE_ARM, Uc
    from unicorn import arm64_const as arm

    state, table, hook, end = 0x10000, 0x100000, 0x20000, 0x30000

    def call(left: int, known: int, count: int, address: int) -> tuple[int, list[int]]:
        uc = Uc(UC_ARCH_ARM64, UC_MODE_ARM)
        for page, size in ((state, 0x1000), (table, 1 << 18), (hook, 0x1000), (end, 0x3000)):
            uc.mem_map(page, size)
        uc.mem_write(hook, meter.NATIVE_CODE["aarch64"])
        uc.mem_write(state, struct.pack("<7q", left, table, end + 0x1000, end + 0x2000, 0, 0, 0))
        uc.mem_write(table + 16 * (known % (1 << 14)), struct.pack("<QQ", known, count))
        uc.reg_write(arm.UC_ARM64_REG_X1, address)
        uc.reg_write(arm.UC_ARM64_REG_X3, state)
        uc.reg_write(arm.UC_ARM64_REG_LR, end)
        uc.ctl_exits_enabled(True)
        uc.ctl_set_exits([end, end + 0x1000, end + 0x2000])
        uc.emu_start(hook, 0)
        words = list(struct.unpack("<7q", uc.mem_read(state, 56)))
        return uc.reg_read(arm.UC_ARM64_REG_PC), [words[0], *words[4:]]

    assert call(100, 0x401234, 7, 0x401234) == (end, [93, 0x401234, 7, 0])
    assert call(100, 0x401234, 7, 0x405234) == (end + 0x1000, [100, 0, 0, 0])
    assert call(6, 0x401234, 7, 0x401234) == (end + 0x2000, [6, 0, 0, 1])
    assert call(7, 0x401234, 7, 0x401234) == (end, [0, 0x401234, 7, 0])


def test_host_machine_has_native_code_here() -> None:
    if native_code.host_machine() not in meter.NATIVE_CODE:
        pytest.skip("no native hooks for this host")
    assert Machine().meter._native.address is not None
