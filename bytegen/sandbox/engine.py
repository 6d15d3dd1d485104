"""An x86-64 processor in user mode on Unicorn, with nothing mapped and every register zero.

Three choices make it behave as a Linux process sees a processor:

- it is driven into ring 3 by a real `iretq`, so privileged instructions raise #GP; Unicorn starts in ring 0;
- the TLB is Unicorn's virtual one: addresses are compared in all 64 bits (the default one folds
  non-canonical addresses onto canonical ones) and memory access is several times faster;
- the processor is a Nehalem (x86-64-v2): no RDRAND, which would bring in the host's randomness. RDTSC is
  trapped (CR4.TSD) so that virtual time answers it.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import HOOK_INTR_CFUNC, uc_hook_h, uclib

_BOOT = 0x10000  # scratch page of the way into ring 3; unmapped before any program is loaded
_CR4 = 1 << 2 | 1 << 9 | 1 << 10  # TSD, OSFXSR, OSXMMEXCPT
_USER_CODE, _USER_DATA = 0x33, 0x2B  # Linux's selectors

_BATCH = (
    x86.UC_X86_REG_RAX,
    x86.UC_X86_REG_RDI,
    x86.UC_X86_REG_RSI,
    x86.UC_X86_REG_RDX,
    x86.UC_X86_REG_R10,
    x86.UC_X86_REG_R8,
    x86.UC_X86_REG_R9,
)


def _descriptor(dpl: int, code: bool) -> int:
    """A flat segment descriptor (Intel SDM volume 3, 3.4.5): present, accessed, `dpl`; 64-bit where it is
    code.
    """
    access = 0x90 | dpl << 5 | (0xB if code else 0x3)
    return 0xFFFF | access << 40 | 0xF << 48 | (0xA if code else 0xC) << 52


class Engine:
    """One Unicorn instance: registers, memory and emulation, without the binding's per-call overhead."""

    def __init__(self) -> None:
        self.uc: Any = cast(Any, unicorn).Uc(
            uc_const.UC_ARCH_X86, uc_const.UC_MODE_64, x86.UC_CPU_X86_NEHALEM
        )
        self.uc.ctl_set_tlb_mode(uc_const.UC_TLB_VIRTUAL)
        self.handle = self.uc._uch
        self._callbacks: list[object] = []
        self.stopped = False  # whether `stop` was called since the last `start`
        self._enter_user_mode()
        self.uc.ctl_exits_enabled(True)  # and none is set: `until` of emu_start would be an address too many
        self._pristine = self.uc.context_save()
        self._pending_exception = self._find_pending_exception()
        self._ids = (ctypes.c_int32 * len(_BATCH))(*_BATCH)
        self._values = (ctypes.c_uint64 * len(_BATCH))()
        base = ctypes.addressof(self._values)
        self._pointers = (ctypes.c_void_p * len(_BATCH))(*(base + 8 * i for i in range(len(_BATCH))))
        self._word = ctypes.c_uint64()

    def _enter_user_mode(self) -> None:
        uc = self.uc
        uc.mem_map(_BOOT, 0x1000)
        table = [
            0,
            _descriptor(0, True),
            _descriptor(0, False),
            0,
            0,
            _descriptor(3, False),
            _descriptor(3, True),
        ]
        uc.mem_write(_BOOT, struct.pack("<7Q", *table))
        uc.mem_write(_BOOT + 0x100, bytes.fromhex("48cf"))  # iretq
        uc.mem_write(_BOOT + 0x200, struct.pack("<5Q", _BOOT + 0x180, _USER_CODE, 0x202, 0, _USER_DATA))
        uc.reg_write(x86.UC_X86_REG_GDTR, (0, _BOOT, 8 * len(table) - 1, 0))
        uc.reg_write(x86.UC_X86_REG_CR4, uc.reg_read(x86.UC_X86_REG_CR4) | _CR4)
        uc.reg_write(x86.UC_X86_REG_RSP, _BOOT + 0x200)
        uc.emu_start(_BOOT + 0x100, _BOOT + 0x180)
        uc.reg_write(x86.UC_X86_REG_GDTR, (0, 0, 0, 0))  # no selector can be loaded from now on: #GP
        uc.mem_unmap(_BOOT, 0x1000)

    def _find_pending_exception(self) -> int | None:
        """Where a saved context keeps the exception being delivered (`old_exception`), -1 at rest.

        Nothing delivers a trapped RDTSC's #GP, so the engine would take the next one for a double fault.
        """
        uc = self.uc
        stop = HOOK_INTR_CFUNC(lambda _handle, _number, _user: self.stop())
        identity = self.add_hook(uc_const.UC_HOOK_INTR, stop, None, 0)
        uc.mem_map(_BOOT, 0x1000)
        uc.mem_write(_BOOT, b"\xf4")  # hlt
        self.start(_BOOT)
        uclib.uc_hook_del(self.handle, identity)
        uc.mem_unmap(_BOOT, 0x1000)
        after = bytes(uc.context_save())
        uc.context_restore(self._pristine)
        before = bytes(self._pristine)
        places = [
            i
            for i in range(0, len(before) - 3, 4)
            if before[i : i + 4] == b"\xff\xff\xff\xff" and after[i : i + 4] == b"\r\0\0\0"
        ]
        return places[0] if len(places) == 1 else None

    def forget_exception(self) -> None:
        """Let the program go on after a trap that was served from outside."""
        if self._pending_exception is not None:
            context = self.uc.context_save()
            address = ctypes.cast(context.context, ctypes.c_void_p).value or 0
            ctypes.memmove(address + self._pending_exception, b"\xff\xff\xff\xff", 4)
            self.uc.context_restore(context)

    def reset(self) -> None:
        """Restore every register and forget all translations; the memory is the caller's to unmap."""
        self.uc.context_restore(self._pristine)
        self.uc.ctl_flush_tb()

    def hook(self, kind: int, callback: object, user: object = None, instruction: int = 0) -> None:
        """Add a hook with a C function: a ctypes callback, or a `c_void_p` to native code.

        `instruction` is the Unicorn id for hooks of kind `UC_HOOK_INSN`. Raises UcError.
        """
        self._callbacks.append((callback, user))
        self.add_hook(kind, callback, user, instruction)

    def add_hook(
        self, kind: int, callback: object, user: object, instruction: int = 0, place: tuple[int, int] = (1, 0)
    ) -> ctypes.c_size_t:
        """As `hook`, but the caller keeps the callback alive; `place` is the first and the last address it is
        for.
        """
        identity = ctypes.c_size_t()
        status = uclib.uc_hook_add(
            self.handle,
            ctypes.cast(ctypes.byref(identity), ctypes.POINTER(uc_hook_h)),
            kind,
            ctypes.cast(callback, ctypes.c_void_p),  # type: ignore[arg-type]
            user,
            ctypes.c_uint64(place[0]),
            ctypes.c_uint64(place[1]),
            ctypes.c_int(instruction),
        )
        if status:
            raise unicorn.UcError(status)
        return identity

    @contextmanager
    def watching(self, callback: object) -> Iterator[None]:
        """Have accesses that fail reported to `callback` (a `HOOK_MEM_INVALID_CFUNC`).

        Not for whole runs: while such a hook exists, Unicorn translates every access ten times slower.
        """
        identity = self.add_hook(uc_const.UC_HOOK_MEM_INVALID, callback, None, 0)
        self.uc.ctl_flush_tb()
        try:
            yield
        finally:
            uclib.uc_hook_del(self.handle, identity)
            self.uc.ctl_flush_tb()

    def start(self, address: int, count: int = 0) -> int:
        """Run from `address`, at most `count` instructions unless it is 0; returns Unicorn's error number."""
        self.stopped = False
        return int(uclib.uc_emu_start(self.handle, address, 0, 0, count))

    def stop(self) -> None:
        """Stop the running emulation before its next instruction (from a hook)."""
        self.stopped = True
        uclib.uc_emu_stop(self.handle)

    def call_registers(self) -> list[int]:
        """rax, then the six argument registers of a system call (rdi, rsi, rdx, r10, r8, r9)."""
        uclib.uc_reg_read_batch(self.handle, self._ids, self._pointers, len(_BATCH))
        return self._values[:]

    def get(self, register: int) -> int:
        """Value of a 64-bit register, by its `UC_X86_REG_*` id."""
        uclib.uc_reg_read(self.handle, register, ctypes.byref(self._word))
        return self._word.value

    def set(self, register: int, value: int) -> None:
        """Set a 64-bit register, by its `UC_X86_REG_*` id."""
        self._word.value = value & (1 << 64) - 1
        uclib.uc_reg_write(self.handle, register, ctypes.byref(self._word))

    @property
    def rip(self) -> int:
        """The instruction pointer."""
        return self.get(x86.UC_X86_REG_RIP)

    def read(self, address: int, size: int) -> bytes:
        """Bytes of mapped memory, whatever its permissions. Raises UcError where a page is not mapped."""
        if size == 0:
            return b""
        buffer = ctypes.create_string_buffer(size)
        status = uclib.uc_mem_read(self.handle, address, buffer, size)
        if status:
            raise unicorn.UcError(status)
        return buffer.raw

    def read_prefix(self, address: int, size: int) -> bytes:
        """Up to `size` (at most a page) bytes, as far as mapped pages reach."""
        for part in (size, min(-address % 4096 or size, size)):
            try:
                return self.read(address, part)
            except unicorn.UcError:
                continue
        return b""

    def write(self, address: int, data: bytes) -> None:
        """Write mapped memory, whatever its permissions. Raises UcError where a page is not mapped."""
        if data:
            status = uclib.uc_mem_write(self.handle, address, data, len(data))
            if status:
                raise unicorn.UcError(status)

    def map(self, address: int, size: int, prot: int) -> None:
        """Map zeroed pages. Raises UcError."""
        status = uclib.uc_mem_map(self.handle, address, size, prot)
        if status:
            raise unicorn.UcError(status)

    def unmap(self, address: int, size: int) -> None:
        """Unmap pages, all of them mapped. Raises UcError."""
        status = uclib.uc_mem_unmap(self.handle, address, size)
        if status:
            raise unicorn.UcError(status)

    def protect(self, address: int, size: int, prot: int) -> None:
        """Change the permissions of pages, all of them mapped. Raises UcError."""
        status = uclib.uc_mem_protect(self.handle, address, size, prot)
        if status:
            raise unicorn.UcError(status)

    def forget_code(self, address: int, size: int) -> None:
        """Drop translations of code in a range that was written from outside the processor."""
        self.uc.ctl_remove_cache(address, address + size)


def guarded(
    callback: Callable[..., object], failed: Callable[[BaseException], None], default: object
) -> Callable[..., object]:
    """Wrap a hook so that an exception reaches `failed` instead of being printed by ctypes and lost."""

    def wrapper(*args: object) -> object:
        try:
            return callback(*args)
        except BaseException as error:
            failed(error)
            return default

    return wrapper
