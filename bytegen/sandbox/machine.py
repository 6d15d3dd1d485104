"""The machine: engine, memory and meter put together, and the loop that runs a program on them within its
limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import capstone
from unicorn import unicorn_const as uc_const
from unicorn import x86_const as x86
from unicorn.unicorn_py3.arch.intel import HOOK_INSN_IN_CFUNC, HOOK_INSN_OUT_CFUNC, HOOK_INSN_SYSCALL_CFUNC
from unicorn.unicorn_py3.unicorn import HOOK_INTR_CFUNC, HOOK_MEM_INVALID_CFUNC

from bytegen.sandbox.engine import Engine, guarded
from bytegen.sandbox.guard import Guard
from bytegen.sandbox.memory import AddressSpace
from bytegen.sandbox.meter import Meter
from bytegen.sandbox.result import Ended, Fault

_FIRST_SLICE = 200_000
_SLICES = (50_000, 50_000_000)
_SLICE_SECONDS = 0.02

_ACCESS = {
    uc_const.UC_MEM_READ_UNMAPPED: "read",
    uc_const.UC_MEM_READ_PROT: "read",
    uc_const.UC_MEM_WRITE_UNMAPPED: "write",
    uc_const.UC_MEM_WRITE_PROT: "write",
    uc_const.UC_MEM_FETCH_UNMAPPED: "fetch",
    uc_const.UC_MEM_FETCH_PROT: "fetch",
}
# Interrupt number -> kind, signal (arch/x86/kernel/traps.c). Others, which only `int n` raises, are #GP in
# user mode.
_INTERRUPTS = {
    0: ("divide", "SIGFPE"),
    1: ("single step", "SIGTRAP"),
    3: ("breakpoint", "SIGTRAP"),
    6: ("invalid instruction", "SIGILL"),
    11: ("segment", "SIGBUS"),
    12: ("stack segment", "SIGBUS"),
    13: ("privileged instruction", "SIGSEGV"),
    16: ("floating point", "SIGFPE"),
    17: ("alignment", "SIGBUS"),
    19: ("floating point", "SIGFPE"),
}
_ACCESS_ERRORS = (
    uc_const.UC_ERR_READ_UNMAPPED,
    uc_const.UC_ERR_READ_PROT,
    uc_const.UC_ERR_WRITE_UNMAPPED,
    uc_const.UC_ERR_WRITE_PROT,
    uc_const.UC_ERR_FETCH_UNMAPPED,
    uc_const.UC_ERR_FETCH_PROT,
)
_RDTSC, _RDTSCP = b"\x0f\x31", b"\x0f\x01\xf9"


class System(Protocol):
    """An operating system's side of a process, as the machine needs it."""

    def system_call(self) -> None:
        """Serve the SYSCALL instruction at rip. Raises Ended where it does not return."""

    def grow(self, address: int) -> bool:
        """Map memory that is due on its first touch (a stack); False where `address` is none."""

    def counter(self) -> int:
        """What RDTSC reads."""


class Observer(Protocol):
    """Watches a run, such as a tracer."""

    def attach(self, machine: Machine) -> None:
        """Called before the first instruction, with the program loaded: add hooks to `machine.engine.uc`
        here.
        """


