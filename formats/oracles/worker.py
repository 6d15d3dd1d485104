"""The child process in which untrusted files are parsed: requests on standard input, findings on output.

A request is a line of JSON ({"task", "format", "level", "imports", "size"}) and `size` bytes; the answer is lines of
JSON, one for each judge (task "examine") or those of an account (task "annotate"), and then an empty line. Memory,
processor time and core dumps are limited, so a file that makes a parser run away ends this process and not
the caller. Started by `isolated.py`, by path, with `-m`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from bytegen.formats.libraries import Imports, from_plain
from bytegen.formats.oracles.examine import Finding, ask, judges

if TYPE_CHECKING:
    from bytegen.formats.annotate.account import Account

MEMORY_BYTES = 2 << 30
CPU_SECONDS = 60


def _virtual_bytes() -> int:
    """The address space this process has now; 0 where /proc does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _ask(judge: str, data: bytes, format: str, level: str, imports: Imports) -> Finding:
    """What a judge finds; a judge that fails (out of memory, say) is a problem, and the next one is asked."""
    try:
        return ask(judge, data, format, level, imports)
    except Exception as error:
        message = f"the judge failed: {type(error).__name__}: {error}"
        problem: dict[str, object] = {"judge": judge, "message": message, "offset": None, "field": ""}
        return {"judge": judge, "problems": [problem], "facts": {}}


def _account(request: dict[str, Any], data: bytes) -> Account:
    """The account of a file; where the rules fail (out of memory, say), that of the tolerant reader alone."""
    from bytegen.formats.annotate.fields import annotate

    format, level, instructions = (request[key] for key in ("format", "level", "instructions"))
    try:
        return annotate(data, format=format, level=level, instructions=instructions)
    except Exception as error:
        account = annotate(data, level=level, instructions=instructions, rules=False)
        account.notes.append(f"the rules failed: {type(error).__name__}: {error}")
        return account


def _answers(request: dict[str, Any], data: bytes) -> Iterator[str]:
    """The lines that answer a request."""
    if request["task"] == "annotate":
        yield from _account(request, data).lines()
        return
    imports = from_plain(request.get("imports", "known"))
    for judge in judges(request["format"]):
        yield json.dumps(_ask(judge, data, request["format"], request["level"], imports))


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers requests until standard input ends."""
    import lief  # noqa: F401  # loaded before the memory is measured and limited

    _limit(resource.RLIMIT_CORE, 0)
    if present := _virtual_bytes():
        _limit(resource.RLIMIT_AS, present + MEMORY_BYTES)
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request["size"])
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + CPU_SECONDS)
        for answer in _answers(request, data):
            answers.write(answer.encode() + b"\n")
            answers.flush()
        answers.write(b"\n")
        answers.flush()


def main() -> None:
    """Serves on the process's own standard streams, keeping stray prints of libraries out of the answers."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
