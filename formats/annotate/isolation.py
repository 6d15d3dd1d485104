"""The account of an untrusted file, made in the child process of `bytegen.formats.oracles.isolated`."""

from __future__ import annotations

from bytegen.formats.annotate.account import Account
from bytegen.formats.identify import describe, resolve

MOST_ANSWER_BYTES = 256 << 20


def account_of(
    data: bytes, *, format: str | None = None, level: str = "load", instructions: int = 100_000
) -> Account:
    """As `fields.annotate`, in a child process with limits on memory, time and the size of its answer.

    A child that failed gives an account without places, and a note of how it failed. Raises FormatError for
    an unknown `format` or `level`.
    """
    from bytegen.formats.oracles.isolated import annotate_isolated

    found = resolve(data, format, level)
    request: dict[str, object] = {"format": found, "level": level, "instructions": instructions}
    lines, reason = annotate_isolated(data, request, MOST_ANSWER_BYTES)
    if reason is None:
        return Account.from_lines(lines)
    failed = Account(describe(data), len(data), found, level)
    failed.notes.append(f"the process that reads the file {reason}; this is all that is known")
    return failed
