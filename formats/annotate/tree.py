"""An account as a tree: areas, the records in them, their fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from bytegen.formats.annotate.account import Account, Area, Span
from bytegen.formats.annotate.meanings import meaning

_PART = re.compile(r"[^.\[]*(?:\[[^\]]*\])*")
_PREVIEW = 48


@dataclass
class Node:
    """A part of the file: an area, a record in it, or a field (then `span` is set)."""

    name: str
    start: int
    end: int
    label: str = ""
    span: Span | None = None
    area: Area | None = None
    children: list[Node] = field(default_factory=list)


def parts_of(path: str, area: str) -> list[str]:
    """A path's parts below its area: "shdr[3].sh_name" gives "shdr[3]" and "sh_name"."""
    if path.startswith(f"{area}."):
        path = path[len(area) + 1 :]
    return [part for part in _PART.findall(path) if part] or [path]


def build(account: Account) -> list[Node]:
    """A node for each area, in order; a record's label is the name it has in the account."""
    names = account.names
    roots = []
    spans = iter(account.spans)
    span = next(spans, None)
    for area in account.areas:
        root = Node(area.name, area.start, area.end, area.note, area=area)
        # A span belongs to the area in which it begins.
        while span is not None and span.start < area.end:
            _place(root, span, names)
            span = next(spans, None)
        only = root.children
        if len(only) == 1 and only[0].children and "[" not in only[0].name:
            root.children = only[0].children
        roots.append(root)
    return roots


def _place(root: Node, span: Span, names: dict[int, str]) -> None:
    node = root
    *above, leaf = parts_of(span.path, root.name)
    name = names.get(span.start, "")
    entry = leaf.endswith("]")  # an entry of a table is named itself, a field's name is its record's
    for part in above:
        last = node.children[-1] if node.children else None
        if last is None or last.name != part or last.span is not None:
            last = Node(part, span.start, span.end, "" if entry else name)
            node.children.append(last)
        last.end = span.end
        node = last
    # What begins with code is not the function at its beginning.
    in_code = root.area is not None and root.area.kind == "code"
    label = name if entry or (span.value is None and not in_code) else ""
    node.children.append(Node(leaf, span.start, span.end, label, span))


def shown(span: Span, data: bytes) -> str:
    """The value of a field as a person reads it: number, meaning, or the beginning of its bytes."""
    if span.value is not None:
        words = meaning(span.path, span.value)
        number = str(span.value) if span.value < 10 else f"{span.value} ({span.value:#x})"
        return f"{number}: {words}" if words else number
    return preview(data[span.start : min(span.end, span.start + _PREVIEW)], span.end - span.start)


def preview(part: bytes, size: int) -> str:
    """The beginning of some bytes: as text where it is text, else in hexadecimal."""
    if not any(part):
        return f"{size} zero bytes" if len(part) == size else f"{len(part)} zero bytes ..."
    more = " ..." if len(part) < size else ""
    pieces = [piece.decode("ascii") for piece in part.split(b"\0") if piece.isascii()]
    if sum(map(len, pieces)) >= 0.7 * len(part.replace(b"\0", b"")) and all(map(str.isprintable, pieces)):
        return " ".join(f'"{piece}"' for piece in pieces if piece) + more
    short = part[:16]
    return short.hex(" ") + (" ..." if len(short) < size else "")


def collapse(nodes: list[Node], most: int, head: int = 5, tail: int = 2) -> Iterator[Node | int]:
    """The nodes; where there are more than `most`, the first and last few, and the number left out between."""
    if len(nodes) <= most:
        yield from nodes
        return
    yield from nodes[:head]
    yield len(nodes) - head - tail
    yield from nodes[-tail:]


def leaves(nodes: Iterable[Node]) -> Iterator[Node]:
    """Every field below `nodes`, in order."""
    for node in nodes:
        if node.span is not None:
            yield node
        yield from leaves(node.children)
