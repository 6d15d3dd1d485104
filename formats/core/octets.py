"""Single bytes of a growing `bytearray`.

Compiled modules take these from octets.pxd, where no Python integer is made for a byte.
"""

from __future__ import annotations


def size_of(data: bytearray) -> int:
    """How many bytes there are."""
    return len(data)


def byte_at(data: bytearray, i: int) -> int:
    """The byte at ``i``, which is not checked."""
    return data[i]


def put(data: bytearray, byte: int) -> None:
    """Append a byte."""
    data.append(byte)
