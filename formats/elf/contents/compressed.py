"""Compressed sections (SHF_COMPRESSED): a header, then a zlib stream that gives the bytes it promises.

They are taken where they are written already: a stream ahead would have to end in its checksum. Of zstd only
the header and the first four bytes are looked at.

Source: gABI chapter 4 (Elf32_Chdr, Elf64_Chdr); pyelftools inflates them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.elf.target import Target
from bytegen.formats.elf.written import Behind, Lazily

_HEADERS = {64: struct.Struct("<IIQQ"), 32: struct.Struct("<III")}
ZLIB, ZSTD = 1, 2
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MOST = 1 << 30  # bytes that a stream may give
_PIECE = 1 << 20


def _header(raw: bytes, start: int, target: Target) -> tuple[int, int] | None:
    """Kind and inflated size of what begins at ``start``; None when it is no good header."""
    header = _HEADERS[target.bits]
    if start + header.size + 4 > len(raw):
        return None
    kind, *rest = header.unpack_from(raw, start)
    size, align = rest[-2:]
    if kind not in (ZLIB, ZSTD) or (target.bits == 64 and rest[0]) or align & (align - 1) or size > _MOST:
        return None
    return kind, size


def _inflated_end(raw: bytes, start: int, size: int) -> int | None:
    """Where the zlib stream at ``start`` that gives ``size`` bytes ends; None when there is none."""
    stream = zlib.decompressobj()
    view, given = memoryview(raw)[start:], 0
    pending: bytes | memoryview = view[:_PIECE]
    fed = len(pending)
    try:
        while not stream.eof:
            given += len(stream.decompress(pending, _PIECE))
            if given > size:
                return None
            pending = stream.unconsumed_tail
            if not pending and not stream.eof:
                pending = view[fed : fed + _PIECE]
                fed += len(pending)
                if not pending:
                    return None
    except zlib.error:
        return None
    return start + fed - len(stream.unused_data) if given == size else None


def _sizes(behind: Behind, target: Target, start: int) -> tuple[int, int] | None:
    """The least and the greatest size of the compressed section at ``start``; None when there is none."""
    key = ("compressed", start)
    if key not in behind.cache:
        raw, found = behind.raw, None
        header = _header(raw, start, target)
        body = start + _HEADERS[target.bits].size
        if header is not None and header[0] == ZSTD and raw[body : body + 4] == _ZSTD_MAGIC:
            found = (body + 4 - start, len(raw) - start)
        elif header is not None and header[0] == ZLIB:
            end = _inflated_end(raw, body, header[1])
            found = None if end is None else (end - start, end - start)
        behind.cache[key] = found
    sizes: tuple[int, int] | None = behind.cache[key]
    return sizes


def _places(behind: Behind, target: Target) -> Iterator[int]:
    for kind in (ZLIB, ZSTD):
        mark = kind.to_bytes(8 if target.bits == 64 else 4, "little")
        place = behind.raw.find(mark)
        while place >= 0:
            if _sizes(behind, target, place) is not None:
                yield place
            place = behind.raw.find(mark, place + 1)


def any_compressed(behind: Behind, target: Target) -> bool:
    """Whether there is a compressed section among the bytes already written."""
    if "any compressed" not in behind.cache:
        behind.cache["any compressed"] = next(_places(behind, target), None) is not None
    return bool(behind.cache["any compressed"])


def compressed_offsets(behind: Behind, target: Target) -> Piece:
    """Where compressed sections begin."""
    return Lazily(
        lambda x: _sizes(behind, target, x) is not None,
        lambda: np.array(sorted(_places(behind, target)), np.uint64),
    )


def compressed_sizes(behind: Behind, target: Target, start: int) -> Piece:
    """Sizes of the compressed section at ``start``."""
    sizes = _sizes(behind, target, start)
    return Finite(()) if sizes is None else Span(*sizes)
