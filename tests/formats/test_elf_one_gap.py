"""Section headers before all that they name: names and the dynamic section's tables share the one gap that is left."""

from __future__ import annotations

import struct
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen import formats
from bytegen.formats.oracles import panel
from bytegen.formats.oracles.rawelf import EHDR, PHDR, SHDR

TARGET = "elf64-x86_64"
GNU_HASH = struct.pack("<IIIIQI", 1, 1, 1, 6, 0, 0)  # one empty bucket
_ALLOC = 2
_SHOFF = 1_024  # behind room for a dynamic section, which may be there for all that the headers say


def _in_order(order: list[int], name: int, spare: int) -> bytes:
    """A shared object: headers, then hash table, symbols, their strings and names in an order, then what is dynamic.

    ``name`` is where names begin, too far on for any table behind; ``spare`` bytes belong to nothing.
    """
    names = bytes(name) + b".dynamic\0.x\0"
    contents = [GNU_HASH, bytes(24), b"\0\0", names]
    at, offsets = _SHOFF + 6 * 64 + spare, [0] * 4
    body = b""
    for i in order:
        body += bytes(-(at + len(body)) % 8)
        offsets[i] = at + len(body)
        body += contents[i]
    body += bytes(-(at + len(body)) % 8)
    start = at + len(body)
    tags = [(0x6FFFFEF5, offsets[0]), (6, offsets[1]), (11, 24), (5, offsets[2]), (10, 2), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in tags)
    size = start + len(dynamic)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    ehdr = EHDR[64].pack(3, 62, 1, 0, 64, _SHOFF, 0, 64, 56, 2, 64, 6, 5)
    phdrs = PHDR[64].pack(1, 6, 0, 0, 0, size, size, 4096)
    phdrs += PHDR[64].pack(2, 6, start, start, start, len(dynamic), len(dynamic), 8)
    shdrs = bytes(64)
    shdrs += SHDR[64].pack(name + 9, 0x6FFFFFF6, _ALLOC, offsets[0], offsets[0], len(GNU_HASH), 2, 0, 8, 0)
    shdrs += SHDR[64].pack(0, 11, _ALLOC, offsets[1], offsets[1], 24, 3, 1, 8, 24)
    shdrs += SHDR[64].pack(0, 3, _ALLOC, offsets[2], offsets[2], 2, 0, 0, 1, 0)
    shdrs += SHDR[64].pack(name, 6, _ALLOC, start, start, len(dynamic), 3, 0, 8, 16)
    shdrs += SHDR[64].pack(0, 3, 0, 0, offsets[3], len(names), 0, 0, 1, 0)
    return (ident + ehdr + phdrs).ljust(_SHOFF, b"\0") + shdrs + bytes(spare) + body + dynamic


@settings(deadline=None, max_examples=60)
@given(
    order=st.permutations(range(4)), name=st.integers(1_000, 5_000), spare=st.integers(0, 40).map(lambda n: 8 * n),
    more=st.integers(0, 600),
)  # fmt: skip
def test_names_and_tables_share_the_only_gap(order: list[int], name: int, spare: int, more: int) -> None:
    data = _in_order(order, name, spare)
    constraint = formats.constraint(TARGET, max_bytes=len(data) + more, level="load")
    assert formats.replay(constraint, data) is None


def test_the_judges_take_them(tmp_path: Path) -> None:
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        path = tmp_path / "library.so"
        path.write_bytes(_in_order(order, 1_200, 16))
        path.chmod(0o755)
        assert panel.complaints(path, TARGET, "load") == []
