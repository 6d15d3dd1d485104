"""The engine as a judge of itself: what must hold of any bytes, in no format or in one, broken or not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from bytegen.formats.core.constraint import END, Constraint, Refusal


def inconsistencies(data: bytes, format: str, level: str, *, account: bool = True) -> list[str]:
    """What is wrong in how the engine takes `data`; empty when all is well.

    Replays, asks for fields and forced bytes, and with `account` makes what `inspect` shows. An exception is
    the caller's to see: nothing in a file may raise one.
    """
    from bytegen import formats
    from bytegen.formats.api import replay_whole

    constraint, refusal = replay_whole(data, format, level)
    found = [*_refusal(constraint, refusal, data), *_fields(constraint, data)]
    if refusal is None:
        flags = formats.forced_bytes(format, data, level=level, max_bytes=constraint.max_bytes)
        if len(flags) != len(data) + 1:
            found.append(f"forced_bytes gives {len(flags)} flags for {len(data)} bytes and the end")
    if account:
        found += _account(data, format, level, refusal)
    return found


def _refusal(constraint: Constraint, refusal: Refusal | None, data: bytes) -> Iterator[str]:
    if refusal is None:
        if not constraint.done or constraint.position != len(data):
            yield f"no refusal, but the constraint stands at {constraint.position} of {len(data)}"
        return
    if not 0 <= refusal.offset <= len(data):
        yield f"refused at offset {refusal.offset} of {len(data)} bytes"
        return
    if not refusal.rule or not refusal.field:
        yield f"refused at offset {refusal.offset} by field {refusal.field!r}, rule {refusal.rule!r}"
    if refusal.offset != constraint.position:
        yield f"refused at offset {refusal.offset}, but the constraint stands at {constraint.position}"
        return
    mask = constraint.mask()
    if not mask.any():
        yield f"dead end at offset {refusal.offset}: nothing may come next"
    choice = data[refusal.offset] if refusal.offset < len(data) else END
    if mask[choice]:
        yield f"choice {choice} at offset {refusal.offset} was refused, but the mask allows it"


def _fields(constraint: Constraint, data: bytes) -> Iterator[str]:
    spans = constraint.fields()
    ends = [0, *(span.end for span in spans)]
    for span, end in zip(spans, ends, strict=False):
        if span.start != end or span.end <= span.start:
            yield f"field {span.path} is bytes {span.start} to {span.end}, after byte {end}"
            return
        if not 0 <= span.forced <= span.end - span.start:
            yield f"field {span.path} has {span.forced} forced bytes of {span.end - span.start}"
        if span.value is not None and span.value != int.from_bytes(data[span.start : span.end], "little"):
            yield f"field {span.path} has value {span.value}, not what bytes {span.start} to {span.end} say"
    if ends[-1] != constraint.position:
        yield f"the fields end at byte {ends[-1]}, the constraint stands at {constraint.position}"


def _account(data: bytes, format: str, level: str, refusal: Refusal | None) -> Iterator[str]:
    from bytegen.formats.annotate.account import KINDS, Account
    from bytegen.formats.annotate.fields import annotate

    account = annotate(data, format=format, level=level)
    if account.refusal != (None if refusal is None else tuple(refusal)):
        yield f"the account's refusal is {account.refusal}, the replay's {refusal}"
    areas = [(area.start, area.end) for area in account.areas]
    spans = [(span.start, span.end) for span in account.spans]
    for name, places in (("area", areas), ("span", spans)):
        ends = [0, *(end for _, end in places)]
        if any(start != before or end <= before for (start, end), before in zip(places, ends, strict=False)):
            yield f"the account's {name}s do not follow one another"
        if ends[-1] != len(data):
            yield f"the account's {name}s end at byte {ends[-1]} of {len(data)}"
    if any(area.kind not in KINDS for area in account.areas):
        yield "an area is of no known kind"
    for one, other in pairwise(account.code):
        if one.offset + one.size > other.offset:
            yield f"instructions overlap at byte {other.offset}"
            break
    if Account.from_lines(account.lines()) != account:
        yield "the account does not survive its own lines"
