"""Which class capstone's instruction ids belong to. The PRIVILEGE group misses ports, clts and rdmsr: own lists.

Sources: Intel SDM volume 2 (privilege of each instruction) and volume 3, 5.9; AMD APM volume 3, chapter 4.
"""

from __future__ import annotations

import numpy as np

from bytegen.formats.code.automaton import Label

REFUSED = 255

_SYSTEM = """
cli sti clts lgdt lidt lldt ltr lmsw sgdt sidt sldt str smsw rdmsr wrmsr rdpmc invd wbinvd wbnoinvd invlpg
invlpga invpcid invept invvpid swapgs sysret sysretq sysexit sysexitq rsm monitor mwait monitorx mwaitx vmcall
vmlaunch vmresume vmxoff vmxon vmptrld vmptrst vmclear vmread vmwrite vmfunc vmrun vmmcall vmload vmsave stgi clgi
skinit xsetbv getsec encls enclu enclv stac clac xsaves xsaves64 xrstors xrstors64 setssbsy clrssbsy wrussd wrussq
pconfig psmash pvalidate rmpadjust rmpupdate arpl sysenter
"""
_PORT = "in out insb insw insd outsb outsw outsd"
_FAR = "lcall ljmp retf retfq iret iretd iretq"
_TRAP = "int3 ud2 ud2b hlt"  # hlt faults in user code; crt1 ends _start with it
_INTERRUPT = "int int1 into"
# Obsolete or of one maker: VIA PadLock, LWP, TBM, SSE4a and 3DNow!; SMX.
_REFUSED = """
montmul xsha1 xsha256 xstore xcryptcbc xcryptcfb xcryptctr xcryptecb xcryptofb ud0 ud1 femms getsec
extrq insertq movntsd movntss llwpcb slwpcb lwpins lwpval blcfill blci blcic blcmsk blcs blsfill blsic t1mskc tzmsk
"""


def classes(bits: int) -> np.ndarray:
    """uint8[ids]: the label of each of capstone's x86 ids that its bytes alone do not tell; REFUSED to drop it."""
    from capstone import x86_const

    ids = {
        name[8:].lower(): value
        for name, value in vars(x86_const).items()
        if name.startswith("X86_INS_") and isinstance(value, int)
    }
    out = np.zeros(max(ids.values()) + 1, np.uint8)
    groups = (
        (_SYSTEM, Label.SYSTEM),
        (_PORT, Label.PORT),
        (_FAR, Label.FAR),
        (_TRAP, Label.TRAP),
        (_INTERRUPT, Label.INTERRUPT),
        (_REFUSED, REFUSED),
    )
    for names, label in groups:
        for name in names.split():
            if name in ids:
                out[ids[name]] = label
    out[ids["syscall"]] = Label.SYSCALL if bits == 64 else Label.SYSTEM
    if bits == 32:
        out[ids["sysenter"]] = Label.SYSCALL
    return out
