"""Binds a PE file as bind.exe does: stamps, addresses in place of names, and the directory in the headers."""

from __future__ import annotations

import struct

from bytegen.formats.oracles import rawpe
from bytegen.formats.oracles.rawpe import RawPe, read_raw_pe

_BOUND = 0xFFFFFFFF  # the time stamp and chain of a descriptor whose binding the directory describes


def _directory(names: list[bytes], forwarded: dict[bytes, list[bytes]]) -> bytes:
    """The directory: a descriptor a DLL, with references to those it forwards to, and the names behind."""
    records = sum(1 + len(forwarded.get(name, [])) for name in names) + 1
    texts, places = b"", {}
    for name in dict.fromkeys([*names, *(other for listed in forwarded.values() for other in listed)]):
        places[name] = 8 * records + len(texts)
        texts += name + b"\0"
    rows = b""
    for i, name in enumerate(names):
        others = forwarded.get(name, [])
        rows += struct.pack("<IHH", 0x4A5BC000 + i, places[name], len(others))
        for other in others:
            rows += struct.pack("<IHH", 0x4A5BD000 + i, places[other], 0)
    return rows + bytes(8) + texts


def bound(data: bytes, forwarded: dict[bytes, list[bytes]] | None = None) -> bytes:
    """A bound copy of a file whose descriptors have lookup tables.

    ``forwarded`` says for a DLL of the file to which others it forwards functions. Raises ValueError where the
    headers have no room.
    """
    raw, made = read_raw_pe(data), bytearray(data)
    imports = rawpe.read_imports(raw)
    rva, _ = raw.directory(rawpe.IMPORT)
    word = raw.bits // 8
    for i, found in enumerate(imports):
        place = _offset(raw, rva + 20 * i)
        struct.pack_into("<II", made, place + 4, _BOUND, _BOUND)
        table = _offset(raw, found.fields[4])
        for j in range(len(found.thunks)):
            address = (0x7C800000 if word == 4 else 0x78D20000) + 0x10000 * i + 0x10 * j + 0x1234
            made[table + word * j : table + word * (j + 1)] = address.to_bytes(word, "little")
    content = _directory([found.name for found in imports], forwarded or {})
    headers = raw.lfanew + 24 + raw.coff["SizeOfOptionalHeader"]
    end = headers + 40 * len(raw.sections)
    if end + len(content) > raw.optional["SizeOfHeaders"]:
        raise ValueError(f"the headers have no room for {len(content)} bytes behind {end:#x}")
    made[end : end + len(content)] = content
    struct.pack_into("<II", made, headers - 8 * 16 + 8 * rawpe.BOUND_IMPORT, end, len(content))
    return bytes(made)


def _offset(raw: RawPe, rva: int) -> int:
    found = raw.offset(rva)
    assert found is not None
    return found
