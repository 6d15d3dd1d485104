"""Level `code` of PE files: which parts of the file are instructions, and where functions may begin.

What is code is settled when the section table has been read: the file-backed parts of executable sections that
no directory has reserved. Read-only data that a linker puts there is not code.
"""

from __future__ import annotations

import numpy as np

from bytegen.formats.code.region import Executable, reserve, stream
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.steps import Step
from bytegen.formats.core.written import Written
from bytegen.formats.pe.plan import Plan, opener, proceed


def sections_read(plan: Plan, position: int, data: bytearray) -> Plan:
    """The plan after the section table, which ends at ``position``: code is reserved, the entry is owed."""
    if plan.level != "code":
        return plan
    assert isinstance(data, Written)
    parts = [
        Executable(start, stop, plan.base + address, f"code[{i}]")
        for i, (start, stop, address) in enumerate(plan.executable)
    ]
    ledger, code = reserve(
        plan.ledger,
        parts,
        position,
        instructions=plan.target.instructions,
        bits=8 * plan.target.word,
        privileged=data.privileged,
        lists=plan.target.legacy,  # GNU ld's; on AArch64 an instruction may begin as they do
    )
    if plan.entry:
        code.promise(plan.base + plan.entry, data)
    return plan._replace(ledger=ledger, code=code)


@opener("code")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    assert plan.code is not None
    return stream(plan.code, region, lambda data: proceed(plan, region.end, data), data)


def function_starts(plan: Plan, addresses: np.ndarray, data: bytes | bytearray) -> np.ndarray:
    """bool for each address (RVA, unsigned): whether a function may begin there.

    Inside executable sections where instructions do, elsewhere anywhere; below level `code` anywhere.
    """
    if plan.code is None:
        return np.ones(len(addresses), dtype=bool)
    return plan.code.functions_may_start(plan.executable, addresses, plan.base, data)
