"""What capstone takes and the tables leave out, by rule: the decisions an agreement measurement counts apart.

The order is that of `enum rule` in x86.c.
"""

from __future__ import annotations

RULES: dict[str, str] = {
    "none": "no rule: a disagreement",
    "prefix repeated": "each group of prefixes once (66; F2 and F3; F0; 67; segment), except a leading run of 66: "
    "processors take repeats, compilers write only runs of 66",
    "prefix after REX": "REX stands once and last: a processor ignores it elsewhere",
    "F2 or F3 after F0": "F2 and F3 stand before F0: behind a later F2 or F3 capstone no longer sees the F0",
    "lock": "F0 only before the instructions that may be locked, with a memory operand: others are refused (#UD)",
    "prefix before VEX": "no 66, F2, F3, F0 or REX before VEX and EVEX: refused by processors (#UD)",
    "XOP": "AMD's XOP and TBM (8F with a map): gone from processors",
    "3DNow!": "0F 0F and femms: gone from processors",
    "obsolete": "instructions of one maker: SSE4a, LWP, VIA PadLock, the prefetches of Xeon Phi; getsec. FMA4 is "
    "in the table: glibc's libm has it",
    "ud0 and ud1": "capstone reads 0F FF and 0F B9 without their ModRM byte",
    "branch with 66": "66 before a direct branch: Intel ignores it, AMD reads a 16-bit displacement, and 32-bit "
    "code loses the upper half of its address",
    "segment register": "mov to CS is refused by processors (#UD)",
    "system register": "control registers 0, 2, 3, 4 and 8 and debug registers 0 to 7 exist",
    "EVEX vector length": "L'L = 3 only with embedded rounding between registers",
    "EVEX zeroing with k0": "z needs a mask register",
    "EVEX fields": "R and R' are set where ModRM.reg names a mask register; V' is set in 32-bit code",
    "gather": "registers of a gather differ from each other, its mask is not k0, and it does not zero",
    "mandatory prefix": "66, F2 or F3 before an instruction of an escape map that has no such form; capstone lets "
    "some through, most of them only beside REX or 67, or where 66 stands beside F2 or F3",
    "structure": "a length that does not fit the opcode",
}

LABEL_RULES: dict[str, str] = {
    "far": "far jumps, calls and returns, interrupt returns",
    "interrupt": "int n (except int 29h, and int 80h in 32-bit code), int1, into",
    "port": "in, out, ins, outs",
    "system": "instructions of ring 0, of virtual machines, and those the kernel may bar from user code "
    "(sgdt, sidt, sldt, smsw, str, rdpmc)",
}


def rules_of(machine: str) -> dict[str, str]:
    """What the table of a machine leaves out: nothing on AArch64, where every word capstone takes is in it."""
    return {} if machine == "aarch64" else {name: text for name, text in RULES.items() if name != "none"}
