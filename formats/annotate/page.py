"""The account as one self-contained page: a map of the file, its fields, bytes and instructions.

Nothing of the file reaches the page as markup: the account is a block of JSON in which every "<", ">" and "&"
is escaped, and the script, which alone may run (by its hash), writes text nodes only.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import Any

from bytegen.formats.annotate.account import KINDS, SOURCES, Account
from bytegen.formats.annotate.colours import FORCED, FREE, HEAT, HEX, REFUSED, UNREACHED
from bytegen.formats.annotate.meanings import meaning

MOST_CELLS = 1 << 20
MOST_EMBEDDED = 8 << 20
_BITS_SCALE = 16


class _Table:
    """Texts that occur often, each kept once."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {}

    def add(self, text: str) -> int:
        """The number of a text."""
        return self.texts.setdefault(text, len(self.texts))


def page(account: Account, data: bytes, name: str, bits: Sequence[float] | None = None) -> str:
    """The page for a file called `name`; `bits`, one number a byte, adds a probability map.

    Of files longer than `MOST_EMBEDDED` only the first bytes are in the page, and a cell of the map stands
    for several bytes where the file has more than `MOST_CELLS`.
    """
    plain = _plain(account, data, name, bits)
    # No "<" can end the block, and U+2028 is no line end here, for the block is JSON and not a program.
    block = json.dumps(plain, separators=(",", ":"))
    for character in "<>&":
        block = block.replace(character, f"\\u{ord(character):04x}")
    folder = files("bytegen.formats.annotate")
    style, script = (folder.joinpath(f"page.{end}").read_text() for end in ("css", "js"))
    return Template(folder.joinpath("page.html").read_text()).substitute(
        TITLE=html.escape(name), STYLE=style, SCRIPT=script, DATA=block,
        STYLE_HASH=_hash(style), SCRIPT_HASH=_hash(script),
    )  # fmt: skip


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _plain(account: Account, data: bytes, name: str, bits: Sequence[float] | None) -> dict[str, Any]:
    unit = max(1, -(-len(data) // MOST_CELLS))
    refusal = account.refusal and dict(zip(("offset", "field", "rule"), account.refusal, strict=True))
    return {
        "name": name, "what": account.what, "size": account.size, "format": account.format,
        "level": account.level, "order": account.order, "refusal": refusal, "notes": account.notes,
        "unit": unit, "kinds": [[kind, HEX[kind]] for kind in KINDS],
        "areas": [[a.end - a.start, a.name, _kind(a.kind), a.note] for a in account.areas],
        **_spans(account),
        "colours": {"refused": REFUSED, "forced": FORCED, "free": FREE, "unreached": UNREACHED, "heat": HEAT},
        "marks": [list(mark) for mark in account.marks],
        "code": [list(instruction) for instruction in account.code],
        "forced": account.forced,
        "bits": _quantised(bits) if bits is not None else None,
        "whole": len(data) <= MOST_EMBEDDED,
        "bytes": base64.b64encode(data[:MOST_EMBEDDED]).decode(),
    }  # fmt: skip


def _kind(kind: str) -> int:
    return KINDS.index(kind) if kind in KINDS else KINDS.index("unknown")


def _spans(account: Account) -> dict[str, Any]:
    """The spans as columns; paths in two parts, for most differ in one only."""
    parents, leaves, rules, words = _Table(), _Table(), _Table(), _Table()
    columns: dict[str, list[int]] = {
        name: [] for name in ("size", "parent", "leaf", "rule", "word", "number", "source")
    }
    for span in account.spans:
        parent, dot, leaf = span.path.rpartition(".")
        number = span.value is not None
        for name, value in (
            ("size", span.end - span.start), ("parent", parents.add(parent + dot)), ("leaf", leaves.add(leaf)),
            ("rule", rules.add(span.rule)), ("number", int(number)),
            ("word", words.add(meaning(span.path, span.value) if span.value is not None else "")),
            ("source", 1 if span.source == SOURCES[0] else 2),
        ):  # fmt: skip
            columns[name].append(value)
    tables = {"parents": parents, "leaves": leaves, "rules": rules, "words": words}
    return {"spans": columns} | {name: list(table.texts) for name, table in tables.items()}


def _quantised(bits: Sequence[float]) -> str:
    """Bits in sixteenths, one byte each, at most 255."""
    return base64.b64encode(bytes(min(255, max(0, round(b * _BITS_SCALE))) for b in bits)).decode()
