"""Counts the instructions that a program completes, and stops it at a bound: one call a block.

Unicorn's own count (`emu_start(count=...)`) calls a hook at every instruction: about 50 million instructions
a second. Here a hook runs at every translated block instead and takes the block's number of instructions off
what is left: ten times faster. The hook is a few machine instructions, for x86-64 and AArch64 hosts (a Python
function does the same elsewhere); the number comes from a table that Unicorn fills through its hook for newly
translated blocks.

A block that is left half way (a fault, a trapped RDTSC) is settled afterwards by disassembling it up to where
it stopped. Only code that rewrites the very block it runs in may be counted up to one block too high.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import capstone
import unicorn
from unicorn import unicorn_const as uc_const
from unicorn.unicorn_py3.unicorn import HOOK_CODE_CFUNC, HOOK_EDGE_GEN_CFUNC, uclib

from bytegen.sandbox.engine import Engine, guarded
from bytegen.sandbox.native_code import NativeCode

_SLOTS = 1 << 14
_MAX_BLOCK = 512  # TCG_MAX_INSNS

# Words of the state that the native hook works on.
_LEFT, _TABLE, _MISS, _STOP, _LAST_ADDRESS, _LAST_COUNT, _OUT = range(7)

# The hook is called as (rdi = engine, rsi = address, edx = size, rcx = state): finds the table slot of the
# address, asks Python where it is another block's, takes the instructions off what is left, notes the block
# to settle.
#     movl %esi, %eax;  andl $0x3fff, %eax;  shll $4, %eax;  addq 8(%rcx), %rax
#     cmpq %rsi, (%rax);  jne 2f
#     movq 8(%rax), %rax;  subq %rax, (%rcx);  js 1f
#     movq %rsi, 32(%rcx);  movq %rax, 40(%rcx);  ret
# 1:  addq %rax, (%rcx);  movq $1, 48(%rcx);  jmpq *24(%rcx)
# 2:  jmpq *16(%rcx)
_X86_64 = (
    "89f025ff3f0000c1e004480341084839307520488b400848290178094889712048894128c3480101"
    "48c7413001000000ff6118ff6110"
)
# The same for AArch64 (x0 = engine, x1 = address, w2 = size, x3 = state):
#     and x4, x1, #0x3fff;  ldr x5, [x3, #8];  add x5, x5, x4, lsl #4
#     ldp x6, x7, [x5];  cmp x6, x1;  b.ne 2f
#     ldr x4, [x3];  subs x4, x4, x7;  b.mi 1f;  str x4, [x3];  stp x1, x7, [x3, #32];  ret
# 1:  mov x4, #1;  str x4, [x3, #48];  ldr x4, [x3, #24];  br x4
# 2:  ldr x4, [x3, #16];  br x4
_AARCH64 = (
    "24344092650440f9a510048ba61c40a9df0001eb61010054640040f9840007eb84000054640000f9611c02a9c0035fd6"
    "240080d2641800f9640c40f980001fd6640840f980001fd6"
)
NATIVE_CODE = {"x86_64": bytes.fromhex(_X86_64), "aarch64": bytes.fromhex(_AARCH64)}


class Meter:
    """Instruction count of one engine.

    `new_block` is called with address and size at each translation of a block; `failed` receives exceptions
    of the hooks.
    """

    def __init__(
        self, engine: Engine, new_block: Callable[[int, int], None], failed: Callable[[BaseException], None]
    ) -> None:
        self._engine = engine
        self._new_block = new_block
        self._state = (ctypes.c_int64 * 7)()
        self._table = (ctypes.c_uint64 * (2 * _SLOTS))()
        self._known: dict[int, int] = {}
        self._granted = 0
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        miss = HOOK_CODE_CFUNC(guarded(self._miss, failed, None))
        self._native = NativeCode(NATIVE_CODE)
        state = ctypes.cast(self._state, ctypes.c_void_p)
        self._state[_TABLE] = ctypes.addressof(self._table)
        self._state[_MISS] = ctypes.cast(miss, ctypes.c_void_p).value or 0
        self._state[_STOP] = ctypes.cast(uclib.uc_emu_stop, ctypes.c_void_p).value or 0
        hook = miss if self._native.address is None else ctypes.c_void_p(self._native.address)
        engine.hook(uc_const.UC_HOOK_BLOCK, hook, state)
        engine.hook(
            uc_const.UC_HOOK_EDGE_GENERATED, HOOK_EDGE_GEN_CFUNC(guarded(self._translated, failed, None))
        )
        self._miss_callback = miss
        self.reset()

    def reset(self) -> None:
        """Forget all blocks and the count."""
        for address in self._known:
            self._table[2 * (address % _SLOTS)] = 0  # page 0 is never mapped, so 0 matches no block
        self._known.clear()
        self._granted = 0
        for word in (_LEFT, _LAST_ADDRESS, _LAST_COUNT, _OUT):
            self._state[word] = 0

    @property
    def granted(self) -> int:
        """Instructions allowed so far."""
        return self._granted

    @property
    def left(self) -> int:
        """Instructions allowed and not yet executed."""
        return self._state[_LEFT]

    @property
    def executed(self) -> int:
        """Instructions executed, with all of the block that is being executed."""
        return self._granted - self._state[_LEFT]

    @property
    def out(self) -> bool:
        """Whether the program was stopped because the next block has more instructions than are left."""
        return bool(self._state[_OUT])

    def grant(self, count: int) -> None:
        """Allow `count` instructions more."""
        self._granted += count
        self._state[_LEFT] += count
        self._state[_OUT] = 0

    def spend(self, count: int) -> None:
        """Count instructions that were carried out for the program."""
        self._state[_LEFT] -= count

    def settle(self, rip: int) -> None:
        """Take the instructions from `rip` on out of the count: the last block was left before it."""
        start, count = self._state[_LAST_ADDRESS], self._state[_LAST_COUNT]
        if count:
            self._state[_LAST_COUNT] = 0
            done = self.instructions_between(start, rip, count)
            if done is not None:
                self._state[_LEFT] += count - done

    def instructions_between(self, start: int, rip: int, most: int) -> int | None:
        """Instructions from `start` up to `rip`; None where `rip` is not the start of one of the first
        `most`.
        """
        if not start <= rip < start + 15 * most:
            return None
        try:
            code = self._engine.read(start, rip - start) if rip > start else b""
        except unicorn.UcError:  # the program unmapped the code it ran
            return None
        counts = (self._decode(code, unknown) for unknown in range(3))
        count = next((found for found in counts if found is not None), None)
        return count if count is not None and count < most else None

    def _decode(self, code: bytes, unknown: int) -> int | None:
        """How many instructions `code` is; None where it does not end with one.

        The engine takes a few encodings that capstone refuses (8f /1, for one): up to `unknown` of them are passed
        over, with the first length that makes the rest come out even.
        """
        sizes = [size for _, size, _, _ in self._decoder.disasm_lite(code, 0)]
        at = sum(sizes)
        if at == len(code):
            return len(sizes)
        for size in range(1, min(15, len(code) - at) + 1) if unknown else ():
            rest = self._decode(code[at + size :], unknown - 1)
            if rest is not None:
                return len(sizes) + 1 + rest
        return None

    def run_exactly(self, rip: int, count: int) -> int:
        """Run `count` instructions (fewer than a block) from `rip`; returns Unicorn's error number.

        They come off what is left; a fault on the way is settled.
        """
        left = self._state[_LEFT]
        self._engine.uc.ctl_flush_tb()  # so that blocks are translated anew, with Unicorn's own count in them
        self._state[_LEFT], self._state[_OUT] = 1 << 62, 0
        error = self._engine.start(rip, count)
        done = (
            self.instructions_between(rip, self._engine.rip, count + 1)
            if error or self._engine.stopped
            else count
        )
        self._state[_LEFT] = left - (count if done is None else done)
        self._state[_LAST_COUNT] = 0
        return error

    def _translated(self, _handle: int, block: ctypes._Pointer, _previous: object, _user: int) -> None:
        found = block.contents
        address, count = found.pc, found.icount
        self._known[address] = count
        slot = 2 * (address % _SLOTS)
        self._table[slot] = address
        self._table[slot + 1] = count
        self._new_block(address, found.size)

    def _miss(self, _handle: int, address: int, size: int, _user: int) -> None:
        """The whole hook in Python: for a slot taken over by another block, and for hosts without native
        code.
        """
        count = self._known.get(address)
        if count is None:
            count = self._known[address] = self._engine.uc.ctl_request_cache(address)[1]
        slot = 2 * (address % _SLOTS)
        self._table[slot] = address
        self._table[slot + 1] = count
        state = self._state
        if state[_LEFT] < count:
            state[_OUT] = 1
            self._engine.stop()
            return
        state[_LEFT] -= count
        state[_LAST_ADDRESS] = address
        state[_LAST_COUNT] = count
