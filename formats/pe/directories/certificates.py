"""The certificate table: attribute certificates one after another, each padded to 8 bytes."""

from __future__ import annotations

from bytegen.formats.core.intset import IntSet, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Piece, Span
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.pe.directories.fields import fields
from bytegen.formats.pe.plan import Plan, opener, proceed

HEAD = 8
_REVISIONS = exactly(2, 0x100, 0x200)
_TYPES = exactly(2, 1, 2, 3, 4)


@opener("certificates")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    return _certificate(plan, region, region.start, 0, data)


def _certificate(plan: Plan, region: Region, start: int, number: int, data: bytearray) -> Step:
    left = region.end - start
    if not left:
        return proceed(plan, start, data)
    path = f"certificates[{number}]"
    # The last one fills the table but for its padding; others leave 8 bytes or more.
    pieces: list[Piece] = [Span(max(HEAD, left - 7), left), Span(HEAD, left - HEAD)]

    def content(length: int, data: bytearray) -> Step:
        stop = min(start + (length + 7) // 8 * 8, region.end)

        def body(values: tuple[int, ...], data: bytearray) -> Step:
            if start + HEAD == stop:
                return _certificate(plan, region, stop, number + 1, data)
            return FreeStep(
                start + HEAD, stop, None, f"{path}.bCertificate", "",
                lambda data: _certificate(plan, region, stop, number + 1, data),
            )  # fmt: skip

        return fields(
            start + 4, path,
            [("wRevision", 2, _REVISIONS, "1.0 or 2.0"), ("wCertificateType", 2, _TYPES, "a known type")],
            body, data,
        )  # fmt: skip

    return IntStep(
        start, 4, IntSet(4, *[p for p in pieces if p.bounds()]), f"{path}.dwLength",
        "fills the table, or leaves room for one more certificate", content,
    )  # fmt: skip
