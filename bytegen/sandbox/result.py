"""What a run in the sandbox came to: output, exit, fault or limit, and the system calls on the way."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

SIGNAL_NUMBERS = {
    "SIGHUP": 1,
    "SIGINT": 2,
    "SIGQUIT": 3,
    "SIGILL": 4,
    "SIGTRAP": 5,
    "SIGABRT": 6,
    "SIGBUS": 7,
    "SIGFPE": 8,
    "SIGKILL": 9,
    "SIGUSR1": 10,
    "SIGSEGV": 11,
    "SIGUSR2": 12,
    "SIGPIPE": 13,
    "SIGALRM": 14,
    "SIGTERM": 15,
    "SIGSYS": 31,
}


def signal_name(number: int) -> str:
    """Name of a Linux x86-64 signal, such as `SIGSEGV`; `SIG34` for those without a name here."""
    for name, value in SIGNAL_NUMBERS.items():
        if value == number:
            return name
    return f"SIG{number}"


@dataclass(frozen=True)
class Fault:
    """Why a program died.

    `kind`: `read`, `write`, `fetch` (of memory that is not mapped or not permitted), `invalid instruction`,
    `privileged instruction`, `divide`, `breakpoint`, `single step`, `interrupt`, `floating point`, `bus` (a
    page past the end of the file) or `signal` (the program killed itself). `signal` is what a Linux kernel
    would send. `address` is the memory address in question, `ip` that of the instruction, `code` its bytes.
    """

    kind: str
    signal: str
    ip: int
    address: int | None = None
    code: bytes = b""
    disassembly: str = ""

    @property
    def signal_number(self) -> int:
        """The signal's number on x86-64, so that a shell's exit status is 128 plus it."""
        return SIGNAL_NUMBERS.get(self.signal) or int(self.signal[3:])

    def __str__(self) -> str:
        what = self.kind if self.address is None else f"{self.kind} of address {self.address:#x}"
        text = f"{self.signal}: {what} at {self.ip:#x}"
        if self.disassembly:
            text += f": {self.disassembly} [{self.code.hex(' ')}]"
        return text


class Ended(Exception):
    """The program is over: raised by a system's handlers in place of returning."""

    def __init__(
        self, *, exit_code: int | None = None, fault: Fault | None = None, limit: str | None = None
    ) -> None:
        super().__init__()
        self.exit_code = exit_code
        self.fault = fault
        self.limit = limit


@dataclass(frozen=True)
class Syscall:
    """One system call: its arguments as unsigned 64-bit registers, its result (negative: minus errno).

    `result` is None where the call did not return (exit, a fatal signal, an output limit).
    """

    number: int
    name: str
    args: tuple[int, ...]
    result: int | None

    def __str__(self) -> str:
        args = ", ".join(str(a) if a < 4096 else hex(a) for a in self.args)
        return f"{self.name}({args}) = {'?' if self.result is None else self.result}"


@dataclass(frozen=True)
class Result:
    """The outcome of `run`.

    One of `exit_code`, `fault` and `limit` is not None. `limit` is `instructions`, `time`, `memory` or
    `output`; it is `memory` beside a `fault` where an allocation had been refused before. `instructions`
    counts those completed: each iteration of a repeated string instruction counts as one, and so does the
    check that ends it; the instruction that faults does not count. `syscalls` holds the first ones
    (`syscall_count` counts all), `refused` the names of those that were answered ENOSYS, once each.
    `slept_ns` is the virtual time asked for by sleeps.
    """

    stdout: bytes
    stderr: bytes
    exit_code: int | None
    fault: Fault | None
    limit: str | None
    instructions: int
    syscalls: tuple[Syscall, ...] = ()
    syscall_count: int = 0
    refused: tuple[str, ...] = ()
    slept_ns: int = 0
    seconds: float = field(default=0.0, compare=False)

    @property
    def ok(self) -> bool:
        """True where the program ended by itself, with whatever exit code."""
        return self.exit_code is not None

    @property
    def ending(self) -> str:
        """How it ended, in one line."""
        if self.exit_code is not None:
            return f"exit code {self.exit_code}"
        if self.fault is not None:
            return str(self.fault)
        return f"stopped by the limit on {self.limit}"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON; bytes become text with `backslashreplace`."""
        fields = asdict(self)
        for name in ("stdout", "stderr"):
            fields[name] = getattr(self, name).decode("utf-8", "backslashreplace")
        if self.fault is not None:
            fields["fault"]["code"] = self.fault.code.hex()
        fields["ok"] = self.ok
        return fields

    def __str__(self) -> str:
        lines = [f"{self.ending}; {self.instructions} instructions, {self.syscall_count} system calls"]
        if self.slept_ns:
            lines[0] += f", {self.slept_ns / 1e9:g} s slept"
        if self.refused:
            lines.append("refused: " + ", ".join(self.refused))
        for name in ("stdout", "stderr"):
            data: bytes = getattr(self, name)
            if data:
                lines.append(f"{name} ({len(data)} bytes): {data[:200]!r}{'...' if len(data) > 200 else ''}")
        return "\n".join(lines)
