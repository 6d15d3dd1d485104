"""System calls on the process itself: its end, its time, signals, identity, randomness."""

from __future__ import annotations

import struct
from collections.abc import Callable

from unicorn import x86_const as x86

from bytegen.sandbox.linux import abi
from bytegen.sandbox.linux.loader import STACK_LIMIT
from bytegen.sandbox.linux.process import Failed, Process, signed_int
from bytegen.sandbox.memory import TASK_SIZE
from bytegen.sandbox.result import Ended, Fault, signal_name

_INFINITY = (1 << 64) - 1
_BOOTED_NS = 1_000_000_000_000  # the monotonic clock at the start of every program
_IGNORED_BY_DEFAULT = {17, 18, 23, 28}  # CHLD, CONT, URG, WINCH
_SIG_IGN = 1
_FIXED_SIGNALS = (9, 19)


def exit_group(process: Process, code: int) -> int:
    """exit(2) and exit_group(2)."""
    raise Ended(exit_code=code & 0xFF)


def _now(process: Process, clock: int) -> int:
    clock = signed_int(clock)
    if clock in (0, 5, 11):  # realtime, its coarse form, TAI
        return process.clock + process.elapsed_ns
    if clock in (1, 4, 6, 7):  # monotonic, raw, coarse, boottime
        return _BOOTED_NS + process.elapsed_ns
    if clock in (2, 3):  # processor time: sleeping costs none
        return process.elapsed_ns - process.slept_ns
    raise Failed(abi.EINVAL)


def clock_gettime(process: Process, clock: int, time: int) -> int:
    """clock_gettime(2) in virtual time."""
    process.store(time, struct.pack("<qq", *divmod(_now(process, clock), 1_000_000_000)))
    return 0


def clock_getres(process: Process, clock: int, resolution: int) -> int:
    """clock_getres(2): 1 ns."""
    _now(process, clock)
    if resolution:
        process.store(resolution, struct.pack("<qq", 0, 1))
    return 0


