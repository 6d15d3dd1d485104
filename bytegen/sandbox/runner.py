"""Runs a program in the sandbox, on a machine that is kept from one run to the next."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from bytegen.errors import UserError
from bytegen.sandbox.isolation import run_isolated
from bytegen.sandbox.linux.system import Linux
from bytegen.sandbox.machine import Machine, Observer
from bytegen.sandbox.memory import OutOfMemory
from bytegen.sandbox.result import Ended, Result

MAX_INSTRUCTIONS = 100_000_000
TIMEOUT = 10.0
MAX_OUTPUT = 1 << 20
MEMORY = 256 << 20
CLOCK = 1_577_836_800_000_000_000  # 2020-01-01 00:00:00 UTC
_RUNS_PER_MACHINE = 2000

_kept = threading.local()


def run(
    data: bytes,
    *,
    stdin: bytes = b"",
    argv: Sequence[str | bytes] = ("program",),
    env: Sequence[str | bytes] = (),
    max_instructions: int = MAX_INSTRUCTIONS,
    timeout: float = TIMEOUT,
    max_output: int = MAX_OUTPUT,
    memory: int = MEMORY,
    seed: int = 0,
    clock: int = CLOCK,
    isolated: bool = True,
    observers: Sequence[Observer] = (),
) -> Result:
    """Run a static ELF64 x86-64 Linux program in the emulator; nothing of it runs natively.

    `stdin` is all that it can read. `timeout` is in seconds of real time, `max_output` in bytes of stdout and
    stderr together, `memory` in bytes mapped. `seed` feeds AT_RANDOM and getrandom; `clock` is the time of
    day at the start, in nanoseconds since 1970, and advances by sleeps, 1 ns an instruction and 1 us a system
    call: two runs with the same arguments give the same result (but for `seconds`, and where the limit on
    time strikes). `isolated` runs in a worker process, which a few programs crash; False is for programs that
    one trusts (a compiler's output) and saves the way there and back. Observers are attached once the program
    is loaded; they need `isolated=False`, and such a run gets a machine of its own.

    Raises UserError where `data` is not a program that Linux would start, or a limit is not positive.
    """
    for name, value in (("max_instructions", max_instructions), ("timeout", timeout), ("memory", memory)):
        if not value > 0:
            raise UserError(f"{name} is {value}: it must be positive")
    if max_output < 0:
        raise UserError(f"max_output is {max_output}: it must not be negative")
    if isolated and observers:
        raise UserError("observers watch a run in this process: pass isolated=False with them")
    options: dict[str, Any] = {
        "stdin": bytes(stdin),
        "argv": [_text(text) for text in argv],
        "env": [_text(text) for text in env],
        "max_instructions": max_instructions,
        "timeout": timeout,
        "max_output": max_output,
        "memory": memory,
        "seed": seed,
        "clock": clock,
    }
    if isolated:
        return run_isolated(bytes(data), **options)
    return run_here(bytes(data), observers=observers, **options)


def _text(text: str | bytes) -> bytes:
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)
    if b"\0" in raw:
        raise UserError(f"argv and env cannot hold a zero byte: {text!r}")
    return raw


def run_here(
    data: bytes,
    *,
    max_instructions: int,
    timeout: float,
    memory: int,
    observers: Sequence[Observer] = (),
    **options: Any,
) -> Result:
    """`run` in this process; `options` are the other arguments of `Linux`."""
    began = time.perf_counter()
    machine = Machine() if observers else _take()
    system: Linux | None = None
    try:
        machine.reset(memory)
        system = Linux(machine, data, **options)
        for observer in observers:
            observer.attach(machine)
        ended = machine.run(system, system.entry, max_instructions, timeout)
    except OutOfMemory:
        ended = Ended(limit="memory")
    except UserError:
        if not observers:
            _give_back(machine)
        raise
    result = _result(machine, system, ended, began)
    if not observers:
        _give_back(machine)
    return result


def _result(machine: Machine, system: Linux | None, ended: Ended, began: float) -> Result:
    limit = ended.limit
    if ended.fault is not None and machine.space.exhausted:
        limit = "memory"
    seconds = time.perf_counter() - began
    if system is None:
        return Result(b"", b"", ended.exit_code, ended.fault, limit, 0, seconds=seconds)
    process = system.process
    return Result(
        stdout=bytes(process.stdout),
        stderr=bytes(process.stderr),
        exit_code=ended.exit_code,
        fault=ended.fault,
        limit=limit,
        instructions=machine.meter.executed,
        syscalls=tuple(process.syscalls),
        syscall_count=process.calls,
        refused=tuple(process.refused),
        slept_ns=process.slept_ns,
        seconds=seconds,
    )


def _take() -> Machine:
    """This thread's machine; taken out, so that a run inside a run gets another."""
    machine: Machine | None = getattr(_kept, "machine", None)
    _kept.machine = None
    if machine is None:
        _kept.runs = 0
        machine = Machine()
    return machine


def _give_back(machine: Machine) -> None:
    """Keep a machine for the next run, unless it is worn; one that raised is never given back."""
    _kept.runs = getattr(_kept, "runs", 0) + 1
    if not machine.worn and _kept.runs < _RUNS_PER_MACHINE:
        _kept.machine = machine


def run_many(
    jobs: Iterable[Mapping[str, Any]], executor: Executor | None = None, chunk: int = 16
) -> list[Result | UserError]:
    """Run many programs: each job holds the arguments of `run` by name, `data` among them; the order is kept.

    A run that is not isolated says `"isolated": False` in its job. `executor` is any
    `concurrent.futures.Executor`; `chunk` jobs make one of its tasks. A job whose data is not a program has
    its UserError in its place.
    """
    listed = [dict(job) for job in jobs]
    if executor is None:
        return _run_chunk(listed)
    chunks = [listed[i : i + chunk] for i in range(0, len(listed), chunk)]
    return [result for results in executor.map(_run_chunk, chunks) for result in results]


def _run_chunk(jobs: list[dict[str, Any]]) -> list[Result | UserError]:
    results: list[Result | UserError] = []
    for job in jobs:
        try:
            results.append(run(**job))
        except UserError as error:
            results.append(error)
    return results
