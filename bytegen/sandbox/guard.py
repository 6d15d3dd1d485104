"""Watches the few instructions that Unicorn gets wrong in a way that matters, and ends the program there.

Unicorn divides for the program with the host's own instruction, in C: 0x8000000000000000 by -1 in `idiv
r/m32` (and 0x80000000 by -1 in `idiv r/m16`) overflows there too, and on an x86-64 host SIGFPE ends this very
process. So every `idiv` that is translated gets a hook of its own that looks at the dividend first. Whatever
the divisor, such a division overflows on a processor as well: the program gets the SIGFPE.

It also takes AVX for the SSE instruction of the same number, a wrong result in silence. The processor
emulated here has no AVX, so every VEX prefix gets a hook that makes it the invalid instruction that it is.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable

import capstone
from unicorn import unicorn_const as uc_const
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import HOOK_CODE_CFUNC, uclib

from bytegen.sandbox.engine import Engine, guarded
from bytegen.sandbox.native_code import NativeCode, host_machine

_IDIV = re.compile(rb"\xf7[\x38-\x3f\x78-\x7f\xb8-\xbf\xf8-\xff]")  # F7 /7
_VEX = re.compile(rb"\xc5|\xc4[\x01-\x03\x21-\x23\x41-\x43\x61-\x63\x81-\x83\xa1-\xa3\xc1-\xc3\xe1-\xe3]")
_PREFIXES = 14  # bytes that may stand before the opcode
_LEGACY_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")

# Called as (rdi = engine, rsi = address, edx = size, rcx = state): reads rdx, goes on to Python where its low
# half is 0x80000000 or its lowest quarter 0x8000, else returns.
#     pushq %rbx;  pushq %r12;  pushq %r13;  movq %rcx, %rbx;  movq %rdi, %r12;  movq %rsi, %r13
#     movl 16(%rcx), %esi;  leaq 24(%rcx), %rdx;  callq *(%rcx);  movl 24(%rbx), %eax
#     movq %r12, %rdi;  movq %r13, %rsi;  movq %rbx, %rcx;  popq %r13;  popq %r12;  popq %rbx
#     cmpw $0x8000, %ax;  je 1f;  cmpl $0x80000000, %eax;  jne 2f
# 1:  jmpq *8(%rcx)
# 2:  retq
NATIVE_CODE = {
    "x86_64": bytes.fromhex(
        "53415441554889cb4989fc4989f58b7110488d5118ff118b43184c89e74c89ee4889d9415d415c5b663d008074"
        "073d000000807503ff6108c3"
    )
}


class Guard:
    """Watches one engine. With the emulation stopped, `divides` is called before a division that overflows, `invalid`
    before an instruction with a VEX prefix.
    """

    def __init__(
        self,
        engine: Engine,
        divides: Callable[[], None],
        invalid: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._engine = engine
        self._divides = divides
        self._invalid = invalid
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._hooks: list[ctypes.c_size_t] = []
        self._guarded: set[int] = set()
        self._needed = host_machine() not in (
            "aarch64",
            "riscv64",
            "ppc64le",
        )  # those divide without trapping
        self._slow = HOOK_CODE_CFUNC(guarded(self._look, failed, None))
        self._stop = HOOK_CODE_CFUNC(guarded(self._refuse, failed, None))
        self._native = NativeCode(NATIVE_CODE)
        self._state = (ctypes.c_uint64 * 4)(
            ctypes.cast(uclib.uc_reg_read, ctypes.c_void_p).value or 0,
            ctypes.cast(self._slow, ctypes.c_void_p).value or 0,
            x86.UC_X86_REG_RDX,
            0,
        )

    def reset(self) -> None:
        """Forget the last program's divisions."""
        for hook in self._hooks:
            uclib.uc_hook_del(self._engine.handle, hook)
        self._hooks.clear()
        self._guarded.clear()

    def inspect(self, address: int, size: int) -> bool:
        """Guard a new block; True where it has to be translated again for that."""
        code = self._engine.read_prefix(address, size)
        fresh = False
        if self._needed:
            hook = self._slow if self._native.address is None else ctypes.c_void_p(self._native.address)
            state = ctypes.cast(self._state, ctypes.c_void_p)
            for found in _IDIV.finditer(code):
                opcode = address + found.start()
                fresh |= self._add(opcode, (opcode - _PREFIXES, opcode), hook, state)
        if _VEX.search(code):
            for place in self._vex_places(code, address):
                fresh |= self._add(place, (place, place), self._stop, None)
        return fresh

    def _add(self, key: int, place: tuple[int, int], hook: object, state: object) -> bool:
        if key in self._guarded:
            return False
        self._guarded.add(key)
        self._hooks.append(self._engine.add_hook(uc_const.UC_HOOK_CODE, hook, state, place=place))
        return True

    def _vex_places(self, code: bytes, address: int) -> list[int]:
        """Addresses of the instructions of a block that begin with a VEX prefix."""
        places, at = [], address
        for at, size, _, _ in self._decoder.disasm_lite(code, address):
            if code[at - address] in b"\xc4\xc5":
                places.append(at)
            at += size
        if at - address < len(code) and code[at - address] in b"\xc4\xc5":  # one that only the engine knows
            places.append(at)
        return places

    def _refuse(self, _handle: int, address: int, _size: int, _user: int) -> None:
        if self._engine.read_prefix(address, 1) in (
            b"\xc4",
            b"\xc5",
        ):  # still, if the program rewrites itself
            self._engine.stop()
            self._invalid()

    def _look(self, _handle: int, address: int, _size: int, _user: int) -> None:
        code = self._engine.read_prefix(address, 15)
        start = 0
        while start < len(code) and (code[start] in _LEGACY_PREFIXES or code[start] & 0xF0 == 0x40):
            start += 1
        if not _IDIV.match(code, start):
            return
        rex = code[start - 1] if start and code[start - 1] & 0xF0 == 0x40 else 0
        if rex & 8:
            return  # r/m64: Unicorn checks it
        rax, rdx = self._engine.get(x86.UC_X86_REG_RAX), self._engine.get(x86.UC_X86_REG_RDX)
        double = rdx & 0xFFFF_FFFF == 0x8000_0000 and rax & 0xFFFF_FFFF == 0
        single = rdx & 0xFFFF == 0x8000 and rax & 0xFFFF == 0
        if double or (single and 0x66 in code[:start]):
            self._engine.stop()
            self._divides()
