"""Level `code` of ELF files: which parts of the file are instructions, and where functions may begin.

The executable segments are settled when the program headers have been read: what of them lies ahead and is
promised to nothing else becomes code. So the headers of a file, or tables promised earlier, may lie inside an
executable segment without being code; read-only data that a linker puts there may not.
"""

from __future__ import annotations

import numpy as np

from bytegen.formats.code.region import Executable, reserve, stream
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.steps import Step
from bytegen.formats.core.written import Written
from bytegen.formats.elf.plan import Plan, opener, proceed
from bytegen.formats.elf.tables import Hooks


def segments_read(plan: Plan, position: int, data: bytearray) -> Plan:
    """The plan after the program headers, which end at ``position``: code is reserved, the entry is owed."""
    if plan.level != "code":
        return plan
    assert isinstance(data, Written)
    parts = [
        Executable(start, stop, address, f"code[{i}]")
        for i, (start, stop, address) in enumerate(plan.executable)
    ]
    ledger, code = reserve(
        plan.ledger,
        parts,
        position,
        instructions=plan.target.instructions,
        bits=plan.target.bits,
        privileged=data.privileged,
        nowhere=True,
    )
    if plan.entry:
        code.promise(plan.entry, data)
    return plan._replace(ledger=ledger, code=code)


@opener("code")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    assert plan.code is not None
    return stream(plan.code, region, lambda data: proceed(plan, region.end, data), data)


def _function_starts(plan: Plan, addresses: np.ndarray, data: bytes | bytearray) -> np.ndarray:
    """Where functions may begin: inside executable memory where instructions do, elsewhere anywhere."""
    if plan.code is None:
        return np.ones(len(addresses), dtype=bool)
    return plan.code.functions_may_start(plan.executable, addresses, 0, data)


Hooks.function_starts = staticmethod(_function_starts)