class Machine:
    """One emulated computer, used for one program after another. Not for two threads at a time.

    `engine`, `space` and `meter` are open to systems and observers.
    """

    def __init__(self) -> None:
        self._retrying = False
        self._error: BaseException | None = None
        self._ended: Ended | None = None
        self._system: System | None = None
        self._deadline = 0.0
        self._counter_wanted = False
        self.engine = engine = Engine()
        self.space = AddressSpace(engine)
        self.meter = Meter(engine, self._translated, self._fail)
        self.guard = Guard(engine, self._overflow, self._refused, self._fail)
        self._again = False
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._watch = HOOK_MEM_INVALID_CFUNC(guarded(self._bad_access, self._fail, False))
        self._add(uc_const.UC_HOOK_INTR, HOOK_INTR_CFUNC, self._interrupt)
        self._add(uc_const.UC_HOOK_INSN, HOOK_INSN_SYSCALL_CFUNC, self._syscall, x86.UC_X86_INS_SYSCALL)
        self._add(uc_const.UC_HOOK_INSN, HOOK_INSN_SYSCALL_CFUNC, self._privileged, x86.UC_X86_INS_SYSENTER)
        self._add(uc_const.UC_HOOK_INSN, HOOK_INSN_IN_CFUNC, self._privileged, x86.UC_X86_INS_IN, default=0)
        self._add(uc_const.UC_HOOK_INSN, HOOK_INSN_OUT_CFUNC, self._privileged, x86.UC_X86_INS_OUT)

    def _add(
        self,
        kind: int,
        prototype: type,
        callback: Callable[..., object],
        instruction: int = 0,
        default: object = None,
    ) -> None:
        self.engine.hook(kind, prototype(guarded(callback, self._fail, default)), None, instruction)

    def reset(self, memory: int) -> None:
        """Forget the last program: memory, registers, translations, counts. `memory` is the new limit in
        bytes.
        """
        self.space.reset(memory)
        self.engine.reset()
        self.meter.reset()
        self.guard.reset()
        self._again = self._retrying = False
        self._error = self._ended = self._system = None
        self._counter_wanted = False

    @property
    def live(self) -> bool:
        """Whether what a hook sees is part of the run.

        It is not where an instruction whose access failed is tried once more, to learn the address or because the
        stack has grown, nor in the rest of a block after the program's end.
        """
        return not self._retrying and self._ended is None

    @property
    def worn(self) -> bool:
        """Whether the last program left so much behind that a new machine is cheaper than a reset."""
        return len(self.space.areas) > 64 or self.space.total > 64 << 20

    def run(self, system: System, entry: int, max_instructions: int, timeout: float) -> Ended:
        """Run from `entry` until the program ends or passes a limit, at most `timeout` seconds of real time.

        An exception of a hook is raised here.
        """
        self._system = system
        self._deadline = time.perf_counter() + timeout
        meter, engine = self.meter, self.engine
        size = _FIRST_SLICE
        meter.grant(min(size, max_instructions))
        rip = entry
        while True:
            began = time.perf_counter()
            before = rip, meter.executed
            error = engine.start(rip)
            self._check(error)
            if self._ended is not None:
                return self._ended
            rip = engine.rip
            if self._counter_wanted:
                rip = self._read_counter(rip)
            elif self._again:
                self._translate_again(rip)
            elif meter.out and meter.granted >= max_instructions:
                return self._finish(rip)
            elif meter.out:
                seconds = max(time.perf_counter() - began, 1e-6)
                size = int(min(max(size * _SLICE_SECONDS / seconds, _SLICES[0]), _SLICES[1]))
                meter.grant(min(size, max_instructions - meter.granted))
            elif not error and before == (
                rip,
                meter.executed,
            ):  # changes of the map stop the engine, but not twice
                self._end(self._fault("stopped", "SIGSEGV", rip))
            self._check_time()
            if self._ended is not None:
                return self._ended

    def _finish(self, rip: int) -> Ended:
        """Spend the last instructions, fewer than the next block has."""
        meter = self.meter
        while meter.left > 0 and self._ended is None:
            self._check(meter.run_exactly(rip, meter.left))
            rip = self.engine.rip
            if self._counter_wanted and self._ended is None:
                rip = self._read_counter(rip)
            elif self._again:
                self._translate_again(rip)
            self._check_time()
        return self._ended or Ended(limit="instructions")

    def _check(self, error: int) -> None:
        """Turn what `start` returned into the end, or map what was due; raise what a hook raised."""
        if self._error is None and self._ended is None and error:
            rip = self.engine.rip
            self.meter.settle(rip)
            if error == uc_const.UC_ERR_INSN_INVALID:
                self._end(self._invalid(rip))
            elif error in _ACCESS_ERRORS:
                self._retrying = True
                with self.engine.watching(self._watch):  # again, to learn the address
                    error = self.meter.run_exactly(rip, 1)
                self._retrying = False
                if error and self._ended is None:
                    self._end(self._fault("exception", "SIGSEGV", rip))
            else:
                self._end(self._fault("exception", "SIGSEGV", rip))
        if self._error is not None:
            raise self._error

    def _end(self, fault: Fault) -> None:
        self._ended = Ended(fault=fault)

    def _fail(self, error: BaseException) -> None:
        """An exception in a hook: the first one is kept, and the emulation stops."""
        if self._error is None and self._ended is None:
            if isinstance(error, Ended):
                self._ended = error
            else:
                self._error = error
        self.engine.stop()

    def _translated(self, address: int, size: int) -> None:
        """A block is about to run for the first time."""
        if self.guard.inspect(address, size):
            self._again = True
            self.engine.stop()
        self._check_time()

    def _translate_again(self, rip: int) -> None:
        self._again = False
        self.meter.settle(rip)
        self.engine.uc.ctl_flush_tb()

    def _overflow(self) -> None:
        """The guard stopped a division."""
        if self._ended is None:
            rip = self.engine.rip
            self.meter.settle(rip)
            self._end(self._fault("divide", "SIGFPE", rip))

    def _refused(self) -> None:
        """The guard stopped an instruction that this processor does not have."""
        if self._ended is None:
            rip = self.engine.rip
            self.meter.settle(rip)
            self._end(self._invalid(rip))

    def _check_time(self) -> None:
        if time.perf_counter() > self._deadline and self._ended is None:
            self._ended = Ended(limit="time")
            self.engine.stop()

    def _syscall(self, _handle: int, _user: int) -> None:
        if self._ended is not None:  # the rest of a block after the program's end
            self.engine.stop()
            return
        assert self._system is not None
        self._system.system_call()
        self._check_time()

    def _privileged(self, *_arguments: object) -> int:
        if self._ended is None:
            rip = self.engine.rip
            self.meter.settle(rip)
            self._end(self._fault("privileged instruction", "SIGSEGV", rip))
        self.engine.stop()
        return 0

    def _bad_access(
        self, _handle: int, access: int, address: int, _size: int, _value: int, _user: int
    ) -> bool:
        address &= (1 << 64) - 1
        if self._ended is not None:
            return False
        assert self._system is not None
        unmapped = access not in (
            uc_const.UC_MEM_READ_PROT,
            uc_const.UC_MEM_WRITE_PROT,
            uc_const.UC_MEM_FETCH_PROT,
        )
        if unmapped and self._system.grow(address):
            return True
        rip = self.engine.rip
        area = self.space.find(address)
        if area is not None and area.absent:
            self._end(self._fault("bus", "SIGBUS", rip, address))
        else:
            self._end(self._fault(_ACCESS.get(access, "read"), "SIGSEGV", rip, address))
        return False

    def _interrupt(self, _handle: int, number: int, _user: int) -> None:
        engine = self.engine
        rip = engine.rip
        code = self.space.peek(rip, 15)
        if number == 13 and code.startswith((_RDTSC, _RDTSCP)):
            self._counter_wanted = True
        elif self._ended is None:
            software = self._software_interrupt(rip, number, code)
            if software is not None:
                kind, signal = ("breakpoint", "SIGTRAP") if number == 3 else (f"int {number:#x}", "SIGSEGV")
                self._end(self._fault(kind, signal, software))
            else:
                self.meter.settle(rip)
                kind, signal = _INTERRUPTS.get(number, ("exception", "SIGSEGV"))
                self._end(self._fault(kind, signal, rip))
        engine.stop()

    def _software_interrupt(self, rip: int, number: int, code: bytes) -> int | None:
        """Address of the `int` instruction that ended at `rip`; None where the processor raised the
        interrupt.
        """
        before = self.space.peek(rip - 2, 2) if rip >= 2 else b""
        if number == 3 and before[1:] == b"\xcc":
            return rip - 1
        divides = number == 0 and any(
            name in ("div", "idiv") for _, _, name, _ in self._decoder.disasm_lite(code, rip, 1)
        )
        return rip - 2 if before == bytes((0xCD, number & 0xFF)) and not divides else None

    def _read_counter(self, rip: int) -> int:
        """Do a trapped RDTSC or RDTSCP; returns the address after it."""
        assert self._system is not None
        self._counter_wanted = False
        self.meter.settle(rip)
        self.meter.spend(1)
        self.engine.forget_exception()
        value = self._system.counter()
        self.engine.set(x86.UC_X86_REG_RAX, value & 0xFFFF_FFFF)
        self.engine.set(x86.UC_X86_REG_RDX, value >> 32)
        if self.space.peek(rip, 15).startswith(_RDTSC):
            return rip + len(_RDTSC)
        self.engine.set(x86.UC_X86_REG_RCX, 0)
        return rip + len(_RDTSCP)

    def _fault(self, kind: str, signal: str, ip: int, address: int | None = None) -> Fault:
        code = self.space.peek(ip, 15)
        for _, size, mnemonic, operands in self._decoder.disasm_lite(code, ip, 1):
            return Fault(kind, signal, ip, address, code[:size], f"{mnemonic} {operands}".strip())
        return Fault(kind, signal, ip, address, code, "")

    def _invalid(self, rip: int) -> Fault:
        """The fault of an instruction that the engine refuses to decode, some of which are #GP to a
        processor.
        """
        code = self.space.peek(rip, 15)
        if code[:1] == b"\xf1":  # int1
            return self._fault("single step", "SIGTRAP", rip)
        if code[:1] == b"\xcd":
            return self._fault(f"int {code[1]:#x}", "SIGSEGV", rip)
        opcode = code[1:] if code and code[0] & 0xF0 == 0x40 else code
        if opcode.startswith((b"\x0f\x07", b"\x0f\x33")):  # sysret, rdpmc
            return self._fault("privileged instruction", "SIGSEGV", rip)
        return self._fault("invalid instruction", "SIGILL", rip)