def gettimeofday(process: Process, time: int, zone: int) -> int:
    """gettimeofday(2) in virtual time, in UTC."""
    if time:
        seconds, nanoseconds = divmod(_now(process, 0), 1_000_000_000)
        process.store(time, struct.pack("<qq", seconds, nanoseconds // 1000))
    if zone:
        process.store(zone, bytes(8))
    return 0


def time(process: Process, address: int) -> int:
    """time(2) in virtual time."""
    seconds = _now(process, 0) // 1_000_000_000
    if address:
        process.store(address, struct.pack("<q", seconds))
    return seconds


def nanosleep(process: Process, request: int, _remaining: int) -> int:
    """nanosleep(2): virtual time advances, nobody waits."""
    process.sleep(process.load_timespec(request))
    return 0


def clock_nanosleep(process: Process, clock: int, flags: int, request: int, _remaining: int) -> int:
    """clock_nanosleep(2), relative or absolute."""
    now = _now(process, clock)
    asked = process.load_timespec(request)
    process.sleep(max(asked - now, 0) if flags & 1 else asked)
    return 0


def times(process: Process, buffer: int) -> int:
    """times(2) in ticks of 10 ms."""
    if buffer:
        process.store(buffer, struct.pack("<qqqq", _now(process, 2) // 10_000_000, 0, 0, 0))
    return _now(process, 1) // 10_000_000


def getrusage(process: Process, who: int, usage: int) -> int:
    """getrusage(2): user time only."""
    if signed_int(who) not in (0, -1, 1):
        raise Failed(abi.EINVAL)
    seconds, nanoseconds = divmod(_now(process, 2) if signed_int(who) >= 0 else 0, 1_000_000_000)
    process.store(usage, struct.pack("<qq", seconds, nanoseconds // 1000).ljust(144, b"\0"))
    return 0


def pause(process: Process) -> int:
    """pause(2): no signal will ever come."""
    raise Ended(limit="time")


def getrandom(process: Process, buffer: int, size: int, flags: int) -> int:
    """getrandom(2) from the run's seed."""
    if flags & 0xFFFF_FFFF & ~7:
        raise Failed(abi.EINVAL)
    size = min(size, 1 << 20)
    done = process.space.store(buffer, process.random.randbytes(size))
    if size and not done:
        raise Failed(abi.EFAULT)
    return done


def kill(process: Process, pid: int, signal: int) -> int:
    """kill(2): the only process is this one, its group, or all."""
    if signed_int(pid) not in (abi.PID, 0, -abi.PID, -1):
        raise Failed(abi.ESRCH)
    return _signal(process, signed_int(signal))


def tkill(process: Process, tid: int, signal: int) -> int:
    """tkill(2)."""
    if signed_int(tid) != abi.PID:
        raise Failed(abi.ESRCH if signed_int(tid) > 0 else abi.EINVAL)
    return _signal(process, signed_int(signal))


def tgkill(process: Process, pid: int, tid: int, signal: int) -> int:
    """tgkill(2)."""
    if signed_int(pid) != abi.PID:
        raise Failed(abi.ESRCH if signed_int(pid) > 0 else abi.EINVAL)
    return tkill(process, tid, signal)


def _signal(process: Process, number: int) -> int:
    if not 0 <= number <= 64:
        raise Failed(abi.EINVAL)
    handler = struct.unpack_from("<Q", process.signal_actions.get(number, bytes(8)))[0]
    ignored = handler == _SIG_IGN or (handler == 0 and number in _IGNORED_BY_DEFAULT)
    blocked = process.signal_mask >> (number - 1) & 1 if number else 0
    if number == 0 or (number not in _FIXED_SIGNALS and (ignored or blocked)):
        return 0
    raise Ended(fault=Fault("signal", signal_name(number), process.engine.rip))


def rt_sigaction(process: Process, signal: int, action: int, old: int, size: int) -> int:
    """rt_sigaction(2): remembered, and SIG_IGN is honoured; handlers are never called."""
    number = signed_int(signal)
    if size != 8 or not 1 <= number <= 64 or (action and number in _FIXED_SIGNALS):
        raise Failed(abi.EINVAL)
    new = process.load(action, 32) if action else None
    before = process.signal_actions.get(number, bytes(32))
    if new is not None:
        process.signal_actions[number] = new
    if old:
        process.store(old, before)
    return 0


def rt_sigprocmask(process: Process, how: int, mask: int, old: int, size: int) -> int:
    """rt_sigprocmask(2)."""
    if size != 8:
        raise Failed(abi.EINVAL)
    before = process.signal_mask
    if mask:
        bits = int.from_bytes(process.load(mask, 8), "little")
        how &= 0xFFFF_FFFF
        if how > 2:
            raise Failed(abi.EINVAL)
        process.signal_mask = (before | bits, before & ~bits, bits)[how]
    if old:
        process.store(old, before.to_bytes(8, "little"))
    return 0


def arch_prctl(process: Process, code: int, address: int) -> int:
    """arch_prctl(2): the bases of fs and gs."""
    registers = {0x1001: x86.UC_X86_REG_GS_BASE, 0x1002: x86.UC_X86_REG_FS_BASE}
    if code in registers:
        if address >= TASK_SIZE:
            raise Failed(abi.EPERM)
        process.engine.set(registers[code], address)
        return 0
    registers = {0x1004: x86.UC_X86_REG_GS_BASE, 0x1003: x86.UC_X86_REG_FS_BASE}
    if code not in registers:
        raise Failed(abi.EINVAL)
    process.store(address, struct.pack("<Q", process.engine.get(registers[code])))
    return 0


def futex(process: Process, address: int, operation: int, value: int, timeout: int) -> int:
    """futex(2): nobody else is there to wake or to be woken."""
    command = operation & 0x7F
    if command in (1, 10):
        return 0
    if command not in (0, 9):
        raise Failed(abi.ENOSYS)
    if int.from_bytes(process.load(address, 4), "little") != value & 0xFFFF_FFFF:
        raise Failed(abi.EAGAIN)
    if not timeout:
        raise Ended(limit="time")
    asked = process.load_timespec(timeout)
    process.sleep(asked if command == 0 else max(asked - _now(process, 1), 0))
    raise Failed(abi.ETIMEDOUT)


def prlimit64(process: Process, pid: int, resource: int, new: int, old: int) -> int:
    """prlimit64(2): limits can be read, not changed."""
    if signed_int(pid) not in (0, abi.PID):
        raise Failed(abi.ESRCH)
    if resource & 0xFFFF_FFFF >= 16:
        raise Failed(abi.EINVAL)
    if new:
        raise Failed(abi.EPERM)
    if old:
        return getrlimit(process, resource, old)
    return 0


def getrlimit(process: Process, resource: int, limits: int) -> int:
    """getrlimit(2): 8 MiB of stack, no core files, 1024 file descriptors."""
    known = {3: (STACK_LIMIT, _INFINITY), 4: (0, 0), 7: (1024, 1024)}
    if resource & 0xFFFF_FFFF >= 16:
        raise Failed(abi.EINVAL)
    process.store(limits, struct.pack("<QQ", *known.get(resource & 0xFFFF_FFFF, (_INFINITY, _INFINITY))))
    return 0


def uname(process: Process, buffer: int) -> int:
    """uname(2)."""
    fields = (b"Linux", b"sandbox", b"6.1.0", b"#1", b"x86_64", b"(none)")
    process.store(buffer, b"".join(field.ljust(65, b"\0") for field in fields))
    return 0


def sysinfo(process: Process, buffer: int) -> int:
    """sysinfo(2): a machine with as much memory as the program may map."""
    limit = process.space.limit
    uptime = _now(process, 1) // 1_000_000_000
    info = struct.pack("<q3Q6QH6xQQI", uptime, 0, 0, 0, limit, limit, 0, 0, 0, 0, 1, 0, 0, 1)
    process.store(buffer, info.ljust(112, b"\0"))
    return 0


def rseq(process: Process, area: int, size: int, flags: int) -> int:
    """rseq(2): registered, always on processor 0."""
    if size < 32 or area % 32 or flags:
        raise Failed(abi.EINVAL)
    process.store(area, bytes(8))
    return 0


def sched_getaffinity(process: Process, _pid: int, size: int, mask: int) -> int:
    """sched_getaffinity(2): one processor."""
    if size < 8 or size % 8:
        raise Failed(abi.EINVAL)
    process.store(mask, (1).to_bytes(8, "little"))
    return 8


def getcpu(process: Process, cpu: int, node: int) -> int:
    """getcpu(2): processor 0 of node 0."""
    for address in (cpu, node):
        if address:
            process.store(address, bytes(4))
    return 0


def own_id(_process: Process) -> int:
    """getpid(2), gettid(2), set_tid_address(2), getpgrp(2): one process with one thread."""
    return abi.PID


def user_id(_process: Process) -> int:
    """getuid(2) and its like."""
    return abi.UID


def parent_id(_process: Process) -> int:
    """getppid(2)."""
    return 1


def accept(_process: Process) -> int:
    """Calls that may succeed without doing anything: sched_yield, set_robust_list, sigaltstack, prctl."""
    return 0


HANDLERS: dict[int, Callable[..., int]] = {
    13: rt_sigaction,
    14: rt_sigprocmask,
    24: accept,
    34: pause,
    35: nanosleep,
    39: own_id,
    60: exit_group,
    62: kill,
    63: uname,
    96: gettimeofday,
    97: getrlimit,
    98: getrusage,
    99: sysinfo,
    100: times,
    102: user_id,
    104: user_id,
    107: user_id,
    108: user_id,
    110: parent_id,
    111: own_id,
    131: accept,
    157: accept,
    158: arch_prctl,
    186: own_id,
    200: tkill,
    201: time,
    202: futex,
    204: sched_getaffinity,
    218: own_id,
    228: clock_gettime,
    229: clock_getres,
    230: clock_nanosleep,
    231: exit_group,
    234: tgkill,
    273: accept,
    302: prlimit64,
    309: getcpu,
    318: getrandom,
    334: rseq,
}
