"""Resources of PE files: version information is what pefile and loaders can follow."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("lief")
pytest.importorskip("pefile")

from steered import steered

from bytegen import formats
from bytegen.formats.oracles import rawpe
from bytegen.formats.oracles.lief_pe import lief_pe_judge
from bytegen.formats.oracles.pefile_judge import pefile_judge
from bytegen.formats.pe.directories.version_info import KEY, LEAST, needed

TABLE = 0x80000000
TREE = {
    "coff.NumberOfSections": 1, "coff.PointerToSymbolTable": 0, "optional.SectionAlignment": 4096,
    "optional.FileAlignment": 512, "optional.SizeOfImage": 0x2000, "optional.AddressOfEntryPoint": 0x1700,
    "directory.resources.address": 0x1000, "directory.resources.size": 0x600,
    "section[0].VirtualSize": 0x800, "section[0].SizeOfRawData": 0x800,
    **{f"directory.{name}.address": 0 for name in (
        "exports", "imports", "exceptions", "certificates", "relocs", "debug", "tls", "load_config", "iat", "clr")},
    "resources.NumberOfNamedEntries": 0, "resources.NumberOfIdEntries": 1,
    "resources.entry[0].Id": 16, "resources.entry[0].OffsetToData": TABLE | 0x18,
    "resources[0].NumberOfNamedEntries": 0, "resources[0].NumberOfIdEntries": 1,
    "resources[0].entry[0].Id": 1, "resources[0].entry[0].OffsetToData": TABLE | 0x30,
    "resources[0][0].NumberOfNamedEntries": 0, "resources[0][0].NumberOfIdEntries": 2,
    "resources[0][0].entry[0].OffsetToData": 0x50, "resources[0][0].entry[1].OffsetToData": 0x60,
}  # fmt: skip


def _lengths(rng: random.Random) -> int:
    return rng.choice((0, 8, 12, 36, 40, 60, 100, 200, 500, rng.randrange(1 << 16)))


def _drawn(seed: int) -> bytes:
    rng = random.Random(seed)
    text = list("StringFileInfoVarFileInfo04b0")
    keys: list[str] = []

    def letter(rng: random.Random) -> int:
        if not keys:
            keys.extend(
                rng.choice((["\0"], [*"StringFileInfo\0"], [*"VarFileInfo\0"], [*"040904b0\0"], text))
            )
        return ord(keys.pop(0))

    wanted = {
        **TREE,
        "resources[0][0][0].OffsetToData": rng.choice((0x1100, 0x1104, 0x1300, 0x1590)),
        "resources[0][0][0].Size": rng.choice((LEAST, 0x200, 0x300)),
        "wLength": _lengths,
        "wValueLength": lambda rng: rng.choice((0, 0, 0, 1, 40000)),
        "wType": lambda rng: rng.choice((0, 1, 1, 2)),
        "szKey": letter,
    }
    c = formats.constraint("pe32-i386", max_bytes=6000, level="parse")
    return steered(c, rng, wanted)


def test_version_information_is_followed_without_a_warning() -> None:
    tables = 0
    for seed in range(25):
        data = _drawn(seed)
        leaves = rawpe.read_resources(rawpe.read_raw_pe(data))
        assert leaves[0].path[:2] == (16, 1)
        assert lief_pe_judge(data) + pefile_judge(data) == [], seed
        tables += "StringFileInfo".encode("utf-16-le") in data
        c = formats.constraint("pe32-i386", max_bytes=143_360, level="parse")
        assert formats.replay(c, data) is None, seed
    assert tables


def test_needed_agrees_with_the_masks() -> None:
    for seed in range(12):
        data = _drawn(seed)
        raw = rawpe.read_raw_pe(data)
        leaf = rawpe.read_resources(raw)[0]
        start, section = raw.offset(leaf.rva), raw.sections[0]
        assert start is not None
        stop = section["PointerToRawData"] + min(section["VirtualSize"], section["SizeOfRawData"])
        least = needed(data[start:stop], stop - start)
        assert least is not None
        assert LEAST <= least <= leaf.size


def test_what_is_no_version_information_is_seen() -> None:
    good = bytes(6) + KEY + bytes(2 + 52) + bytes(8)
    assert needed(good, len(good)) == LEAST == len(good)
    assert needed(good[:-1], len(good) - 1) is None
    assert needed(good.replace(b"F\0", b"f\0"), len(good)) is None
    strings = "StringFileInfo\0".encode("utf-16-le")
    told = good[:92] + bytes((0, 0, 0, 0, 1, 0)) + strings + bytes(8)
    assert needed(told, len(told)) == 92 + 36 + 8
    assert needed(told[:-1], len(told) - 1) is None
