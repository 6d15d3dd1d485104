"""`validate`: one file before our own rules, LIEF and capstone.

python -c "from bytegen import formats; print(formats.validate(open('a.out', 'rb').read()))"
"""

from __future__ import annotations

import hashlib

from bytegen.formats.identify import describe, resolve, unsupported
from bytegen.formats.libraries import Imports
from bytegen.formats.report import Problem, Report


def validate(
    data: bytes,
    *,
    format: str | None = None,
    level: str = "load",
    isolate: bool = True,
    imports: Imports = "known",
) -> Report:
    """Holds a file to a format and reports what our own rules, LIEF and capstone found, and where.

    `format` is found by the first bytes when None; a file in no format we have gives a report that says what
    it is. Our rules replay the file and name the first byte they refuse, its field and the rule. LIEF must
    pass `check_layout`, log nothing at warning level, and read every header field back as the file has it.
    capstone says how much of the code decodes from the entry point: a fact, no problem below level "code".

    `imports` says what a PE file may import, as in `bytegen.formats.constraint`: what every Windows has, DLLs that
    come along with it, or anything.

    With `isolate` (the default) the judges run in a child process with limits on memory, processor time and
    waiting, so that a file made to crash a parser cannot take the caller down; the child is kept for the next
    file. Without it they run here, which saves the child's start; LIEF's logger is redirected meanwhile, so
    not from two threads at once.

    Raises FormatError for an unknown `format` or `level`; never for anything in `data`.
    """
    from bytegen import formats

    data = bytes(data)
    facts: dict[str, object] = {
        "what": describe(data),
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    found = resolve(data, format, level)
    if found is None:
        return Report(None, level, [unsupported(data, formats.available())], facts)
    if isolate:
        from bytegen.formats.oracles.isolated import examine_isolated

        findings = examine_isolated(data, found, level, imports)
    else:
        from bytegen.formats.oracles.examine import examine

        findings = list(examine(data, found, level, imports))
    problems = []
    for finding in findings:
        problems += [Problem(**problem) for problem in finding["problems"]]  # type: ignore[arg-type]
        facts |= finding["facts"]
    return Report(found, level, problems, facts)
