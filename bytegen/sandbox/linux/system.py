"""Linux for the machine: loads a program, serves its system calls, grows its stack, answers its clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unicorn import x86_const as x86

from bytegen.sandbox.linux import calls_io, calls_memory, calls_process
from bytegen.sandbox.linux.elf import read_elf
from bytegen.sandbox.linux.loader import STACK_LIMIT, STACK_TOP, build_stack, load_image
from bytegen.sandbox.linux.process import Process
from bytegen.sandbox.machine import Machine
from bytegen.sandbox.memory import EXEC, READ, WRITE, OutOfMemory, page_down

HANDLERS: dict[int, Callable[..., int]] = {
    **calls_io.HANDLERS,
    **calls_memory.HANDLERS,
    **calls_process.HANDLERS,
}
_GROWTH = 128 << 10


class Linux:
    """One program on one machine; see `bytegen.sandbox.run` for the parameters.

    Raises UserError where the file is not a program that the kernel would start, OutOfMemory where it does
    not fit.
    """

    def __init__(
        self,
        machine: Machine,
        data: bytes,
        *,
        stdin: bytes,
        argv: Sequence[bytes],
        env: Sequence[bytes],
        max_output: int,
        seed: int,
        clock: int,
    ) -> None:
        image = read_elf(data)
        self._space = machine.space
        self.process = process = Process(
            engine=machine.engine,
            space=machine.space,
            executed=lambda: machine.meter.executed,
            stdin=stdin,
            max_output=max_output,
            seed=seed,
            clock=clock,
            path=b"/" + (argv[0] if argv else b"program"),
        )
        process.brk_start = process.brk = load_image(machine.space, image)
        pointer = build_stack(machine.space, image, argv, env, process.random.randbytes(16))
        machine.engine.set(x86.UC_X86_REG_RSP, pointer)
        self._stack_prot = READ | WRITE | (EXEC if image.executable_stack else 0)
        self.entry = image.entry

    def system_call(self) -> None:
        """Serve the SYSCALL instruction at rip. Raises Ended where it does not return."""
        self.process.system_call(HANDLERS)

    def grow(self, address: int) -> bool:
        """Extend the stack down to `address` or further, if that is within its limit and free."""
        lowest = STACK_TOP - STACK_LIMIT
        if not lowest <= address < STACK_TOP:
            return False
        end = next((area.start for area in self._space.areas if area.start > address), STACK_TOP)
        start = max(page_down(address) - max(_GROWTH, STACK_TOP - end), lowest)  # doubling: a growth is slow
        below = [area.end for area in self._space.areas if start < area.end <= address]
        start = max([start, *below])
        try:
            self._space.map(start, end - start, self._stack_prot)
        except OutOfMemory:
            return False
        return True

    def counter(self) -> int:
        """What RDTSC reads: virtual nanoseconds."""
        return self.process.elapsed_ns
